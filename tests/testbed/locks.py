# SPDX-License-Identifier: GPL-3.0-or-later
"""File locks that name their holder."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .errors import TestbedError
from .places import STATE

#: Who has the whole testbed's lock builds the base or hands out subnets.
EVERYTHING = ".everything"


@contextlib.contextmanager
def locked(name: str, *, root: Path = STATE, timeout: float = 600.0) -> Iterator[None]:
    """Hold the lock of that name; wait for it at most timeout seconds."""
    path = root / ".locks" / name
    deadline = time.monotonic() + timeout
    while (file := _taken(path)) is None:
        if time.monotonic() > deadline:
            holder = path.read_text().strip() if path.exists() else "unknown"
            raise TestbedError(name, f"process {holder} still holds this lock", f"Look at it: ps {holder}")
        time.sleep(0.1)
    with _released(path, file):
        yield


@contextlib.contextmanager
def first_free(prefix: str, *, root: Path = STATE) -> Iterator[str]:
    """The first of PREFIX-1, PREFIX-2, … that no process holds, held meanwhile: who is killed leaves it to the next one."""
    for number in itertools.count(1):
        path = root / ".locks" / f"session.{prefix}-{number}"
        if file := _taken(path):
            with _released(path, file):
                yield f"{prefix}-{number}"
            return


def _taken(path: Path) -> TextIO | None:
    """The lock's file, locked; None if another process has it. A killed holder's lock is free: the kernel sees to that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file between our opening and our locking it.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            return file
    file.close()
    return None


@contextlib.contextmanager
def _released(path: Path, file: TextIO) -> Iterator[None]:
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
