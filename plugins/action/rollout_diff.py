# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout changes on each host; documentation in plugins/modules/rollout_diff.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.gate import Plan
from ..module_utils.system_diff import compare, together
from ..plugin_utils.action_base import FlotillaAction


class ActionModule(FlotillaAction):
    """Runs once, on the builder, after the plan."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {"plan": {"type": "dict", "required": True}}

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """Compare each host's system with the one that it would get."""
        plan = Plan.from_dict(options["plan"])
        runner = self.builder()
        found: dict[str, list[str]] = {}
        for host in plan.hosts.values():
            if host.outcome is None and host.previous and host.system:
                found[host.name] = compare(runner, host.name, host.previous, host.system)
        if self.diff_mode:
            # Ansible shows a task's `diff` only where the task has changed something.
            for line in together(found):
                self.progress(line)
        return {"hosts": found}
