# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts: what is mounted where, and unmounting all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .commands import run


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    where: str
    kind: str


def parse(mountinfo: str) -> list[Mount]:
    """The mounts in a text of /proc/PID/mountinfo, in its order."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        found.append(Mount(_unescaped(left.split()[4]), right.split()[0]))
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mounts() -> list[Mount]:
    """What is mounted in this process's mount namespace."""
    return parse(Path("/proc/self/mountinfo").read_text())


def below(folder: Path, table: list[Mount]) -> list[str]:
    """Mount points at the folder and below, the last mounted first."""
    top = str(folder)
    return [m.where for m in reversed(table) if m.where == top or m.where.startswith(top + "/")]


def mount(kind: str, where: Path, **options: str | int) -> None:
    """Mount a file system of that kind, which is also its source."""
    where.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", kind, "-o", ",".join(f"{k}={v}" for k, v in options.items()), kind, where])


def bind(what: Path, where: Path) -> None:
    """Show a folder at another place too."""
    run(["mount", "--bind", what, where])


def unmount_below(folder: Path) -> None:
    """Unmount everything at the folder and below. Lazily: who still has a file open there keeps nothing of ours."""
    for where in below(folder, mounts()):
        run(["umount", "--lazy", where])
