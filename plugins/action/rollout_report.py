# SPDX-License-Identifier: GPL-3.0-or-later
"""The truth at the end of a rollout; documentation in plugins/modules/rollout_report.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible.constants import config

from ..module_utils.conclusion import Landing, conclude_report
from ..module_utils.gate import Plan
from ..module_utils.report import outcome_lines
from ..module_utils.rollout_record import records
from ..module_utils.run_result import result_of
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.result_file import write_result
from ..plugin_utils.values import plain

#: Shows the same after the recap, and how long each host took.
_CALLBACK = "flotilla.nixos.rollout"

_ARGUMENTS: dict[str, dict[str, Any]] = {
    "plan": {"type": "dict", "required": True},
    "verdict": {"type": "dict", "required": True},
    "accepted": {"type": "dict", "default": {}},
    "discarded": {"type": "dict", "default": {}},
    "rollout": {"type": "dict"},
    "result_file": {"type": "path"},
}


class ActionModule(FlotillaAction):
    """Runs once after the last batch, on the controller."""

    ARGUMENT_SPEC = _ARGUMENTS

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Show what became of every host and group, and say which hosts must be reported as failed."""
        plan = Plan.from_dict(options["plan"])
        landing = Landing(options["accepted"], options["discarded"], check=self.check_mode)
        report = conclude_report(plan, options["verdict"], landing)
        lines = outcome_lines(plan, report)
        if _CALLBACK not in config.get_config_value("CALLBACKS_ENABLED"):
            for line in lines:
                self.progress(line)
        found = {
            "conclusion": plain(asdict(report)),
            "hosts": {name: {"outcome": str(o.outcome), "reason": o.reason} for name, o in report.outcomes.items()},
            "groups": {result.group: report.landed.get(result.group, "") for result in report.results},
            "bad": report.bad,
            "lines": lines,
            "rollouts": records(plan, report, options["accepted"]),
        }
        if options["result_file"]:
            status = "failed" if report.bad else "ok"
            write_result(
                options["result_file"], status, options["rollout"], **result_of(plan, report), check_mode=self.check_mode
            )
        return found
