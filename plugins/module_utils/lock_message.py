# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a lock's changes in words: the commit's message, and the text of a diff."""

from __future__ import annotations

from collections.abc import Sequence

from .lockfile import Change, Lock, Pin, pin_of, pins, resolve

#: Where a subject gets too long for git log.
_WIDTH = 72
#: Hosts that a message names.
_NAMED = 5


def subject_line(group: str, changes: Sequence[Change], *, first: bool = False, why: str = "") -> str:
    """`sbcs: nixpkgs 2026-11-02 → 2026-11-20`; the flake's own inputs, unless only nested ones moved.

    why: what the pins are, if not the newest, to stand in brackets at the end.
    """
    end = f" ({why})" if why else ""
    if first:
        return f"{group}: lock the inputs{end}"
    own = [change for change in changes if "/" not in change.input] or list(changes)
    if not own:
        return f"{group}: lock what flake.nix says{end}"
    line = f"{group}: {', '.join(_briefly(own))}{end}"
    if len(line) <= _WIDTH:
        return line
    names, verb = list(dict.fromkeys(change.input for change in own)), "move" if why else "update"
    line = f"{group}: {verb} {', '.join(names)}{end}"
    return line if len(line) <= _WIDTH else f"{group}: {verb} {names[0]} and {len(names) - 1} more inputs{end}"


def whole_message(
    group: str,
    changes: Sequence[Change],
    *,
    first: bool = False,
    why: str = "",
    origin: str = "",
    locks: Sequence[str] = (),
) -> str:
    """The subject, for each input the old and new revision and a page that compares them, and where the pins are from.

    locks: paths of the lock files, where there are several.
    """
    paragraphs = ["\n".join(_paragraph(change)) for change in changes]
    files = ["\n".join(["Lock files:", *(f"  {path}" for path in locks)])] if locks else []
    parts = [subject_line(group, changes, first=first, why=why), *paragraphs, *files, *([origin] if origin else [])]
    return "\n\n".join(parts) + "\n"


def named(hosts: Sequence[str]) -> str:
    """Some hosts in a few words."""
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    return ", ".join(hosts[:_NAMED]) + more


def _briefly(changes: Sequence[Change]) -> list[str]:
    """A clause for each input: where hosts come from several pins, only where they go."""
    by_input: dict[str, list[Change]] = {}
    for change in changes:
        by_input.setdefault(change.input, []).append(change)
    return [_brief(some[0]) if len(some) == 1 else _ends(name, some) for name, some in by_input.items()]


def _ends(name: str, changes: Sequence[Change]) -> str:
    ends = [change.new for change in changes if change.new]
    dates = {end.date for end in ends}
    days_tell = None not in dates and len(dates) == len({end.rev for end in ends})
    same_day = any(change.old and change.old.date in dates for change in changes)
    texts = (end.date if days_tell and not same_day else _short(end) for end in ends)
    where = " or ".join(dict.fromkeys(text for text in texts if text))
    return f"{name} → {where}" if where else name


def _brief(change: Change) -> str:
    return f"{_move(change)} on {named(change.hosts)}" if change.hosts else _move(change)


def _move(change: Change) -> str:
    old, new = change.old, change.new
    if new is None:
        return f"{change.input} dropped"
    if old is None:
        return f"{change.input} added"
    before, after = old.date, new.date
    if before is None or after is None or before == after:
        before, after = _short(old), _short(new)
    return f"{change.input} {before} → {after}" if before and after and before != after else change.input


def _short(pin: Pin) -> str | None:
    return pin.rev[:7] if pin.rev else None


def _paragraph(change: Change) -> list[str]:
    lines = [f"{change.input} on {', '.join(change.hosts)}:" if change.hosts else f"{change.input}:"]
    if change.old:
        lines.append(f"  from {_full(change.old)}")
    if change.new:
        lines.append(f"  to   {_full(change.new)}")
    return [*lines, *([f"  {change.compare}"] if change.compare else [])]


def _full(pin: Pin) -> str:
    """A pin in one line: where it comes from, its ref, its revision (or hash), its day."""
    ref = f" {pin.ref}" if pin.ref else ""
    what = pin.rev or pin.nar_hash
    return f"{pin.url}{ref}{f' {what}' if what else ''}{f' ({pin.date})' if pin.date else ''}"


def pins_text(lock: Lock | None, changes: Sequence[Change]) -> str:
    """The pins of the flake's own inputs and of those nested ones that change, a line for each."""
    if lock is None:
        return ""
    found = pins(lock)
    for change in changes:
        key = resolve(lock, change.input.split("/"))
        if key is not None:
            found[change.input] = pin_of(lock.nodes[key])
    return "".join(f"{name}: {_full(pin)}\n" for name, pin in sorted(found.items()))
