# SPDX-License-Identifier: GPL-3.0-or-later
"""Names for cached things: a hash of all that went into them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(*parts: str | Path) -> str:
    """A short hash of texts and of files: a folder stands for the names, modes and contents of all files below it."""
    whole = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            whole.update(len(piece).to_bytes(8, "big") + piece)
    return whole.hexdigest()[:16]


def _pieces(part: str | Path) -> Iterable[bytes]:
    if isinstance(part, str):
        yield part.encode()
        return
    files = sorted(f for f in part.rglob("*") if f.is_file() and "__pycache__" not in f.parts) if part.is_dir() else [part]
    for file in files:
        executable = bool(file.stat().st_mode & 0o100)
        yield f"{file.relative_to(part)} {executable}".encode()
        yield file.read_bytes()
