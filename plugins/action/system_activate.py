# SPDX-License-Identifier: GPL-3.0-or-later
"""See plugins/modules/system_activate.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ..module_utils.activation import Goal, Outcome, Report, Request, activate, confirm, plan
from ..plugin_utils.controller_run import may_inherit
from ..plugin_utils.health import HEALTH_CHECKS
from ..plugin_utils.system_target import SystemTarget
from ..plugin_utils.target_action import TargetAction, store_path


class ActionModule(TargetAction):
    """Activates a system under the target's guard."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "system": {"type": "str", "required": True},
        "goal": {"type": "str", "default": "switch", "choices": [str(goal) for goal in Goal]},
        "activation_timeout": {"type": "int", "default": 600},
        "confirm_timeout": {"type": "int", "default": 300},
        "ignored_units": {"type": "list", "elements": "str", "default": []},
        "force": {"type": "bool", "default": False},
        "last_resort": {"type": "str", "default": "reboot", "choices": ["reboot", "stay"]},
        "on_inhibitor": {"type": "str", "default": "report", "choices": ["report", "boot"]},
        "confirm": {"type": "bool", "default": False},
        "health_checks": HEALTH_CHECKS,
        "settle": {"type": "int", "default": 0},
        "owner": {"type": "str"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Plan under check mode, else activate, and go on as the options say."""
        target = self.system_target(task_vars)
        owner = self.owner(options, task_vars)
        request = Request(
            system=store_path("system", options["system"]),
            goal=Goal(options["goal"]),
            owner=owner,
            inherits=lambda former: may_inherit(owner, former),
            activation_timeout=max(1, options["activation_timeout"]),
            confirm_timeout=max(1, options["confirm_timeout"]),
            ignored_units=tuple(options["ignored_units"]),
            force=options["force"],
            last_resort=options["last_resort"],
        )
        if self.check_mode or request.goal is Goal.DRY:
            self.phase = "plan"
            report = plan(target, request)
            # A dry run by name is an answer, not a prediction.
            return self.finished(report if self.check_mode else replace(report, changed=False), task_vars)
        return self.finished(self._activated(target, request, options), task_vars)

    def _activated(self, target: SystemTarget, request: Request, options: Mapping[str, Any]) -> Report:
        self.phase = "activate"
        report = activate(target, request, self.clock)
        if report.outcome is Outcome.INHIBITED and options["on_inhibitor"] == "boot":
            staged = activate(target, replace(request, goal=Goal.BOOT), self.clock)
            return replace(staged, inhibitors=report.inhibitors)
        if report.outcome is Outcome.ACTIVATED and options["confirm"]:
            self.phase = "confirm"
            checks = self.health(target, options["health_checks"])
            done = confirm(
                target,
                request.system,
                self.clock,
                guard=report.guard,
                ignored=request.ignored_units,
                settle=max(0, options["settle"]),
                health=checks,
            )
            return replace(
                done,
                changed=True,
                previous=report.previous,
                exit_code=report.exit_code,
                units=report.units,
                pending=report.pending,
                warnings=report.warnings,
            )
        return report
