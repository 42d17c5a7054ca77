# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the one interface through which commands are run, wherever they run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .errors import CommandFailed, masked

#: Time limit in seconds for commands that only look at something.
QUICK = 60.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished command left: its arguments, exit status, decoded output, and wall time in seconds."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def command(self) -> str:
        """The command as a person would type it, without passwords in URLs."""
        return masked(shlex.join(self.argv))


class Runner(Protocol):
    """Something that runs commands on one machine.

    `run` returns whatever the exit status is. It raises CommandTimeout at the time limit (seconds) after it has ended the
    command and its children, and ConnectionLost when the machine cannot be reached. `env` is added to the environment,
    `stdin` is text given to the command (none: /dev/null), `on_line` is given each line of stderr while the
    command runs, where the kind of runner can (the local one does).
    """

    @property
    def name(self) -> str:
        """The machine's name for messages: an inventory host, or localhost."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = QUICK,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> RunResult: ...


def checked(result: RunResult, subject: str, what: str, hint: str = "") -> RunResult:
    """Give the result back if its status is 0, else raise CommandFailed with the end of its stderr."""
    if result.status == 0:
        return result
    tail = result.stderr.strip()[-2000:] or f"exit status {result.status}"
    raise CommandFailed(subject, f"{what}: {tail}", hint, result=result)
