# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what of a lock must not move now: what is held for the group, or for one that shares it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .errors import BadInput
from .follows import own_path, reached
from .holds import Hold
from .lockfile import Difference, InputPath, Lock, resolve, root_inputs
from .update_group import UpdateGroup

_FORCE = 'say why it may move all the same: -e flotilla_force_reason="…"'


@dataclass(frozen=True, slots=True)
class Holding:
    """The holds on a group's lock. sharers: other groups that have their pins in it. now: Unix seconds.

    force: why what is held may move if it is asked for. alone: the group itself was asked for, and is not one of several.
    """

    group: UpdateGroup
    sharers: tuple[UpdateGroup, ...] = ()
    now: float = 0
    force: str = ""
    alone: bool = False

    @property
    def whole(self) -> Hold | None:
        """What holds all of the group."""
        return next((hold for hold in self.group.holds if hold.input is None and not hold.over(self.now)), None)

    def _standing(self) -> Iterator[tuple[UpdateGroup, Hold]]:
        for group in (self.group, *self.sharers):
            yield from ((group, hold) for hold in group.holds if not hold.over(self.now))

    def kept(self, lock: Lock, asked: Collection[str] = ()) -> Kept:
        """What must not move in this lock, but for what was asked for by name and may be forced.

        BadInput for what was asked for and must not move.
        """
        names = {tuple(name.split("/")) for name in asked}
        found: dict[InputPath, str] = {}
        notes: list[str] = []
        opened: list[str] = []
        warnings = [*self._over(), *self._unknown(lock)]
        for group, hold in self._standing():
            paths = _paths(group, hold, lock)
            hit = sorted(name for name in names if any(_same_pins(lock, name, path) for path in paths))
            if hit and not self.force:
                named = ", ".join("/".join(name) for name in hit)
                raise BadInput(
                    self.group.name,
                    f"{named} must not move: {self._said(group, hold)}",
                    f"Take it out of flotilla_hold, or {_FORCE}.",
                )
            as_a_whole = self.force and self.alone and hold is self.whole
            if hit or as_a_whole:
                warnings.append(f"{self.group.name}: {self._said(group, hold)}. It moves all the same: {self.force}")
                opened.append(f"{self.force} (against: {self.group.name}: {self._said(group, hold)})")
                left = [path for path in paths if not any(_same_pins(lock, name, path) for name in hit)]
                paths = [] if as_a_whole else left
            if paths:
                notes.append(self._said(group, hold))
            found |= dict.fromkeys(paths, hold.what)
        warnings += [f"{self.group.name}: {note}" for note in notes]
        return Kept(frozenset(found), tuple(notes), tuple(warnings), tuple(opened))

    def require_open(self) -> None:
        """BadInput if the whole group is held, and it alone was asked for, unless that is forced."""
        if (hold := self.whole) and self.alone and not self.force:
            raise BadInput(
                self.group.name,
                f"nothing of it may move: {self._said(self.group, hold)}",
                f"End it in flotilla_hold, or {_FORCE}.",
            )

    def passed_over(self) -> tuple[str, ...]:
        """Warnings for something that goes through whatever is held."""
        standing = [
            f"{self.group.name}: {self._said(group, hold)}. It goes back all the same, because that was asked for."
            for group, hold in self._standing()
        ]
        return (*standing, *self._over())

    def _said(self, group: UpdateGroup, hold: Hold) -> str:
        whom = "" if group is self.group else f" for {group.name}"
        return f"{hold.what} is held{whom} until {hold.until}: {hold.reason}"

    def _over(self) -> list[str]:
        return [f"{self.group.name}: {'. '.join(over(hold))}" for hold in self.group.holds if hold.over(self.now)]

    def _unknown(self, lock: Lock) -> list[str]:
        gone = [hold.input for hold in self.group.holds if hold.input and resolve(lock, hold.input.split("/")) is None]
        has = ", ".join(root_inputs(lock)) or "none"
        return [
            f"{self.group.name}: flotilla_hold names the input {name}, which the lock has not. It has: {has}." for name in gone
        ]


@dataclass(frozen=True, slots=True)
class Kept:
    """paths: inputs that must not move, with all below them. notes: what is held, as clauses; warnings: whole sentences.

    opened: what is held and moves all the same, with the reason that was given for it.
    """

    paths: frozenset[InputPath] = frozenset()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()

    def holds(self, path: InputPath) -> bool:
        """Whether the input cannot be moved without moving one that must not."""
        return any(_touch(path, kept) for kept in self.paths)

    def free(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the inputs that may move."""
        return tuple(name for name in names if not self.holds(tuple(name.split("/"))))

    def moved(self, found: Difference) -> tuple[str, ...]:
        """Inputs that differ though they must not."""
        return tuple(sorted("/".join(path) for path in found.touched if any(path[: len(kept)] == kept for kept in self.paths)))


def over(hold: Hold) -> tuple[str, str]:
    """That a hold has ended, and what to do."""
    return f"the hold of {hold.what} ended with {hold.until}, and holds no more ({hold.reason})", "Take it out of flotilla_hold."


def _touch(one: InputPath, other: InputPath) -> bool:
    """Whether one is the other, or below it."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _same_pins(lock: Lock, one: InputPath, other: InputPath) -> bool:
    """Whether one cannot move without the other."""
    return _touch(own_path(lock, one) or one, own_path(lock, other) or other)


def _paths(group: UpdateGroup, hold: Hold, lock: Lock) -> Sequence[InputPath]:
    """The inputs whose pins a hold is about."""
    if hold.input:
        path = own_path(lock, tuple(hold.input.split("/")))
        return [path] if path and resolve(lock, path) else []
    if group.inputs is None:
        return [(name,) for name in root_inputs(lock)]
    return list(reached(lock, group.inputs))
