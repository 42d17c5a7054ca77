# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout; documentation in plugins/modules/rollout_plan.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.utils.display import Display

from ..module_utils.durations import seconds
from ..module_utils.planning import Findings, Pace, make_plan, unchecked
from ..module_utils.report import plan_lines
from ..module_utils.rollout_record import beginnings
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.role_options import role_options
from ..plugin_utils.values import plain

_display = Display()

_ARGUMENTS: dict[str, dict[str, Any]] = {
    "groups": {"type": "list", "elements": "dict", "required": True},
    "locked": {"type": "dict", "default": {}},
    "built": {"type": "dict", "default": {}},
    "absent": {"type": "dict", "default": {}},
    "ledger": {"type": "dict", "default": {}},
    "serial": {"type": "list", "elements": "raw", "default": [1, "25%", "100%"]},
    "max_fail_percentage": {"type": "float", "default": 0.0},
    "soak": {"type": "str", "default": "0"},
    "reboot": {"type": "str", "choices": ["if_needed", "never", "always"], "default": "never"},
    "goal": {"type": "str", "choices": ["switch", "boot", "test", "dry-activate"], "default": "switch"},
    "landing": {"type": "bool", "default": False},
}


class ActionModule(FlotillaAction):
    """Runs once, on the controller, between the build and the first batch."""

    ARGUMENT_SPEC = _ARGUMENTS

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Say who is updated to what and when, from what the earlier stages found."""
        hostvars = task_vars["hostvars"]
        given = _Given(options, hostvars[self.host(task_vars)], role_options("rollout", "prepare"))
        names = [host["name"] for group in options["groups"] for host in group["hosts"]]
        findings = Findings(
            groups=options["groups"],
            locked=options["locked"].get("groups") or {},
            built=options["built"].get("groups") or {},
            info={name: _info(given, name, hostvars[name]) for name in names},
            landing=options["landing"],
            ahead=_ahead(options["ledger"].get("groups") or {}),
            unchecked=_unchecked(options["ledger"], [group["name"] for group in options["groups"]]),
        )
        for name, why in findings.unchecked.items():
            _display.warning(f"{name}: {unchecked(why)}")
        pace = {group["name"]: _pace(group["name"], given, hostvars[group["hosts"][0]["name"]]) for group in options["groups"]}
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
            "rollouts": beginnings(plan),
        }


def _ahead(ledger: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The hosts that run something newer than their group is to get, or that may."""
    hosts = {name: host for group in ledger.values() for name, host in (group.get("hosts") or {}).items()}
    return {name: host for name, host in hosts.items() if host["ahead"] is not False}


def _unchecked(ledger: Mapping[str, Any], groups: list[str]) -> dict[str, str]:
    """The groups whose ledger could not be read, and why. It was not to be if downgrades are allowed."""
    if not ledger or ledger.get("skipped"):
        return {}
    if "groups" not in ledger:
        return dict.fromkeys(groups, str(ledger.get("msg") or "no reason was given"))
    found = {name: ledger["groups"].get(name) or {} for name in groups}
    return {name: str(group.get("msg")) for name, group in found.items() if group.get("failed")}


@dataclass(frozen=True, slots=True)
class _Given:
    """The task's options, the variables of the host that it runs on, and the role's own options."""

    options: Mapping[str, Any]
    here: Mapping[str, Any]
    role: Mapping[str, Mapping[str, Any]]

    def value(self, option: str, variables: Mapping[str, Any]) -> Any:
        """An option's value for a host: its own variable before the task's option, if that is not the other host's alone."""
        name = f"flotilla_{option}"
        own = plain(variables.get(name))
        if own is not None:
            return own
        return self.options[option] if self.here.get(name) is None else self.role[name]["default"]


def _info(given: _Given, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the host runs, and whether a reboot that waits there is part of the rollout."""
    if away := given.options["absent"].get(name):
        return {"reachable": False, "msg": away}
    info: dict[str, Any] = plain(variables.get("flotilla_info") or {})
    waits = bool(info.get("reboot_needed")) and info.get("running") == info.get("profile")
    wanted = given.options["goal"] == "switch" and given.value("reboot", variables) == "if_needed"
    return {**info, "reboot_wanted": waits and wanted} if info else info


def _pace(group: str, given: _Given, variables: Mapping[str, Any]) -> Pace:
    """How fast the group goes: its own variables, which its first host has."""
    serial = given.value("serial", variables)
    return Pace(
        serial=serial if isinstance(serial, list) else [serial],
        max_fail_percentage=float(given.value("max_fail_percentage", variables)),
        soak=seconds(group, "flotilla_soak", given.value("soak", variables)),
    )
