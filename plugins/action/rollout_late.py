# SPDX-License-Identifier: GPL-3.0-or-later
"""Which late hosts catch up; documentation in plugins/modules/rollout_late.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.errors import BadInput
from ..module_utils.late import choose
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.values import plain


class ActionModule(FlotillaAction):
    """Runs once before a rollout, on the controller."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": {"type": "list", "elements": "dict", "required": True},
        "ledger": {"type": "dict", "required": True},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Say who is late, and choose those that can catch up."""
        late = choose(options["groups"], options["ledger"], set(plain(task_vars["groups"]["all"])))
        for line in late.lines:
            self.progress(line)
        if options["groups"] and len(late.unknown) == len(options["groups"]):
            raise BadInput("catchup", "; ".join(late.lines), "Mend the repositories, or what reads them, and run it again.")
        return {
            # A play cannot have an empty list of hosts; this pattern matches none.
            "chosen": late.hosts or ["all:!all"],
            "hosts": late.hosts,
            "gone": late.gone,
            "waiting": late.waiting,
            "unknown": late.unknown,
            "lines": late.lines,
        }
