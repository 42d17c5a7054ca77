# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate between batches; documentation in plugins/modules/rollout_gate.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..module_utils.gate import Plan, batch_number, brought_back, conclude_all, final_outcomes, hold, judge
from ..module_utils.outcome import HostOutcome, Outcome, Stage
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.host_results import known_outcomes
from ..plugin_utils.values import plain

_ARGUMENTS: dict[str, dict[str, Any]] = {
    "plan": {"type": "dict", "required": True},
    "at": {"type": "str", "choices": ["batch", "end"], "default": "batch"},
    "stages": {"type": "list", "elements": "str", "default": [str(stage) for stage in Stage]},
    "land": {"type": "bool", "default": True},
    "rollback_confirmed": {"type": "bool", "default": False},
    "brought_back": {"type": "list", "elements": "dict", "default": []},
}


class ActionModule(FlotillaAction):
    """Runs once at the head of each batch and once after the last, on the controller."""

    ARGUMENT_SPEC = _ARGUMENTS

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Judge every group by what its hosts' tasks registered in the batches before."""
        plan = Plan.from_dict(options["plan"])
        known = known_outcomes(plan, task_vars["hostvars"], check=self.check_mode)
        if options["at"] == "batch":
            return self._batch(plan, known, plain(task_vars["ansible_play_batch"]))
        outcomes = final_outcomes(plan, known, ran=Stage.COPY in options["stages"])
        land = options["land"] and Stage.FINISH in options["stages"]
        after = brought_back(outcomes, options["brought_back"])
        back = [name for name, outcome in after.items() if outcome.outcome is Outcome.ROLLED_BACK]
        results = conclude_all(plan, outcomes, land=land, back=back).values()
        roll_back = [host for result in results for host in (*result.mixed, *result.unsure)]
        return {
            "outcomes": {name: plain(asdict(outcome)) for name, outcome in (outcomes | after).items()},
            "results": [plain(asdict(result)) for result in results],
            "accept": [result.group for result in results if result.accept],
            "discard": [result.group for result in results if result.discard],
            "roll_back": roll_back if options["rollback_confirmed"] else [],
        }

    def _batch(self, plan: Plan, known: Mapping[str, HostOutcome], batch: list[str]) -> dict[str, Any]:
        number = batch_number(plan, batch)
        verdicts = {name: judge(plan, name, known, number) for name in plan.groups}
        held = hold(plan, plan.batches[number], verdicts)
        for group in sorted({plan.hosts[host].group for host in held}):
            names = ", ".join(host for host in held if plan.hosts[host].group == group)
            self.progress(f"{group}: batch {number + 1} held ({names}): {verdicts[group].reason}")
        going = [host for host in batch if host not in held]
        return {
            "batch": number + 1,
            "held": held,
            "going": going,
            "halted": {n: v.reason for n, v in verdicts.items() if v.halted},
        }
