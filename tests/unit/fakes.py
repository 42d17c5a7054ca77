# SPDX-License-Identifier: GPL-3.0-or-later
"""A runner that starts nothing: it knows which commands have to come, and what each of them leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.flotilla.nixos.plugins.module_utils.runner import QUICK, RunResult


@dataclass(frozen=True, slots=True)
class Step:
    """A command that has to come, whole, and what it leaves. stdin, env: compared if given; raises: in place of a result."""

    argv: Sequence[str]
    stdout: str = ""
    stderr: str = ""
    status: int = 0
    stdin: str | None = None
    env: Mapping[str, str] | None = None
    raises: Exception | None = None


class FakeRunner:
    """Gives the answers of its steps, in their order; any other command fails the test.

    A step may be a Step, or the argv alone (nothing printed), or argv and stdout. `calls` has the argv of what was run.
    """

    def __init__(self, *steps: Step | Sequence[str] | tuple[Sequence[str], str], name: str = "builder") -> None:
        self.name = name
        self.calls: list[list[str]] = []
        self._steps = [_step(step) for step in steps]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = QUICK,  # noqa: ARG002 - the interface
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,  # noqa: ARG002
        on_line: Callable[[str], None] | None = None,
    ) -> RunResult:
        """The next step's answer, if this is its command."""
        self.calls.append(list(argv))
        assert self._steps, f"no command was to come, but: {list(argv)}"
        step = self._steps.pop(0)
        assert list(argv) == list(step.argv)
        assert step.stdin in (None, stdin), f"stdin was {stdin!r}"
        assert step.env is None or {**(env or {}), **step.env} == env, f"the environment was {env!r}"
        if step.raises:
            raise step.raises
        for line in step.stderr.splitlines() if on_line else ():
            assert on_line
            on_line(line)
        return RunResult(tuple(argv), step.status, step.stdout, step.stderr, 0.0)

    def done(self) -> None:
        """Fail if a command has not come."""
        assert not self._steps, f"these commands did not come: {[list(step.argv) for step in self._steps]}"


def _step(step: Step | Sequence[str] | tuple[Sequence[str], str]) -> Step:
    if isinstance(step, Step):
        return step
    if len(step) == 2 and not isinstance(step[0], str) and isinstance(step[1], str):
        return Step(step[0], step[1])
    return Step([str(word) for word in step])
