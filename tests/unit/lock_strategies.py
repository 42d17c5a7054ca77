# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks of two groups for property tests: any graph of flakes, any pins, and a flake.nix that nix finds the lock complete for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.flotilla.nixos.plugins.module_utils.graft import written
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import InputPath, Lock, lock_of_entries
from hypothesis import strategies as st


def node(digit: str, *, url: str = "nixpkgs", **more: Any) -> dict[str, Any]:
    """A node pinned to a revision of nothing but that digit."""
    original = {"type": "github", "owner": "NixOS", "repo": url}
    pin = {"rev": digit * 40, "narHash": f"sha256-{digit * 42}0=", "lastModified": 1762041600 + int(digit)}
    return {"locked": {**original, **pin}, "original": original, **more}


@dataclass(frozen=True, slots=True)
class Rings:
    """Two groups. flakes: each flake's inputs. wires: what follows what in both. roots: of the target's flake and the source's.

    chosen: the inputs to promote, of those that both have.
    """

    flakes: Mapping[str, tuple[str, ...]]
    wires: Mapping[str, str]
    roots: tuple[tuple[str, ...], tuple[str, ...]]
    target: Lock
    source: Lock
    chosen: tuple[str, ...]

    def flake(self, which: int) -> str:
        """The flake.nix of the target (0) or the source (1)."""
        lines = [f'  inputs.{name}.url = "github:NixOS/{name}";' for name in self.roots[which]]
        for path, leader in self.wires.items():
            top, _, below = path.partition("/")
            if top in self.roots[which]:
                lines.append(f'  inputs.{top}.inputs.{below}.follows = "{leader}";')
        return "\n".join(["{", *lines, "  outputs = _: { };", "}", ""])


@st.composite
def rings(draw: st.DrawFn) -> Rings:
    """Flakes made of one another, some of them inputs of one group or both, which follow one another alike."""
    names = [f"f{number}" for number in range(draw(st.integers(2, 5)))]
    flakes = {
        # Each is made of later ones only, so that the graph has an end.
        name: tuple(draw(st.lists(st.sampled_from(names[i + 1 :]), unique=True, max_size=3))) if names[i + 1 :] else ()
        for i, name in enumerate(names)
    }
    target, source = (tuple(name for name in names if draw(st.booleans())) or (names[0],) for _ in range(2))
    both = [name for name in names if name in target and name in source]
    wires = _wires(draw, flakes, both)
    old, new = _locked(draw, flakes, target, "123", wires), _locked(draw, flakes, source, "456", wires)
    return Rings(flakes, wires, (target, source), old, new, tuple(name for name in both if draw(st.booleans())))


def _wires(draw: st.DrawFn, flakes: Mapping[str, tuple[str, ...]], both: list[str]) -> dict[str, str]:
    """Of each flake's inputs, some follow an input that both groups have, and one may follow its neighbour."""
    wires: dict[str, str] = {}
    for name, inputs in flakes.items():
        for below in inputs:
            if below in both and draw(st.booleans()):
                wires[f"{name}/{below}"] = below
        free = [below for below in inputs if f"{name}/{below}" not in wires]
        if len(free) > 1 and draw(st.booleans()):
            wires[f"{name}/{free[0]}"] = f"{name}/{free[1]}"
    return wires


def _locked(
    draw: st.DrawFn, flakes: Mapping[str, tuple[str, ...]], root: tuple[str, ...], revs: str, wires: Mapping[str, str]
) -> Lock:
    found: dict[InputPath, Any] = {}

    def add(path: InputPath, name: str) -> None:
        if leader := wires.get(written(path)):
            found[path] = leader.split("/")
            return
        found[path] = node(draw(st.sampled_from(revs)), url=name)
        for below in flakes[name]:
            add((*path, below), below)

    for name in root:
        add((name,), name)
    return lock_of_entries(found, draw(st.sampled_from([6, 7])))
