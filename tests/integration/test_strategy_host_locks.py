# SPDX-License-Identifier: GPL-3.0-or-later
"""One flake, and a lock for each host: the whole job on real hosts.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration import strategies
from integration.strategies import Site, outcomes
from testbed import Fleet
from testbed.playbooks import Ansible


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from strategies.site("host_locks", fleet, ansible, tmp_path_factory.mktemp("site"))


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


def test_an_update_of_one_host_leaves_its_neighbours_lock_as_it_is_to_the_bit(site: Site) -> None:
    # With a kernel of its own, so that each host that gets it is rebooted.
    site.release("25.05.4")
    before = site.snapshot()
    assert outcomes(site.update("stable1")) == {"stable1": "rebooted"}
    after = site.snapshot()
    before.assert_only(site.layout, "stable", after, hosts=["stable1"])
    assert before.files["", "main"]["locks/stable2.lock"] == after.files["", "main"]["locks/stable2.lock"]
    assert before.tree["locks/stable2.lock"] == after.tree["locks/stable2.lock"]
    assert (site.pinned("stable", "stable1"), site.pinned("stable", "stable2")) == ({"25.05.4"}, {"25.05.3"})
    assert outcomes(site.update("stable")) == {"stable1": "unchanged", "stable2": "rebooted"}
    assert site.pinned("stable", "stable2") == {"25.05.4"}
