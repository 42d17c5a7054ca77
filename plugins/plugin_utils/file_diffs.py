# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what modules that write files on the builder have in common: their diffs, and who acts."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterable

from ..module_utils.group_making import FileChange


def file_diffs(files: Iterable[FileChange]) -> list[dict[str, str]]:
    """The changes of files as Ansible shows them."""
    return [
        {
            "before": change.before or "",
            "after": change.after or "",
            "before_header": change.path if change.before is not None else f"{change.path} (new)",
            "after_header": change.path if change.after is not None else f"{change.path} (removed)",
        }
        for change in files
    ]


def owner() -> str:
    """Who holds locks on the builder in this run: host, process, time and user."""
    return f"{os.uname().nodename} {os.getpid()} {int(time.time())} {getpass.getuser()}"
