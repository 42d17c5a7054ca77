# SPDX-License-Identifier: GPL-3.0-or-later
"""Which inputs stand for each other where two groups have their own in one lock, and nobody says."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.promotion import counterparts
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group


def group(name: str, *inputs: str) -> UpdateGroup:
    return update_group(name, "/srv/fleet", strategy="group_inputs", inputs=inputs or None)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (("nixpkgs-canary",), ("nixpkgs-stable",), {"nixpkgs-canary": "nixpkgs-stable"}),
        (("canaryDep", "canaryPkgs"), ("stableDep", "stablePkgs"), {"canaryDep": "stableDep", "canaryPkgs": "stablePkgs"}),
        (("nixpkgs-next",), ("nixpkgs",), {"nixpkgs-next": "nixpkgs"}),
        # More than the target has does not matter; less of what it has does.
        (("canaryDep", "tools"), ("stableDep",), {"canaryDep": "stableDep"}),
        (("canaryDep",), ("stableDep", "stablePkgs"), {}),
        (("nixpkgs",), ("nixpkgs",), {}),
        (("one", "two"), ("three", "four"), {}),
        ((), ("stableDep",), {}),
        ((), (), {}),
    ],
)
def test_counterparts(source: tuple[str, ...], target: tuple[str, ...], expected: dict[str, str]) -> None:
    assert counterparts(group("canary", *source), group("stable", *target)) == expected
