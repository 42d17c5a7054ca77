# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of a rollout, and its summary at the very end."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.callback import CallbackBase

from ..module_utils.conclusion import Conclusion
from ..module_utils.gate import Plan
from ..module_utils.report import outcome_lines
from ..plugin_utils.host_results import REGISTERED, broken_off
from ..plugin_utils.values import plain

DOCUMENTATION = r"""
name: rollout
type: aggregate
short_description: Progress and summary of a rollout
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Says at the head of each batch how far a rollout is, and shows after Ansible's recap what became of every host, and how long
    it took. The task of M(flotilla.nixos.rollout_report) leaves the table to it then.
  - The summary comes even when Ansible breaks the run off, as it does when every host of a batch becomes unreachable in a task
    that is not part of the collection.
requirements:
  - Enable it by name, with C(callbacks_enabled = flotilla.nixos.rollout) in ansible.cfg or with the
    environment variable C(ANSIBLE_CALLBACKS_ENABLED).
"""

_ROLE = "flotilla.nixos."
#: The actions whose results tell what became of a host, by the field of StageResults.
_STAGES = {
    f"{_ROLE}closure_copy": "copied",
    f"{_ROLE}system_activate": "activated",
    f"{_ROLE}system_confirm": "confirmed",
    f"{_ROLE}system_reboot": "rebooted",
    f"{_ROLE}system_rollback": "rolled_back",
}


class CallbackModule(CallbackBase):
    """Listens to the role's tasks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "flotilla.nixos.rollout"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._plan: Plan | None = None
        self._report: Conclusion | None = None
        self._results: dict[str, dict[str, Any]] = {}
        self._held: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A host is busy from the first of its stages to the last."""
        if task.action in _STAGES:
            self._begun.setdefault(host.get_name(), time.monotonic())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Take note of the plan, of the gate, of the report, and of hosts."""
        action, values = result.task.action, result.result
        if action == f"{_ROLE}rollout_plan":
            self._summary()
            self._plan = Plan.from_dict(plain(values["plan"]))
        elif action == f"{_ROLE}rollout_gate" and "batch" in values:
            self._held |= plain(values["held"])
            self._progress(int(values["batch"]))
        elif action == f"{_ROLE}rollout_report" and self._plan:
            self._report = Conclusion.from_dict(plain(values["conclusion"]))
        else:
            self._note(result, "")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002 - Ansible's interface
        """A failed stage, or a failed task of the user's own."""
        self._note(result, "error")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host that Ansible drops; only tasks that are not ours can do that."""
        self._note(result, "error")

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002 - Ansible's interface
        """The end, however it came."""
        self._summary()

    def _note(self, result: Any, field: str) -> None:
        host = result.host.get_name()
        if self._plan is None or host not in self._plan.hosts:
            return
        for name in (_STAGES.get(result.task.action, ""), field):
            if name:
                self._results.setdefault(host, {})[name] = plain(result.result)
        if result.task.action in _STAGES:
            self._ended[host] = time.monotonic()

    def _progress(self, number: int) -> None:
        if self._plan is None:
            return
        batch = self._plan.batches[number - 1]
        going = [host for host in batch if host not in self._held]
        done = sum(len(earlier) for earlier in self._plan.batches[: number - 1])
        total = done + sum(len(later) for later in self._plan.batches[number - 1 :])
        text = ", ".join(going) or "all of it is held"
        self._display.display(f"batch {number} of {len(self._plan.batches)} ({done} of {total} hosts done): {text}")

    def _summary(self) -> None:
        """Show what became of the rollout so far, and begin anew."""
        if self._plan is None:
            return
        seconds = {host: self._ended.get(host, began) - began for host, began in self._begun.items()}
        end = self._report or self._broken_off(self._plan)
        lines = outcome_lines(self._plan, end, seconds)
        for line in lines:
            self._display.display(line)
        self._plan, self._report = None, None
        for memory in (self._results, self._held, self._begun, self._ended):
            memory.clear()

    def _broken_off(self, plan: Plan) -> Conclusion:
        """What can be known without the last play."""
        results = {host: {field: values.get(field, {}) for field in REGISTERED} for host, values in self._results.items()}
        return Conclusion(broken_off(plan, results, self._held), [], {}, {})
