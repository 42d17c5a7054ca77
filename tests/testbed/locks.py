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

from .errors import TestbedError
from .places import STATE

#: Who has the whole testbed's lock builds the base or hands out subnets.
EVERYTHING = ".everything"


@contextlib.contextmanager
def locked(name: str, *, root: Path = STATE, timeout: float = 600.0) -> Iterator[None]:
    """Hold the lock of that name; wait for it at most timeout seconds."""
    path = root / ".locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        _acquire(file.fileno(), path, time.monotonic() + timeout)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def first_free(prefix: str, *, root: Path = STATE) -> Iterator[str]:
    """The first of PREFIX-1, PREFIX-2, … that no process holds, held meanwhile: who is killed leaves it to the next one."""
    for number in itertools.count(1):
        path = root / ".locks" / f"session.{prefix}-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{prefix}-{number}"
            return


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = path.read_text().strip() or "unknown"
                raise TestbedError(path.name, f"process {holder} still holds this lock", f"Look at it: ps {holder}") from None
            time.sleep(0.1)
