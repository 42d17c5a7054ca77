# SPDX-License-Identifier: GPL-3.0-or-later
"""Who of a fleet is there, before a rollout; documentation in plugins/modules/rollout_sweep.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.errors import FlotillaError
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.machines import sweep_hosts
from ..plugin_utils.sweep import Presence

_WORKERS = 128


class ActionModule(FlotillaAction):
    """Runs once, on the controller, for all hosts of the play."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "timeout": {"type": "float"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Knock at every host's ssh port. What it cannot tell is ssh's to find out, so that it never fails."""
        hosts = options["hosts"]
        if self._task.port is not None:
            # A port that the play gives is not among the hosts' variables.
            return {"absent": {}, "impostors": {}, "unknown": hosts}
        try:
            found = sweep_hosts(self, hosts, task_vars, options["timeout"], _WORKERS)
        except FlotillaError as error:
            return {"absent": {}, "impostors": {}, "unknown": hosts, "msg": str(error)}
        impostors = {host: str(r.message) for host, r in found.items() if r.presence is Presence.KEY_CHANGED}
        for message in impostors.values():
            self.progress(message)
        return {
            "absent": {host: str(result.message) for host, result in found.items() if result.surely_away},
            "impostors": impostors,
            "unknown": [
                host for host, r in found.items() if r.presence in (Presence.UNKNOWN, Presence.ABSENT) and not r.surely_away
            ],
        }
