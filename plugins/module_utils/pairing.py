# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: which inputs of one lock are to be pinned like which inputs of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import BadInput
from .graft import written
from .lockfile import InputPath, Lock, Node, followed, normal_reference, pin_of, resolve, root_inputs
from .locking import require_allowed
from .update_group import UpdateGroup, checked_input


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user wants of a source's pins.

    inputs: of the target, those to move; None: all that both have. mapping: source input → target input, where their names
    differ. by_name: False: none but those of the mapping.
    """

    inputs: tuple[str, ...] | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    by_name: bool = True


def paired(group: UpdateGroup, target: Lock, source: Lock, source_name: str, choice: Choice) -> dict[InputPath, InputPath]:
    """Target input → source input, for each that is to move; BadInput that names all which cannot."""
    pairing = _Pairing(group, target, source, source_name)
    mapped = pairing.mapped(choice.mapping)
    if choice.inputs is not None:
        if not choice.inputs:
            raise BadInput(group.name, "the list of inputs is empty, so none may move", "Name some, or leave it out.")
        for name in choice.inputs:
            require_allowed(group, checked_input(name))
        wanted = {path: mapped.get(path, path) for path in (tuple(name.split("/")) for name in choice.inputs)}
        strict = wanted
    else:
        wanted, strict = {**(pairing.common() if choice.by_name else {}), **mapped}, mapped
    for path, origin in strict.items():
        pairing.require_pins(path, origin)
    if not wanted:
        raise BadInput(
            group.name,
            f"it has no input in common with {source_name}, of which it could take the pin",
            f"{source_name} has {_listed(source)}. Say in mapping which of them stands for which of {_listed(target)}.",
        )
    pairing.require_same_sources(wanted)
    return {path: origin for path, origin in wanted.items() if not any(path[:n] in wanted for n in range(1, len(path)))}


def _listed(lock: Lock) -> str:
    return ", ".join(root_inputs(lock)) or "no inputs"


def _leader(lock: Lock, path: InputPath) -> InputPath | None:
    """What stands for an input elsewhere in the lock, because it or one above it follows that; None if it has its own node."""
    for length in range(1, len(path) + 1):
        if (leader := followed(lock, path[:length])) is not None:
            return (*leader, *path[length:])
    return None


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Two locks whose inputs are compared."""

    group: UpdateGroup
    target: Lock
    source: Lock
    source_name: str

    def mapped(self, mapping: Mapping[str, str]) -> dict[InputPath, InputPath]:
        """The mapping as target path → source path."""
        found: dict[InputPath, InputPath] = {}
        for origin, name in mapping.items():
            require_allowed(self.group, checked_input(name))
            path = tuple(name.split("/"))
            if path in found:
                both = f"{written(found[path])} and {origin}"
                raise BadInput(self.group.name, f"the mapping gives input {name} the pins of {both}", "Choose one.")
            found[path] = tuple(checked_input(origin).split("/"))
        return found

    def common(self) -> dict[InputPath, InputPath]:
        """The inputs that the group may move, have a pin of their own, and are in the source's lock by the same name."""
        names = root_inputs(self.target) if self.group.inputs is None else self.group.inputs
        paths = [tuple(name.split("/")) for name in names]
        return {path: path for path in paths if self._has_pin(self.target, path) and resolve(self.source, path) is not None}

    @staticmethod
    def _has_pin(lock: Lock, path: InputPath) -> bool:
        return resolve(lock, path) is not None and _leader(lock, path) is None

    def require_pins(self, path: InputPath, origin: InputPath) -> None:
        """Both are there, and the target's has a pin of its own."""
        self._require(self.target, self.group.name, path)
        if (leader := _leader(self.target, path)) is not None:
            raise BadInput(
                self.group.name,
                f"input {written(path)} follows another and has no pin of its own",
                f"Name {written(leader)} instead." if leader else "",
            )
        self._require(self.source, self.source_name, origin)

    def _require(self, lock: Lock, name: str, path: InputPath) -> None:
        if resolve(lock, path) is None:
            raise BadInput(
                self.group.name,
                f"{name} has no input {written(path)!r}",
                f"It has {_listed(lock)}. Where names differ, say in mapping which stands for which.",
            )

    def require_same_sources(self, pairs: Mapping[InputPath, InputPath]) -> None:
        """What flake.nix says of each is the same: nix would not take the pin otherwise, but ask upstream for the newest."""
        problems = [problem for path, origin in sorted(pairs.items()) if (problem := self._problem(path, origin))]
        if problems:
            raise BadInput(
                self.group.name,
                f"its flake.nix has other inputs than that of {self.source_name}: {'; '.join(problems)}",
                "Let both say the same, lock and commit. Or leave these as they are: name the others in inputs.",
            )

    def _problem(self, path: InputPath, origin: InputPath) -> str | None:
        name, source = written(path), self.source_name
        if (leader := _leader(self.source, origin)) is not None:
            return f"{name} follows {written(leader)} in {source}, and not here"
        here, there = _node(self.target, path), _node(self.source, origin)
        if here.flake != there.flake:
            return f"{name} is taken as a flake in {source if there.flake else self.group.name} alone"
        if normal_reference(here.original) != normal_reference(there.original):
            return f"{name} is {reference_text(here.original)}, and {reference_text(there.original)} in {source}"
        return None


def _node(lock: Lock, path: InputPath) -> Node:
    key = resolve(lock, path)
    if key is None:
        raise AssertionError(path)
    return lock.nodes[key]


def reference_text(original: Mapping[str, Any]) -> str:
    """A flake reference as flake.nix has it, to be read by people."""
    at = original.get("rev") or original.get("ref")
    return pin_of(Node({}, {}, original)).url + (f" {at}" if at else "")
