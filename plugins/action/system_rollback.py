# SPDX-License-Identifier: GPL-3.0-or-later
"""See plugins/modules/system_rollback.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ..module_utils.activation import Goal, Outcome, Report, Request, activate, confirm, generation_path, look, plan, take_back
from ..module_utils.errors import BadInput
from ..plugin_utils.system_target import SystemTarget
from ..plugin_utils.target_action import TargetAction, store_path


class ActionModule(TargetAction):
    """Takes a target back to a recorded system."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "to": {"type": "str"},
        "reason": {"type": "str", "default": "it was asked for"},
        "activation_timeout": {"type": "int", "default": 600},
        "confirm_timeout": {"type": "int", "default": 300},
        "ignored_units": {"type": "list", "elements": "str", "default": []},
        "owner": {"type": "str"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """End a waiting activation; with `to`, bring the host to that system under a guard of its own."""
        self.phase = "rollback"
        target = self.system_target(task_vars)
        info = look(target)
        wanted = self._path(target, options["to"]) if options["to"] else ""
        waiting = info.guard if info.guard and info.guard["kind"] == "activate" else None
        if self.check_mode:
            return self.finished(_prediction(target, waiting, wanted, info.running), task_vars)
        if waiting and wanted in ("", waiting["old"]):
            report = take_back(target, options["reason"], self.clock)
            if report is not None:
                return self.finished(report, task_vars)
        if not wanted:
            return self.finished(Report(Outcome.UNCHANGED, info.running, previous=info.running), task_vars)
        if waiting:
            take_back(target, options["reason"], self.clock)
        return self.finished(self._bring(target, wanted, options, task_vars), task_vars)

    def _path(self, target: SystemTarget, to: str) -> str:
        if to == "previous" or to.isdigit():
            return generation_path(target, to)
        if not to.startswith("/"):
            raise BadInput(f"to {to!r}", "this is no system", "Give a store path, `previous`, or a generation's number.")
        return store_path("to", to)

    def _bring(self, target: SystemTarget, system: str, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Report:
        request = Request(
            system=system,
            goal=Goal.SWITCH,
            owner=self.owner(options, task_vars),
            activation_timeout=max(1, options["activation_timeout"]),
            confirm_timeout=max(1, options["confirm_timeout"]),
            ignored_units=tuple(options["ignored_units"]),
        )
        report = activate(target, request, self.clock)
        if report.outcome is Outcome.INHIBITED:
            staged = activate(target, replace(request, goal=Goal.BOOT), self.clock)
            return replace(staged, inhibitors=report.inhibitors)
        if report.outcome is not Outcome.ACTIVATED:
            return report
        self.phase = "confirm"
        done = confirm(target, system, self.clock, guard=report.guard, ignored=request.ignored_units)
        outcome = Outcome.ROLLED_BACK if done.outcome is Outcome.CONFIRMED else done.outcome
        return replace(done, outcome=outcome, previous=report.previous, units=report.units, changed=True)


def _prediction(target: SystemTarget, waiting: Mapping[str, Any] | None, wanted: str, running: str) -> Report:
    system = wanted or (str(waiting["old"]) if waiting else running)
    if waiting:
        return Report(Outcome.WOULD_ACTIVATE, system, changed=True, previous=running)
    if system == running and not wanted:
        return Report(Outcome.UNCHANGED, system, previous=running)
    return plan(target, Request(system, Goal.SWITCH, owner=""))
