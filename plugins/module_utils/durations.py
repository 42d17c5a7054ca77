# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: lengths of time as people write them."""

from __future__ import annotations

import re

from .errors import BadInput

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"([0-9]+)\s*([smhdw]?)\s*")


def seconds(subject: str, name: str, value: str | float | None) -> int:
    """The seconds in 90, `90`, `2d` or `1h 30m`; BadInput that names the variable for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return int(value)
    text = "0" if value is None else str(value).strip()
    parts = _PART.findall(text) if re.fullmatch(f"(?:{_PART.pattern})+", text) else []
    if not parts or (len(parts) > 1 and any(not unit for _number, unit in parts)):
        raise BadInput(
            subject, f"{name} is no length of time: {value!r}", "Give seconds, or a number with s, m, h, d or w, such as 2d."
        )
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def in_words(length: int) -> str:
    """A length of time in its two largest units, such as `1d 4h`, as `seconds` reads it."""
    left = max(1, length)
    parts: list[str] = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _UNITS[unit])
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0"))
