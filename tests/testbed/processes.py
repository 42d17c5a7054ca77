# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that the testbed has recorded: told from later ones of the same id by their start time."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its id and its start time in clock ticks since the machine's boot."""

    pid: int
    started: int


def start_time(stat: str) -> int:
    """The start time in a text of /proc/PID/stat; the command in it may hold spaces and parentheses."""
    return int(stat.rpartition(")")[2].split()[19])


def recorded(file: Path) -> Process | None:
    """The process that the file names (`PID START`), None if there is no such file or it is torn."""
    try:
        pid, started = (int(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return None
    return Process(pid, started)


def alive(process: Process, proc: Path = PROC) -> bool:
    """True if this very process, not a later one with its id, is there and no zombie."""
    try:
        stat = (proc / str(process.pid) / "stat").read_text()
    except OSError:
        return False
    return start_time(stat) == process.started and stat.rpartition(")")[2].split()[0] not in "ZX"


def kill(process: Process) -> None:
    """SIGKILL to the process, if it is still the one that was recorded."""
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def children(pid: int, proc: Path = PROC) -> list[int]:
    """Ids of the process's children."""
    try:
        return [int(word) for word in (proc / str(pid) / "task" / str(pid) / "children").read_text().split()]
    except OSError:
        return []


def namespace_init(nspawn: Process, proc: Path = PROC) -> int | None:
    """The id, here, of the container's PID 1, given its systemd-nspawn."""
    if not alive(nspawn, proc):
        return None
    for child in children(nspawn.pid, proc):
        with contextlib.suppress(OSError):
            status = (proc / str(child) / "status").read_text()
            ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
            if len(ids) > 1 and ids[-1] == "1":
                return child
    return None
