# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: that an input, or a whole update group, is to stay where it is, why, and until when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from .errors import BadInput

#: What a hold is written as.
KEYS = ("input", "reason", "until")
_SHAPE = 'Write each as {input: nixpkgs, reason: "why", until: 2026-12-24}; without an input it is of the whole group.'
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Hold:
    """input: the input that is held, or the path to a nested one; None for the whole group. until: the last day, in UTC."""

    input: str | None
    reason: str
    until: date

    def over(self, now: float) -> bool:
        """Whether the day has passed. now: Unix seconds."""
        return now >= datetime.combine(self.until + timedelta(days=1), time(), UTC).timestamp()

    @property
    def what(self) -> str:
        """What is held, to be put into a sentence."""
        return self.input or "the whole group"


def parse_holds(subject: str, holds: object) -> tuple[Hold, ...]:
    """The holds in a variable's value (a list of mappings); BadInput that says what is wrong with which."""
    if holds is None or holds == "":
        return ()
    if isinstance(holds, (str, bytes)) or not isinstance(holds, Sequence):
        raise BadInput(subject, "flotilla_hold is not a list", _SHAPE)
    found = tuple(_hold(subject, entry) for entry in holds)
    names = [hold.what for hold in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(subject, f"flotilla_hold has {twice} twice", "Leave one of them.")
    return found


def _hold(subject: str, entry: Any) -> Hold:
    if not isinstance(entry, Mapping):
        raise BadInput(subject, f"flotilla_hold has {entry!r}, which is not a hold", _SHAPE)
    if unknown := sorted(str(key) for key in entry if key not in KEYS):
        raise BadInput(subject, f"a hold has no {', '.join(unknown)}", _SHAPE)
    name = entry.get("input")
    what = f"the hold of {name or 'the whole group'}"
    reason = str(entry.get("reason") or "").strip()
    if not reason:
        raise BadInput(subject, f"{what} has no reason", "Say in `reason` why, for whoever finds it in a year.")
    if entry.get("until") in (None, ""):
        raise BadInput(subject, f"{what} has no end", "Say in `until` how long it is meant to last, as in 2026-12-24.")
    return Hold(str(name) if name else None, " ".join(reason.split()), _day(subject, what, str(entry["until"])))


def _day(subject: str, what: str, text: str) -> date:
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise BadInput(subject, f"{what} ends at {text!r}, which is not a day", "Write it as in 2026-12-24.")


def as_options(holds: Sequence[Hold]) -> list[dict[str, str | None]]:
    """The holds as the option `holds` of an update group takes them."""
    return [{"input": hold.input, "reason": hold.reason, "until": hold.until.isoformat()} for hold in holds]
