# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: from Ansible's values to plain ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """The same value without Ansible's tagged subclasses (ansible-core ≥ 2.19), which YAML writers and `is` checks refuse."""
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
