# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what the locks of one group's hosts have in common, where each host has one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .lock_message import named, pins_text
from .lockfile import Change, Difference, Lock, difference
from .update_group import UpdateGroup


@dataclass(frozen=True, slots=True)
class Relocked:
    """One lock of a group, before and after. group: one of UpdateGroup.parts. text: what the file is to hold."""

    group: UpdateGroup
    old: Lock | None
    new: Lock
    text: str
    found: Difference

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that have this lock."""
        return tuple(member.name for member in self.group.members)


def relocked(group: UpdateGroup, old: Lock | None, new: Lock, text: str) -> Relocked:
    """With what differs."""
    return Relocked(group, old, new, text, difference(old, new))


def all_changes(locks: Sequence[Relocked]) -> tuple[Change, ...]:
    """The changes of all these locks, each once, with its hosts if it is not the same for all."""
    if len(locks) == 1:
        return locks[0].found.changes
    hosts: dict[Change, list[str]] = {}
    for lock in locks:
        for change in lock.found.changes:
            hosts.setdefault(change, []).extend(lock.hosts)
    everyone = sum(len(lock.hosts) for lock in locks)
    found = [change if len(names) == everyone else replace(change, hosts=tuple(names)) for change, names in hosts.items()]
    return tuple(sorted(found, key=lambda change: (change.input.count("/"), change.input)))


def pins_before_and_after(locks: Sequence[Relocked]) -> tuple[str, str]:
    """The pins as text, as lock_message.pins_text gives them; those of hosts that have others, each with their names."""
    alike: dict[tuple[str, str], list[str]] = {}
    for lock in locks:
        texts = (pins_text(lock.old, lock.found.changes), pins_text(lock.new, lock.found.changes))
        alike.setdefault(texts, []).extend(lock.hosts)
    if len(alike) == 1:
        return next(iter(alike))
    before = "".join(_labelled(named(hosts), text) for (text, _after), hosts in alike.items())
    after = "".join(_labelled(named(hosts), text) for (_before, text), hosts in alike.items())
    return before, after


def _labelled(label: str, text: str) -> str:
    return "".join(f"{label}: {line}\n" for line in text.splitlines())
