# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: which run of Ansible acts, and whether another one is over for certain."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import socket
from pathlib import Path

_TOKEN = re.compile(r"(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-(?P<began>\d+)")
_OWNER = re.compile(rf"(?P<who>.*) \(run (?P<token>{_TOKEN.pattern})\)")


def this_run() -> str:
    """A token for the process of this ansible-playbook: what its workers do has the same one, other runs have others."""
    parent = multiprocessing.parent_process()
    pid = os.getpid() if parent is None or parent.pid is None else parent.pid
    return f"{_place()}-{pid}-{_began(pid) or 0}"


def is_over(token: str) -> bool:
    """Whether the run of a token has ended, as far as that can be known: False for one on another machine or in a container."""
    match = _TOKEN.fullmatch(token)
    if match is None or match["place"] != _place():
        return False
    pid, began = int(match["pid"]), int(match["began"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    now = _began(pid)
    # Its number may be another process's by now; without /proc that cannot be told.
    return began != 0 and now != began


def can_tell(token: str) -> bool:
    """Whether `is_over` knows of a run of this token that it goes on: it is on this machine, and not in another container."""
    match = _TOKEN.fullmatch(token)
    return match is not None and match["place"] == _place()


def owner_of(who: str) -> str:
    """Who acts, with the run: `anna@desk (run TOKEN)`."""
    return f"{who} (run {this_run()})"


def may_inherit(owner: str, former: str) -> bool:
    """Whether what a former owner left behind is the owner's to take up: the same person's, from a run that is over."""
    ours, theirs = _OWNER.fullmatch(owner), _OWNER.fullmatch(former)
    return ours is not None and theirs is not None and ours["who"] == theirs["who"] and is_over(theirs["token"])


def mark_of(host: str) -> str:
    """A name for this run's copies to a host."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{socket.gethostname()}_{host}_{this_run()}")


def is_left_behind(mark: str, ours: str) -> bool:
    """Whether a mark on the same host is that of a run of this controller which is over."""
    prefix, _underscore, token = mark.rpartition("_")
    return prefix == ours.rpartition("_")[0] and is_over(token)


def _place() -> str:
    """Where a process has its number: a machine, and a container on it."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        machine = ""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {machine} {space}".encode()).hexdigest()[:8]


def _began(pid: int) -> int | None:
    """When a process began, in ticks since the machine did (proc_pid_stat(5)); None if it has ended or that cannot be known."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])
