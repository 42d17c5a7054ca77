# SPDX-License-Identifier: GPL-3.0-or-later
"""A main flake, and a wrapper with its own pins for each stage: the whole job on real hosts.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration import strategies
from integration.strategies import Site, said
from testbed import Fleet
from testbed.example import Example
from testbed.playbooks import Ansible


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from strategies.site("stage_flakes", fleet, ansible, tmp_path_factory.mktemp("site"))


def test_a_first_rollout(site: Site) -> None:
    strategies.rolls_out_first(site)


def test_an_update_moves_one_group_alone(site: Site) -> None:
    strategies.updates(site, "dev", "25.05.2")


def test_a_promotion_gives_the_other_group_the_same_pins(site: Site) -> None:
    strategies.promotes(site, "dev", "prod", "25.05.2", away="prod2")


def test_a_restore_brings_earlier_pins_back(site: Site) -> None:
    proven = site.proven("dev")
    strategies.updates(site, "dev", "25.05.3")
    strategies.restores(site, "dev", proven, "25.05.2")


def test_a_late_host_gets_what_its_group_has_proven(site: Site) -> None:
    strategies.catches_up(site, "prod", "prod2", "25.05.2")


def test_an_input_that_the_wrapper_does_not_override_is_named(site: Site) -> None:
    home, hardware = site.layout.home, Example(site.layout.home.path.parent / "nixos-hardware", site.source, site.layout.home.env)
    home.replace("hosts/prod/flake.nix", '  inputs.main.inputs.nixos-hardware.follows = "nixos-hardware";\n', "")
    home.run("nix", "flake", "lock", "./hosts/prod")
    hardware.write("README", "It moves on.\n")
    moved = hardware.commit("Move on")
    home.run("nix", "flake", "update", "nixos-hardware", "--flake", ".")
    home.commit("Forget to override an input, and update the main flake")
    played = site.play("update", "-l", "prod", "-e", '{"flotilla_update_inputs": ["nixpkgs"]}', "--check")
    assert "prod: the input main/nixos-hardware stays at " in said(played)
    assert moved[:7] in said(played)
    assert 'inputs.main.inputs.nixos-hardware.follows = "nixos-hardware"' in said(played)
