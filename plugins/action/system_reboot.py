# SPDX-License-Identifier: GPL-3.0-or-later
"""See plugins/modules/system_reboot.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.reboot import RebootRequest, reboot
from ..plugin_utils.target_action import TargetAction, store_path


class ActionModule(TargetAction):
    """Restarts a target, and sees that it came back with the right system."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "system": {"type": "str"},
        "timeout": {"type": "int", "default": 600},
        "policy": {"type": "str", "default": "if_needed", "choices": ["if_needed", "always", "never"]},
        "ignored_units": {"type": "list", "elements": "str", "default": []},
        "owner": {"type": "str"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Restart if the policy and the host say so."""
        self.phase = "reboot"
        request = RebootRequest(
            system=store_path("system", options["system"]) if options["system"] else "",
            owner=self.owner(options, task_vars),
            policy=options["policy"],
            timeout=max(1, options["timeout"]),
            ignored_units=tuple(options["ignored_units"]),
            dry=self.check_mode,
        )
        return self.finished(reboot(self.system_target(task_vars), request, self.clock), task_vars)
