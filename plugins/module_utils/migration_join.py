# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the flakes of several groups into one flake, at the top of the repository.

Each group's outputs function becomes a file of its own, word by word, which the one flake imports with the inputs that it had.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import BadInput
from .flake_facts import FlakeFacts, Snapshot
from .flake_source import inside
from .flake_text import attribute_name, inputs_text, relative
from .lockfile import Lock
from .migration import Files
from .migration_locks import moved_inputs, moved_lock, united
from .migration_split import free_name, outputs_binding
from .nix_syntax import by_itself

_TOP = "flake.nix"


@dataclass(frozen=True, slots=True)
class Join:
    """Flakes that are to be one. flakes: of the groups, by directory."""

    head: Snapshot
    flakes: Mapping[str, FlakeFacts]

    def files(self, *, whole: bool) -> Files:
        """The files of the repository afterwards, without its locks."""
        if _TOP in self.head.files:
            raise BadInput(
                _TOP, "there is one at the top already, and the joined flake would go there", "Move it away, and commit."
            )
        found: dict[str, str | None] = {}
        parts = []
        for directory, flake in self.flakes.items():
            path = inside(directory, "flake.nix")
            text = self.head.text(path) or ""
            outputs = by_itself(text, outputs_binding(path, text))
            name = free_name(self.head, directory, outputs)
            lock = inside(directory, "flake.lock")
            found |= {name: outputs, path: None} | ({lock: None} if lock in self.head.files else {})
            parts.append((directory, name, flake))
        return Files({**found, _TOP: self._flake(parts, whole=whole)})

    def inputs(self) -> dict[str, Any]:
        """The inputs of all; BadInput if flakes declare one differently."""
        found: dict[str, Any] = {}
        owner: dict[str, str] = {}
        for directory, flake in self.flakes.items():
            for name, declared in moved_inputs(flake.inputs, directory, ".").items():
                if name in found and found[name] != declared:
                    what = f"{inside(owner[name], _TOP)} and {inside(directory, _TOP)} have different inputs of the name {name}"
                    raise BadInput(name, what, "Rename one of them, lock and commit: one flake has one of each name.")
                found[name] = declared
                owner.setdefault(name, directory)
        return found

    def lock(self, first: str) -> Lock:
        """The lock for the one flake with the pins of the flake in a directory, and for what that has not those of the others."""
        order = (first, *(directory for directory in self.flakes if directory != first))
        locks = [(self.flakes[directory].lock, directory) for directory in order]
        return united(moved_lock(lock, directory, ".") for lock, directory in locks if lock is not None)

    def _flake(self, parts: Sequence[tuple[str, str, FlakeFacts]], *, whole: bool) -> str:
        lines = ["{", '  description = "All hosts";', "", inputs_text(self.inputs()), ""]
        lines += ["  outputs =", "    inputs:", "    let"]
        names: list[str] = []
        for directory, path, flake in parts:
            name = re.sub(r"[^A-Za-z0-9_]", "_", posixpath.basename(directory))
            names.append(f"hosts_{name}" if f"hosts_{name}" not in names else f"hosts_{name}_{len(names)}")
            lines += _part(names[-1], relative(path, "."), directory, flake, whole=whole)
        all_of_them = " // ".join(f"{name}.nixosConfigurations" for name in names)
        lines += ["    in", "    {", f"      nixosConfigurations = {all_of_them};", "    };", "}", ""]
        return "\n".join(lines)


def _part(name: str, file: str, directory: str, flake: FlakeFacts, *, whole: bool) -> list[str]:
    given = " ".join(map(attribute_name, flake.inputs))
    if not whole:
        return [f"      {name} = import {file} {{ inherit (inputs) self {given}; }};"]
    return [
        f"      # What the hosts call `self` is the directory {directory}, with the outputs of its own.",
        f'      {name}Self = inputs.self // {name} // {{ outPath = "${{inputs.self.outPath}}/{directory}"; }};',
        f"      {name} = import {file} {{ self = {name}Self; inherit (inputs) {given}; }};",
    ]
