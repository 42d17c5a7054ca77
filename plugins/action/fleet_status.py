# SPDX-License-Identifier: GPL-3.0-or-later
"""What each host runs beside what it should run; documentation in plugins/modules/fleet_status.py."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from ..module_utils.errors import BadInput
from ..module_utils.fleet_status import host_status, status_lines
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.values import plain


class ActionModule(FlotillaAction):
    """Runs once, on the controller, after the hosts were looked at."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": {"type": "list", "elements": "dict", "required": True},
        "built": {"type": "dict", "default": {}},
        "locks": {"type": "dict", "default": {}},
        "file": {"type": "path"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Show the table, and write it down as JSON if there is a file for it."""
        built, locks = options["built"].get("groups") or {}, options["locks"].get("groups") or {}
        hostvars = task_vars["hostvars"]
        found = [
            host_status(
                host["name"],
                group["name"],
                (built.get(group["name"], {}).get("hosts") or {}).get(host["name"], {}),
                locks.get(group["name"], {}),
                plain(hostvars[host["name"]].get("flotilla_info") or {}),
            )
            for group in options["groups"]
            for host in group["hosts"]
        ]
        lines = status_lines(found)
        for line in lines:
            self.progress(line)
        statuses = {status.host: plain(asdict(status)) for status in found}
        changed = _write(Path(options["file"]), statuses, check=self.check_mode) if options["file"] else False
        return {"changed": changed, "hosts": statuses, "lines": lines}


def _write(file: Path, statuses: Mapping[str, Any], *, check: bool) -> bool:
    """Write the file as a whole, so that who reads it never sees half of it; whether it changed."""
    text = json.dumps(statuses, indent=2) + "\n"
    try:
        if file.exists() and file.read_text(encoding="utf-8") == text:
            return False
        if not check:
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as new:
                new.write(text)
            os.chmod(new.name, 0o644)
            os.replace(new.name, file)
    except OSError as error:
        raise BadInput(
            f"flotilla_status_file {str(file)!r}", f"it cannot be written: {error.strerror}", "Name another file."
        ) from None
    return True
