# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of a fleet between runs: fleet.json in its folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from .network import Subnet
from .places import STATE


@dataclass(frozen=True, slots=True)
class FleetState:
    """A fleet's subnet, the layers its hosts lie on, and its hosts' indexes; hosts keep theirs for the fleet's life."""

    subnet: Subnet
    layers: tuple[Path, ...]
    controller: Path
    hosts: dict[str, int] = field(default_factory=dict)


def dump(state: FleetState) -> str:
    """The state as JSON."""
    plain = {
        "subnet": state.subnet.number,
        "layers": [str(layer) for layer in state.layers],
        "controller": str(state.controller),
        "hosts": state.hosts,
    }
    return json.dumps(plain, indent=2) + "\n"


def parse(text: str) -> FleetState | None:
    """The state from JSON, None if it is not ours (torn, or of another version)."""
    try:
        plain = json.loads(text)
        return FleetState(
            Subnet(int(plain["subnet"])),
            tuple(Path(layer) for layer in plain["layers"]),
            Path(plain["controller"]),
            {str(name): int(index) for name, index in plain["hosts"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def load(folder: Path) -> FleetState | None:
    """The fleet's state, None if there is none."""
    try:
        return parse((folder / "fleet.json").read_text())
    except OSError:
        return None


def save(folder: Path, state: FleetState) -> None:
    """Write the state so that a reader sees the old or the new one, never a part."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / "fleet.json.new"
    fresh.write_text(dump(state))
    os.replace(fresh, folder / "fleet.json")


def all_fleets(root: Path = STATE) -> dict[str, FleetState]:
    """Every fleet that has a readable state, by name."""
    found = {file.parent.name: load(file.parent) for file in sorted(root.glob("*/fleet.json"))}
    return {name: state for name, state in found.items() if state}
