# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: inputs of a flake that another flake of the repository wraps, and that have stayed behind there.

A wrapper's lock has the wrapped flake's inputs as they were when it was locked first: what it does not let follow inputs of its
own does not move with the wrapped flake's lock (nix 2.26 to 2.34).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from . import git
from .errors import BadInput
from .flake_source import inside
from .lockfile import InputPath, Lock, Pin, parse_lock, pin_of, resolve
from .update_group import UpdateGroup


@dataclass(frozen=True, slots=True)
class Behind:
    """An input that stayed behind. wrapped: the path to the input that is a flake of the repository, lock: that flake's lock.

    path: the input itself. here, there: its pin in the wrapper's lock and in that one.
    """

    wrapped: InputPath
    lock: str
    path: InputPath
    here: Pin
    there: Pin

    @property
    def what(self) -> str:
        """The problem as a clause."""
        name = "/".join(self.path)
        return (
            f"the input {name} stays at {_pin(self.here)}, whatever {self.lock} says of it (now {_pin(self.there)}), "
            "for it follows no input of this flake"
        )

    @property
    def fix(self) -> str:
        """What to do, as sentences."""
        top, name = self.path[0], self.path[-1]
        below = "".join(f"inputs.{part}." for part in self.path[1:])
        return (
            f'Let it follow one (inputs.{name}.url = …, and inputs.{top}.{below}follows = "{name}"), or take over what that lock '
            f"has by an update of {'/'.join(self.wrapped)}."
        )


def behind(repo: git.Repository, group: UpdateGroup, commit: str, lock: Lock) -> list[Behind]:
    """The inputs of wrapped flakes that the group's lock pins otherwise than those flakes' own locks at this commit."""
    found: list[Behind] = []
    for path, directory in _wrapped(lock, group.flake):
        inner_path = inside(directory, "flake.lock")
        inner = _lock_of(repo, commit, inner_path, group.name) if inner_path != group.lock else None
        if inner is not None:
            found += [Behind(path, inner_path, *rest) for rest in _differing(lock, inner, path)]
    return found


def _wrapped(lock: Lock, flake: str) -> Iterator[tuple[InputPath, str]]:
    """The inputs that are flakes of the same repository, and their directories. flake: the directory of the lock's flake."""
    todo: list[tuple[InputPath, str, str]] = [((), lock.root, flake)]
    while todo:
        above, key, directory = todo.pop(0)
        for name, edge in lock.nodes[key].inputs.items():
            if not isinstance(edge, str):
                continue
            locked = lock.nodes[edge].locked
            there = posixpath.normpath(posixpath.join(directory, str(locked.get("path", ""))))
            relative = locked.get("type") == "path" and lock.nodes[edge].parent is not None
            if relative and there != ".." and not there.startswith(("/", "../")):
                yield (*above, name), there
                todo.append(((*above, name), edge, there))


def _lock_of(repo: git.Repository, commit: str, path: str, subject: str) -> Lock | None:
    entry = git.entries(repo, commit, [path]).get(path)
    try:
        return parse_lock(git.show(repo, entry.blob), subject, path) if entry else None
    except BadInput:
        # Whose lock it is hears of it.
        return None


def _differing(lock: Lock, inner: Lock, wrapped: InputPath) -> Iterator[tuple[InputPath, Pin, Pin]]:
    """Below a wrapped flake, the topmost inputs with pins of their own which its own lock pins otherwise."""
    key = resolve(lock, wrapped)
    todo = [(wrapped, key)] if key else []
    while todo:
        path, key = todo.pop(0)
        for name, edge in lock.nodes[key].inputs.items():
            own = resolve(inner, (*path[len(wrapped) :], name))
            if not isinstance(edge, str) or own is None:
                continue
            here, there = pin_of(lock.nodes[edge]), pin_of(inner.nodes[own])
            if (here.rev, here.nar_hash) != (there.rev, there.nar_hash):
                yield (*path, name), here, there
            else:
                todo.append(((*path, name), edge))


def _pin(pin: Pin) -> str:
    what = (pin.rev or pin.nar_hash or pin.url)[:7]
    return f"{pin.date} ({what})" if pin.date else what
