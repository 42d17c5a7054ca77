# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts run and should run, and what groups have proven; documentation in plugins/modules/fleet_status.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from ..module_utils.fleet_status import host_status, status_lines
from ..module_utils.group_status import group_lines, group_status
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.result_file import write_json
from ..plugin_utils.values import plain


class ActionModule(FlotillaAction):
    """Runs once, on the controller, after the hosts were looked at."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": {"type": "list", "elements": "dict", "required": True},
        "built": {"type": "dict", "default": {}},
        "locks": {"type": "dict", "default": {}},
        "ledger": {"type": "dict", "default": {}},
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
        ledger, now = options["ledger"].get("groups") or {}, time.time()
        groups = [group_status(group, ledger.get(group["name"], {}), now) for group in options["groups"]]
        lines = [*status_lines(found), *group_lines(groups)]
        for line in lines:
            self.progress(line)
        statuses = {
            "hosts": {status.host: plain(asdict(status)) for status in found},
            "groups": {status.group: plain(asdict(status)) for status in groups},
        }
        file = options["file"]
        changed = write_json("flotilla_status_file", Path(file), statuses, check=self.check_mode) if file else False
        return {"changed": changed, **statuses, "lines": lines}
