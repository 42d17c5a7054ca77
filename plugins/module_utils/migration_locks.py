# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: locks of a flake's inputs for another flake.nix with the same inputs, some of them, or more."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .errors import BadInput
from .flake_facts import relative_path
from .lockfile import InputPath, Lock, RawEntry, difference, lock_of_entries, parse_lock, raw_entries, root_inputs


def moved_reference(path: str, old: str, new: str) -> str:
    """A relative path of a flake in directory `old`, as the flake in directory `new` has it."""
    target = posixpath.normpath(posixpath.join(old, path))
    found = posixpath.relpath(target, new)
    return found if found.startswith(".") else f"./{found}"


def moved_inputs(inputs: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """Declared inputs of a flake as a flake.nix in another directory has to declare them."""
    return {name: _moved_input(declared, old, new) for name, declared in inputs.items()}


def _moved_input(declared: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    path = relative_path(declared)
    if path is None or old == new:
        return dict(declared)
    rest = {key: value for key, value in declared.items() if key not in ("url", "type", "path")}
    return {"url": f"path:{moved_reference(path, old, new)}", **rest}


def moved_lock(lock: Lock, old: str, new: str) -> Lock:
    """The lock of a flake for a flake.nix in another directory, to which inputs by relative paths are elsewhere."""
    raw = json.loads(json.dumps(lock.raw))
    changed = False
    for node in raw["nodes"].values():
        if node.get("parent") == [] and old != new:
            path = moved_reference(str(node["locked"]["path"]), old, new)
            node["locked"] = {**node["locked"], "path": path}
            node["original"] = {**node["original"], "path": path}
            changed = True
    return parse_lock(json.dumps(raw), "lock", "in memory") if changed else lock


def with_followed(inputs: Mapping[str, Any], wanted: Collection[str]) -> tuple[str, ...]:
    """The wanted inputs, and those that they follow, in the order of flake.nix."""
    keep = set(wanted) & set(inputs)
    while more := {name for one in keep for name in _follows(inputs[one])} & set(inputs) - keep:
        keep |= more
    return tuple(name for name in inputs if name in keep)


def _follows(declared: Mapping[str, Any]) -> Iterable[str]:
    if isinstance(declared.get("follows"), str):
        yield declared["follows"].partition("/")[0]
    for inner in (declared.get("inputs") or {}).values():
        if isinstance(inner, dict):
            yield from _follows(inner)


def some_inputs(lock: Lock, names: Collection[str]) -> Lock:
    """The lock with these inputs of the flake alone."""
    if set(names) >= set(root_inputs(lock)):
        return lock
    return lock_of_entries({path: entry for path, entry in raw_entries(lock).items() if path[0] in names}, 7)


def united(locks: Iterable[Lock]) -> Lock:
    """A lock with the inputs of all of these; of inputs that several have, it takes the first one's pins."""
    entries: dict[InputPath, RawEntry] = {}
    for lock in locks:
        there = {path[0] for path in entries}
        entries |= {path: entry for path, entry in raw_entries(lock).items() if path[0] not in there}
    return lock_of_entries(entries, 7)


def same_pins(subject: str, locks: Mapping[str, Lock], why: str, fix: str) -> None:
    """BadInput that names the inputs, and the groups or hosts, if locks pin an input that they share differently."""
    named = list(locks.items())
    for number, (first, lock) in enumerate(named):
        for second, other in named[number + 1 :]:
            shared = set(root_inputs(lock)) & set(root_inputs(other))
            unlike = sorted({path[0] for path in difference(lock, other).touched if path[0] in shared})
            if unlike:
                what = f"{first} and {second} have different pins of {', '.join(unlike)}, and {why}"
                raise BadInput(subject, what, fix)
