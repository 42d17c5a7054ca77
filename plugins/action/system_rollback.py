# SPDX-License-Identifier: GPL-3.0-or-later
"""See plugins/modules/system_rollback.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ..module_utils.activation import (
    Destination,
    Goal,
    Outcome,
    Report,
    Request,
    activate,
    confirm,
    destination,
    look,
    plan,
    take_back,
)
from ..module_utils.errors import BadInput, FlotillaError
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
        waiting = info.guard if info.guard and info.guard["kind"] == "activate" else None
        wanted = self._destination(target, options["to"], waiting)
        if self.check_mode:
            return self.finished(_explained(target, _prediction(target, waiting, wanted, info.running), wanted), task_vars)
        if waiting and (wanted is None or wanted.system == waiting["old"]):
            report = take_back(target, options["reason"], self.clock)
            if report is not None:
                return self.finished(report, task_vars)
        if wanted is None:
            return self.finished(Report(Outcome.UNCHANGED, info.running, previous=info.running), task_vars)
        if waiting:
            take_back(target, options["reason"], self.clock)
        return self.finished(_explained(target, self._bring(target, wanted, options, task_vars), wanted), task_vars)

    def _destination(self, target: SystemTarget, to: str | None, waiting: Mapping[str, Any] | None) -> Destination | None:
        """None: only what waits is to be ended, and that is what was before, too."""
        if not to or (to == "previous" and waiting):
            return None
        if to == "previous" or to.isdigit():
            return destination(target, to)
        if not to.startswith("/"):
            raise BadInput(f"to {to!r}", "this is no system", "Give a store path, `previous`, or a generation's number.")
        return Destination(store_path("to", to))

    def _bring(
        self, target: SystemTarget, wanted: Destination, options: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> Report:
        request = Request(
            system=wanted.system,
            generation=wanted.generation,
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
        done = confirm(target, wanted.system, self.clock, guard=report.guard, ignored=request.ignored_units)
        outcome = Outcome.ROLLED_BACK if done.outcome is Outcome.CONFIRMED else done.outcome
        return replace(done, outcome=outcome, previous=report.previous, units=report.units, changed=True)


def _prediction(target: SystemTarget, waiting: Mapping[str, Any] | None, wanted: Destination | None, running: str) -> Report:
    if waiting:
        system = wanted.system if wanted else str(waiting["old"])
        return Report(Outcome.WOULD_ACTIVATE, system, changed=True, previous=running)
    if wanted is None:
        return Report(Outcome.UNCHANGED, running, previous=running)
    return plan(target, Request(wanted.system, Goal.SWITCH, owner=""))


def _explained(target: SystemTarget, report: Report, wanted: Destination | None) -> Report:
    """With the reason, where nothing is done because the host went back before."""
    if report.outcome is not Outcome.UNCHANGED or wanted is None or not wanted.left:
        return report
    what = f"it went back from {wanted.left} to {wanted.system} already, and nothing was activated since"
    sentence = str(FlotillaError(target.name, what, "To go further back, name a generation or a system with `to`."))
    return replace(report, msg=sentence, warnings=(*report.warnings, sentence))
