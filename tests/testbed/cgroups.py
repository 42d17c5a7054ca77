# SPDX-License-Identifier: GPL-3.0-or-later
"""One cgroup per host: what belongs to it, and the stroke that ends all of it at once."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from .errors import TestbedError
from .mounts import Mount, mounts

_PARENT = "flotilla-testbed"


def root(table: list[Mount] | None = None) -> Path:
    """Where the unified hierarchy is mounted (on a hybrid machine: beside the old ones)."""
    for mount in mounts() if table is None else table:
        if mount.kind == "cgroup2":
            return Path(mount.where)
    raise TestbedError(
        "this machine",
        "no cgroup2 hierarchy is mounted",
        "Run: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
    )


def host_cgroup(fleet: str, host: str) -> Path:
    """The cgroup that holds everything that runs for that host."""
    return root() / _PARENT / fleet / host


def make(cgroup: Path) -> None:
    """Make the cgroup, and its parents where they are missing; another fleet that goes down may take these away meanwhile."""
    for _ in range(100):
        try:
            cgroup.mkdir(parents=True, exist_ok=True)
            return
        except FileNotFoundError:
            time.sleep(0.01)
    raise TestbedError(str(cgroup), "it cannot be made", "Is the hierarchy mounted for writing?")


def populated(cgroup: Path) -> bool:
    """True if any process is in it or below it."""
    try:
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


def end(cgroup: Path, timeout: float = 10.0) -> None:
    """Kill whatever is in the cgroup and below at one stroke, and remove it; nothing to do if it is not there."""
    deadline = time.monotonic() + timeout
    if populated(cgroup):
        (cgroup / "cgroup.kill").write_text("1")
    while populated(cgroup):
        if time.monotonic() > deadline:
            raise TestbedError(str(cgroup), "processes in it do not die", f"Look: cat {cgroup}/cgroup.procs")
        time.sleep(0.01)
    remove(cgroup)


def remove(cgroup: Path) -> None:
    """Remove an empty cgroup with those below it, and its parents up to the testbed's own when nothing else is in them."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        _rmdir(Path(folder))
    for parent in (cgroup.parent, cgroup.parent.parent):
        if parent.name == _PARENT or parent.parent.name == _PARENT:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _rmdir(folder: Path) -> None:
    # The kernel may hold on to a cgroup for a moment after its last process is gone.
    for _ in range(100):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
