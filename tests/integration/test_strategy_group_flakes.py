# SPDX-License-Identifier: GPL-3.0-or-later
"""A flake for each group, which share modules by path and by a relative path input: the whole job on real hosts.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration import strategies
from integration.strategies import Site
from testbed import Fleet
from testbed.playbooks import Ansible


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from strategies.site("group_flakes", fleet, ansible, tmp_path_factory.mktemp("site"))


def test_a_first_rollout(site: Site) -> None:
    strategies.rolls_out_first(site)


def test_an_update_moves_one_group_alone(site: Site) -> None:
    strategies.updates(site, "canary", "25.05.2")


def test_a_promotion_gives_the_other_group_the_same_pins(site: Site) -> None:
    strategies.promotes(site, "canary", "stable", "25.05.2", away="stable2")


def test_a_restore_brings_earlier_pins_back(site: Site) -> None:
    proven = site.proven("canary")
    strategies.updates(site, "canary", "25.05.3")
    strategies.restores(site, "canary", proven, "25.05.2")


def test_a_late_host_gets_what_its_group_has_proven(site: Site) -> None:
    strategies.catches_up(site, "stable", "stable2", "25.05.2")
