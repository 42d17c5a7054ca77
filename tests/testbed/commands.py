# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place of the testbed that runs commands and waits for them."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import TestbedError


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished command left; seconds is wall time."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """True if the exit status is 0."""
        return self.status == 0


def search_path() -> str:
    """PATH with the system's sbin folders, which users' shells on Debian lack."""
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
    check: bool = True,
) -> Result:
    """Run argv to its end. env replaces the environment. Raises TestbedError at the time limit, and on failure if check."""
    words = tuple(str(word) for word in argv)
    started = time.monotonic()
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "PATH": search_path()} if env is None else env,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TestbedError(words[0], f"`{shlex.join(words)}` was still running after {timeout:.0f} s and was ended") from None
    except FileNotFoundError:
        raise TestbedError(words[0], "this command is not installed", "Run: tests/testbed/testbed install") from None
    result = Result(words, done.returncode, done.stdout, done.stderr, time.monotonic() - started)
    if check and not result.ok:
        tail = (result.stderr.strip() or result.stdout.strip())[-3000:]
        raise TestbedError(words[0], f"`{shlex.join(words)}` ended with {result.status}: {tail}")
    return result


def dying_with_us(argv: Sequence[str | Path]) -> list[str | Path]:
    """The same command in mount and pid namespaces of its own, all of which end when this process does, also by SIGKILL."""
    fence = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private"]
    return ["setpriv", "--pdeathsig", "KILL", *fence, *argv]
