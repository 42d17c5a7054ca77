# SPDX-License-Identifier: GPL-3.0-or-later
"""A branch for each group, and one for development: the whole job on real hosts.

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
    yield from strategies.site("group_branches", fleet, ansible, tmp_path_factory.mktemp("site"))


def test_a_first_rollout(site: Site) -> None:
    strategies.rolls_out_first(site)


def test_fresh_pins_come_to_the_development_branch_first(site: Site) -> None:
    site.layout.home.replace("modules/base.nix", "pkgs.hello", "pkgs.hello pkgs.curl")
    site.layout.home.commit("Everybody gets curl")
    site.release("25.05.2")
    before = site.snapshot()
    site.play("update", "-e", "branch=main", "-e", "flotilla_land=true")
    after = site.snapshot()
    moved = {branch for branch in after.heads if after.heads[branch] != before.heads[branch]}
    assert moved == {("", "main")}
    assert (after.pins, after.hosts, after.refs, after.status) == (before.pins, before.hosts, before.refs, before.status)
    assert site.layout.home.git("show", "--format=", "--name-only", "main") == "flake.lock"


@pytest.mark.parametrize(
    ("source", "target", "away"), [("main", "canary", ""), ("canary", "early", ""), ("early", "stable", "stable2")]
)
def test_a_promotion_merges_what_was_proven(site: Site, source: str, target: str, away: str) -> None:
    before = site.layout.home.git("rev-parse", target)
    proven = site.layout.home.git("rev-parse", source)
    strategies.promotes(site, source, target, "25.05.2", away=away, files=["modules/base.nix"])
    assert _has(site, target, proven)
    assert _has(site, target, before)
    assert "curl" in site.layout.home.git("show", f"{target}:modules/base.nix")


def _has(site: Site, branch: str, commit: str) -> bool:
    return site.layout.home.run("git", "merge-base", "--is-ancestor", commit, branch, check=False).returncode == 0


def test_a_restore_brings_earlier_pins_back(site: Site) -> None:
    proven = site.proven("canary")
    strategies.updates(site, "canary", "25.05.3")
    strategies.restores(site, "canary", proven, "25.05.2")


def test_a_late_host_gets_what_its_group_has_proven(site: Site) -> None:
    strategies.catches_up(site, "stable", "stable2", "25.05.2")
