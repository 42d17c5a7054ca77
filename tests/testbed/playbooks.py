# SPDX-License-Identifier: GPL-3.0-or-later
"""Running Ansible against a fleet, as a user would, and reading every task's result."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .commands import Result, run
from .errors import TestbedError
from .fleet import Fleet
from .host import Host
from .places import HERE

#: The checkout that the testbed belongs to.
PROJECT = HERE.parent.parent


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task gave for one host; status: ok, failed, skipped or unreachable."""

    __test__ = False

    play: str
    task: str
    action: str
    host: str
    status: str
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Played:
    """A finished ansible-playbook: the command's own result, and each task's."""

    command: Result
    tasks: tuple[TaskResult, ...]

    @property
    def ok(self) -> bool:
        """True if its exit status is 0."""
        return self.command.ok

    @property
    def text(self) -> str:
        """Everything that it printed."""
        return self.command.stdout + self.command.stderr

    def of(self, action: str, host: str | None = None) -> list[TaskResult]:
        """Results of an action (`system_info` for any collection's), on one host or on all."""
        return [t for t in self.tasks if t.action.rpartition(".")[2] == action and host in (None, t.host)]


@dataclass(frozen=True, slots=True)
class Ansible:
    """One Ansible (a venv) as the controller of one fleet. env: added to the controller's environment."""

    fleet: Fleet
    venv: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def playbook(
        self,
        playbook: Path | str | Sequence[Mapping[str, Any]],
        *arguments: str,
        inventory: Path | str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 600.0,
        check: bool = True,
    ) -> Played:
        """Run a playbook: a file, a collection's (`flotilla.nixos.rollout`), or plays as values. check: raise if it fails."""
        with tempfile.TemporaryDirectory(prefix="ansible-") as scratch:
            book = playbook if isinstance(playbook, (str, Path)) else _written(Path(scratch, "playbook.yml"), playbook)
            results = Path(scratch, "results.jsonl")
            extra = {"FLOTILLA_TESTBED_RESULTS": str(results), **(env or {})}
            words = ["ansible-playbook", "-i", str(inventory), str(book), *arguments]
            done = self.run(words, cwd=cwd, env=extra, timeout=timeout)
            played = Played(done, _read(results))
        if check and not done.ok:
            raise TestbedError("ansible-playbook", f"it ended with {done.status}:\n{played.text[-6000:]}")
        return played

    def run(
        self, words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 600.0
    ) -> Result:
        """Run one of the venv's programs (ansible, ansible-inventory, …); whatever its status is, that is no error here."""
        with tempfile.TemporaryDirectory(prefix="a-", dir="/tmp") as home:
            environment = {**self.environment(Path(home)), **(env or {})}
            program = self.venv / "bin" / words[0]
            return run([program, *words[1:]], cwd=cwd, env=environment, timeout=timeout, check=False)

    def environment(self, home: Path) -> dict[str, str]:
        """The whole environment; home: a short-lived folder with a short path (ssh's control sockets lie there)."""
        ours = {name: value for name, value in self.fleet.env().items() if not name.startswith("GIT_")}
        return {
            **ours,
            "PATH": f"{self.venv}/bin:{ours['PATH']}",
            "PYTHONPATH": str(PROJECT / ".dev"),
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(home / "cp"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "flotilla_testbed_results",
            **self.env,
        }


def default_venv() -> Path:
    """The venv under test: FLOTILLA_TEST_VENV, or the checkout's .venv."""
    return PROJECT / os.environ.get("FLOTILLA_TEST_VENV", ".venv")


def inventory(hosts: Iterable[Host], groups: Mapping[str, Sequence[str]] | None = None, **variables: Any) -> str:
    """A static inventory as JSON (which is YAML): the hosts with their addresses, groups of them, variables for all."""
    everyone = {host.name: {"ansible_host": host.address, "ansible_user": "root"} for host in hosts}
    children = {group: {"hosts": dict.fromkeys(names)} for group, names in (groups or {}).items()}
    return json.dumps({"all": {"hosts": everyone, "children": children, "vars": variables}}, indent=2)


def _written(file: Path, plays: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text(json.dumps(list(plays)))
    return file


def _read(results: Path) -> tuple[TaskResult, ...]:
    if not results.exists():
        return ()
    return tuple(TaskResult(**json.loads(line)) for line in results.read_text().splitlines())
