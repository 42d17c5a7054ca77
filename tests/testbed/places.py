# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the testbed keeps things on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import TestbedError

STATE = Path("/var/lib/flotilla-testbed")
CACHE = Path("/var/cache/flotilla-testbed")
#: The package's own folder, with the files that go into hosts.
HERE = Path(__file__).resolve().parent

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def checked_name(kind: str, name: str) -> str:
    """The name itself if it can be a folder and a host name."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise TestbedError(f"{kind} {name!r}", "this name cannot be used", "Use letters, digits, `-`, `_` and `.`.")
    return name
