# SPDX-License-Identifier: GPL-3.0-or-later
"""An Ansible callback for tests: every task's result as a line of JSON in the file that FLOTILLA_TESTBED_RESULTS names."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: flotilla_testbed_results
type: aggregate
short_description: Every task's result as a line of JSON
description: For the tests of flotilla.nixos. Writes to the file that FLOTILLA_TESTBED_RESULTS names.
"""


class CallbackModule(CallbackBase):
    """Writes TaskResult objects of testbed.playbooks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "flotilla_testbed_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.play = ""
        self.file = os.environ.get("FLOTILLA_TESTBED_RESULTS")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.play = play.get_name()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        self._write(result, "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write(result, "unreachable")

    def _write(self, result: Any, status: str) -> None:
        if not self.file:
            return
        task = result.task if hasattr(result, "task") else result._task
        host = result.host if hasattr(result, "host") else result._host
        values = result.result if hasattr(result, "result") else result._result
        line = {
            "play": self.play,
            "task": task.get_name(),
            "action": task.action,
            "host": host.get_name(),
            "status": status,
            "result": json.loads(self._dump_results(values, indent=None)),
        }
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
