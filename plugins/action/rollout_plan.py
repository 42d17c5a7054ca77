# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout; documentation in plugins/modules/rollout_plan.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils.durations import seconds
from ..module_utils.planning import Findings, Pace, make_plan
from ..module_utils.report import plan_lines
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.values import plain

_ARGUMENTS: dict[str, dict[str, Any]] = {
    "groups": {"type": "list", "elements": "dict", "required": True},
    "locked": {"type": "dict", "default": {}},
    "built": {"type": "dict", "default": {}},
    "absent": {"type": "dict", "default": {}},
    "serial": {"type": "list", "elements": "raw", "default": [1, "25%", "100%"]},
    "max_fail_percentage": {"type": "float", "default": 0.0},
    "soak": {"type": "str", "default": "0"},
    "reboot": {"type": "str", "choices": ["if_needed", "never", "always"], "default": "never"},
}


class ActionModule(FlotillaAction):
    """Runs once, on the controller, between the build and the first batch."""

    ARGUMENT_SPEC = _ARGUMENTS

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Say who is updated to what and when, from what the earlier stages found."""
        hostvars = task_vars["hostvars"]
        names = [host["name"] for group in options["groups"] for host in group["hosts"]]
        findings = Findings(
            groups=options["groups"],
            locked=options["locked"].get("groups") or {},
            built=options["built"].get("groups") or {},
            info={name: _info(options, name, hostvars[name]) for name in names},
        )
        pace = {group["name"]: _pace(group["name"], options, hostvars[group["hosts"][0]["name"]]) for group in options["groups"]}
        plan = make_plan(findings, pace)
        lines = plan_lines(plan)
        for line in lines:
            self.progress(line)
        order = [host for batch in plan.batches for host in batch]
        return {
            "plan": plain(plan.as_dict()),
            # A play cannot have an empty list of hosts; this pattern matches none.
            "order": order or ["all:!all"],
            "serial": [len(batch) for batch in plan.batches] or [1],
            "lines": lines,
        }


def _info(options: Mapping[str, Any], name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the host runs, and whether a reboot that waits there is part of the rollout."""
    if away := options["absent"].get(name):
        return {"reachable": False, "msg": away}
    info: dict[str, Any] = plain(variables.get("flotilla_info") or {})
    waits = bool(info.get("reboot_needed")) and info.get("running") == info.get("profile")
    wanted = variables.get("flotilla_reboot", options["reboot"]) == "if_needed"
    return {**info, "reboot_wanted": waits and wanted} if info else info


def _pace(group: str, options: Mapping[str, Any], variables: Mapping[str, Any]) -> Pace:
    """How fast the group goes: its own variables, which its first host has, before those of the host that the task runs on."""
    serial = plain(variables.get("flotilla_serial"))
    percentage = plain(variables.get("flotilla_max_fail_percentage"))
    soak = plain(variables.get("flotilla_soak"))
    return Pace(
        serial=options["serial"] if serial is None else serial if isinstance(serial, list) else [serial],
        max_fail_percentage=float(options["max_fail_percentage"] if percentage is None else percentage),
        soak=seconds(group, "flotilla_soak", options["soak"] if soak is None else soak),
    )
