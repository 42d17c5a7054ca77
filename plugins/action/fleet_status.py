# SPDX-License-Identifier: GPL-3.0-or-later
"""What each host runs beside what it should run; documentation in plugins/modules/fleet_status.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from ..module_utils.fleet_status import host_status, status_lines
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.result_file import write_json
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
        file = options["file"]
        changed = write_json("flotilla_status_file", Path(file), statuses, check=self.check_mode) if file else False
        return {"changed": changed, "hosts": statuses, "lines": lines}
