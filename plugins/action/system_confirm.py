# SPDX-License-Identifier: GPL-3.0-or-later
"""See plugins/modules/system_confirm.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.activation import Outcome, Report, confirm, look
from ..plugin_utils.health import HEALTH_CHECKS
from ..plugin_utils.target_action import TargetAction, store_path


class ActionModule(TargetAction):
    """Makes an activated system permanent."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "system": {"type": "str", "required": True},
        "guard": {"type": "str"},
        "health_checks": HEALTH_CHECKS,
        "ignored_units": {"type": "list", "elements": "str", "default": []},
        "settle": {"type": "int", "default": 0},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Check health, then confirm; under check mode, say whether there is something to confirm."""
        self.phase = "confirm"
        target = self.system_target(task_vars)
        system = store_path("system", options["system"])
        if self.check_mode:
            info = look(target, system)
            right = info.guard is None and info.profile == system and info.boot_default in (None, system)
            return Report(Outcome.UNCHANGED if right else Outcome.CONFIRMED, system, changed=not right).result()
        report = confirm(
            target,
            system,
            self.clock,
            guard=options["guard"] or "",
            ignored=options["ignored_units"],
            settle=max(0, options["settle"]),
            health=self.health(target, options["health_checks"]),
        )
        return self.finished(report, task_vars)
