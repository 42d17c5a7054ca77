# SPDX-License-Identifier: GPL-3.0-or-later
"""One flake with an input for each channel, which several groups follow: the whole job on real hosts.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration import strategies
from integration.strategies import Site, outcomes, said
from testbed import Fleet
from testbed.playbooks import Ansible

CONSENT = ("-e", "flotilla_allow_shared_inputs=true")


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from strategies.site("channel_inputs", fleet, ansible, tmp_path_factory.mktemp("site"))


def test_a_first_rollout(site: Site) -> None:
    strategies.rolls_out_first(site)


def test_a_channel_of_ones_own_moves_alone(site: Site) -> None:
    strategies.updates(site, "canary", "25.05.2")


def test_a_channel_that_others_follow_is_named_and_stays(site: Site) -> None:
    before = site.snapshot()
    played = site.update("servers", check=False)
    assert not played.ok
    assert "kiosks" in said(played)
    assert "nixpkgs" in said(played)
    assert "flotilla_allow_shared_inputs=true" in said(played)
    assert "desktops" not in said(played)
    assert site.snapshot() == before


def test_a_promotion_moves_it_with_consent(site: Site) -> None:
    strategies.promotes(site, "canary", "servers", "25.05.2", *CONSENT, away="server2", sharing=["kiosks"])


def test_the_others_get_it_with_their_next_rollout(site: Site) -> None:
    before = site.snapshot()
    assert outcomes(site.rollout("kiosks")) == {"kiosk1": "updated"}
    before.assert_only(site.layout, "kiosks", site.snapshot())
    assert site.running("kiosks") == {"kiosk1": "25.05.2"}


def test_a_restore_brings_earlier_pins_back(site: Site) -> None:
    proven = site.proven("canary")
    strategies.updates(site, "canary", "25.05.3")
    strategies.restores(site, "canary", proven, "25.05.2")


def test_a_late_host_gets_what_its_group_has_proven(site: Site) -> None:
    strategies.catches_up(site, "servers", "server2", "25.05.2")
