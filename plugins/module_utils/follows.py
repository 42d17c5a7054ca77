# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: where the pins are that inputs of a lock have, through whatever they follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .lockfile import InputPath, Lock, followed, resolve


def own_path(lock: Lock, path: InputPath) -> InputPath | None:
    """The path of the input that has the pin which is found at a path; another one where that, or a part of it, follows."""
    seen: set[InputPath] = set()
    length = 1
    while length <= len(path):
        leader = followed(lock, path[:length])
        if leader is None:
            length += 1
            continue
        path, length = (*leader, *path[length:]), 1
        if path in seen:
            return None
        seen.add(path)
    return path


def reached(lock: Lock, inputs: Iterable[str]) -> Iterator[InputPath]:
    """Where the pins are that these inputs have: their own, those of inputs below them, and those that any of these follow."""
    todo = [own_path(lock, tuple(name.split("/"))) for name in inputs]
    seen: set[InputPath] = set()
    while todo:
        path = todo.pop()
        key = resolve(lock, path) if path else None
        if path is None or key is None or path in seen:
            continue
        seen.add(path)
        yield path
        todo += [own_path(lock, (*path, name)) for name in lock.nodes[key].inputs]
