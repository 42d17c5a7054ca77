# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of one repository that are each kept in another way, by the five fields alone: the whole job on real hosts.

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
    yield from strategies.site("mixture", fleet, ansible, tmp_path_factory.mktemp("site"))


def test_a_first_rollout(site: Site) -> None:
    strategies.rolls_out_first(site)


def test_an_update_on_a_branch_of_its_own(site: Site) -> None:
    strategies.updates(site, "servers", "25.05.2")


def test_a_promotion_from_a_branch_to_locks_of_single_hosts(site: Site) -> None:
    strategies.promotes(site, "servers", "sbcs", "25.05.2", away="pi2")


def test_a_restore_on_the_branch(site: Site) -> None:
    proven = site.proven("servers")
    strategies.updates(site, "servers", "25.05.3")
    strategies.restores(site, "servers", proven, "25.05.2")


def test_a_late_host_with_a_lock_of_its_own(site: Site) -> None:
    strategies.catches_up(site, "sbcs", "pi2", "25.05.2")


def test_a_promotion_from_locks_of_single_hosts_to_a_flake(site: Site) -> None:
    strategies.promotes(site, "sbcs", "desktops", "25.05.2")
