# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: one lock's pins put into another, as graphs: what is below an input comes with it.

What nix knows of follows (2.26 to 2.34): an edge that leads out of an input's own subtree was put there by the flake that the
lock belongs to; one that stays inside may also come from the input's flake, and moves with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BadInput
from .lockfile import InputPath, Lock, RawEntry, lock_of_entries, raw_entries

#: What nix writes; versions 5 and 6 are brought to it.
_VERSION = 7

#: Types of flake references whose locked form has a revision.
_REVISIONS = ("git", "github", "gitlab", "sourcehut", "hg")

#: Input paths of the target, each with the source's that it is to be pinned like.
Pairs = Mapping[InputPath, InputPath]


@dataclass(frozen=True, slots=True)
class Graft:
    """The target's lock with the source's pins. rewired: inputs below them that follow others in the target alone."""

    lock: Lock
    rewired: tuple[str, ...]


def written(path: InputPath) -> str:
    """An input path as users write it."""
    return "/".join(path)


def graft(target: Lock, source: Lock, pairs: Pairs, names: tuple[str, str]) -> Graft:
    """Replace each target input of the pairs, with all below it, by the source's. names: of target and source, for messages.

    What an input below one of these follows outside of it is the target's own affair, and stays. BadInput where the two locks
    do not fit together: where only one of them gives an input a pin of its own.
    """
    scion = _Scion(_modern(target), _modern(source), pairs, names)
    entries = {path: entry for path, entry in scion.target.items() if not any(_below(path, top) for top in pairs)}
    rewired: list[str] = []
    for top in sorted(pairs, key=lambda path: (len(path), path)):
        entries |= scion.subtree(top, rewired)
    _check_follows(entries, names)
    return Graft(lock_of_entries(entries, _VERSION), tuple(sorted(rewired)))


def unlocked(lock: Lock) -> tuple[str, ...]:
    """Inputs without a revision, such as local trees with uncommitted changes: nix refuses to start from a lock with such."""
    nodes = ((path, entry.get("locked") or {}) for path, entry in raw_entries(lock).items() if isinstance(entry, dict))
    return tuple(sorted(written(path) for path, ref in nodes if ref.get("type") in _REVISIONS and not ref.get("rev")))


def _modern(lock: Lock) -> dict[InputPath, RawEntry]:
    """The lock's entries as version 7 has them: version 5 has narHash and lastModified in `info`."""
    return {path: _modern_node(entry) if isinstance(entry, dict) else entry for path, entry in raw_entries(lock).items()}


def _modern_node(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("info"), dict):
        return node
    rest = {key: value for key, value in node.items() if key != "info"}
    return {**rest, "locked": {**node["info"], **node.get("locked", {})}}


def _below(path: InputPath, top: InputPath) -> bool:
    return path[: len(top)] == top


@dataclass(frozen=True, slots=True)
class _Scion:
    """What is moved from one lock's entries into another's."""

    target: Mapping[InputPath, RawEntry]
    source: Mapping[InputPath, RawEntry]
    pairs: Pairs
    names: tuple[str, str]

    def subtree(self, top: InputPath, rewired: list[str]) -> dict[InputPath, RawEntry]:
        """The entries at and below one target input; those that the target wires otherwise are added to `rewired`."""
        origin, found = self.pairs[top], dict[InputPath, RawEntry]()
        dropped: set[InputPath] = set()
        for path, entry in sorted((p, e) for p, e in self.source.items() if _below(p, origin)):
            place = (*top, *path[len(origin) :])
            if any(_below(place, gone) for gone in dropped):
                continue
            own = self._followed_outside(self.target.get(place), top)
            if own is not None:
                found[place] = own
                dropped.add(place)
                if self._followed_outside(entry, origin) is None:
                    rewired.append(written(place))
            elif isinstance(entry, dict):
                found[place] = self._moved(entry, top, origin)
            else:
                found[place] = self._edge(entry, place, top, origin)
        return found

    @staticmethod
    def _followed_outside(entry: RawEntry | None, top: InputPath) -> list[str] | None:
        """What an entry follows, if that is not below `top`."""
        return entry if isinstance(entry, list) and not _below(tuple(entry), top) else None

    @staticmethod
    def _moved(node: dict[str, Any], top: InputPath, origin: InputPath) -> dict[str, Any]:
        """The node; one that names the flake it is relative to does so by its new path."""
        parent = node.get("parent")
        if not isinstance(parent, list) or not _below(tuple(parent), origin):
            return node
        return {**node, "parent": [*top, *parent[len(origin) :]]}

    def _edge(self, entry: list[str], place: InputPath, top: InputPath, origin: InputPath) -> list[str]:
        """What an input follows, in terms of the target."""
        followed = tuple(entry)
        if _below(followed, origin):
            return [*top, *followed[len(origin) :]]
        if place in self.target:
            target, source = self.names
            raise BadInput(
                target,
                f"input {written(place)} follows {written(followed) or 'the flake itself'} in {source}, and not in {target}",
                f"Let the flake.nix of both say the same of inputs.{'.inputs.'.join(place)}, lock, and commit.",
            )
        return list(self._translated(followed))

    def _translated(self, path: InputPath) -> InputPath:
        """A source's input path as the target has it: as paired, else by its name."""
        for top, origin in self.pairs.items():
            if _below(path, origin):
                return (*top, *path[len(origin) :])
        return path


def _check_follows(entries: Mapping[InputPath, RawEntry], names: tuple[str, str]) -> None:
    target, source = names
    for path, entry in entries.items():
        if isinstance(entry, list) and not _leads(entries, tuple(entry), frozenset()):
            raise BadInput(
                target,
                f"input {written(path)} would follow {written(tuple(entry))}, which is not there with the pins of {source}",
                "Move it too, or let flake.nix have it follow another.",
            )


def _leads(entries: Mapping[InputPath, RawEntry], path: InputPath, seen: frozenset[InputPath]) -> bool:
    """Whether an input path leads to a node, through whatever its parts follow."""
    return _place(entries, path, seen) is not None


def _place(entries: Mapping[InputPath, RawEntry], path: InputPath, seen: frozenset[InputPath]) -> InputPath | None:
    if path in seen:
        return None
    at: InputPath = ()
    for name in path:
        entry = entries.get((*at, name))
        if entry is None:
            return None
        found = (*at, name) if isinstance(entry, dict) else _place(entries, tuple(entry), seen | {path})
        if found is None:
            return None
        at = found
    return at
