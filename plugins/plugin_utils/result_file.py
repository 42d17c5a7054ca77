# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what became of a run, as a file of JSON on the controller for whatever started it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..module_utils.errors import BadInput
from ..module_utils.ledger import iso
from .values import plain

#: The shape of the file, for readers.
VERSION = 1


def write_result(path: str, status: str, rollout: Mapping[str, Any] | None = None, **more: Any) -> bool:
    """Write what became of a run; whether the file has changed. rollout: its id and start, as rollout_scope has them."""
    run = {"id": rollout["id"], "started": iso(int(rollout["started"]))} if rollout else {}
    ended = {} if status == "running" else {"ended": iso(int(time.time()))}
    values = {"version": VERSION, "status": status, **run, **ended, **more}
    return write_json("flotilla_result_file", Path(path), values)


@contextmanager
def refusals_in(path: str | None) -> Iterator[None]:
    """Write down that the run is refused, and why, if what is done within raises BadInput. path None: nowhere."""
    try:
        yield
    except BadInput as error:
        if path:
            write_result(path, "refused", reason=str(error))
        raise


def write_json(variable: str, file: Path, values: Any, *, check: bool = False) -> bool:
    """Write a file as a whole, so that who reads it never sees half of it; whether it changed, or would (check).

    Raises BadInput that names the variable if the file cannot be written.
    """
    text = json.dumps(plain(values), indent=2) + "\n"
    try:
        if file.exists() and file.read_text(encoding="utf-8") == text:
            return False
        if not check:
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as new:
                new.write(text)
            os.chmod(new.name, 0o644)
            os.replace(new.name, file)
    except OSError as error:
        raise BadInput(f"{variable} {str(file)!r}", f"it cannot be written: {error.strerror}", "Name another file.") from None
    return True
