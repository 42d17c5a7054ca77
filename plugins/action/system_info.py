# SPDX-License-Identifier: GPL-3.0-or-later
"""See plugins/modules/system_info.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.activation import look
from ..module_utils.errors import CommandTimeout, ConnectionLost, NotAdmitted
from ..plugin_utils.target_action import TargetAction, store_path


class ActionModule(TargetAction):
    """Looks at a target."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "system": {"type": "str"},
        "allow_unreachable": {"type": "bool", "default": False},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """One round trip."""
        self.phase = "info"
        wanted = store_path("system", options["system"]) if options["system"] else None
        try:
            info = look(self.system_target(task_vars), wanted)
        except (ConnectionLost, CommandTimeout) as error:
            if isinstance(error, NotAdmitted) or not options["allow_unreachable"]:
                raise
            return {"reachable": False, "msg": str(error)}
        found = dataclasses.asdict(info)
        for internal in ("running_pending", "profile_pending", "wanted_pending"):
            del found[internal]
        pending = info.pending(wanted)
        return {
            "reachable": True,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in found.items()},
            "reboot_needed": bool(pending),
            "reboot_reasons": list(pending),
            "drift": info.drift(wanted),
        }
