# SPDX-License-Identifier: GPL-3.0-or-later
"""A board in the field that is off during a rollout, and what becomes of it: one story on real hosts, in order."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import Rollout, deferred, in_order, known_good
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger_record import read
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.test_rollout import Site, outcomes
from testbed import Fleet, example, upstream
from testbed.playbooks import Ansible, Played

SBCS = ("pi-1", "pi-2", "pi-3")
UPDATE = ("-l", "sbcs", "-e", "flotilla_update=true", "-e", "flotilla_confirm_timeout=20", "--timeout", "3")
CATCHUP = "flotilla.nixos.catchup"


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Boards as new, and a repository for them that follows upstream's first release."""
    fleet.reset(*SBCS)
    path = tmp_path_factory.mktemp("late")
    source = upstream.create(path / "nixpkgs.git")
    yield Site(fleet, ansible, example.create(path / "fleet", source, env=fleet.env(), addresses=example.addresses_of(fleet)))
    fleet.fault("pi-3", "link-up")


def lines(site: Site) -> list[Rollout]:
    return in_order(read(git.open_repository(LocalRunner(), str(site.example.path), "sbcs")), "sbcs")


def catch_up(site: Site, *arguments: str) -> Played:
    path = site.example.path
    words = ("--timeout", "3", "-e", "flotilla_settle=0", *arguments)
    return site.ansible.playbook(CATCHUP, *words, inventory=path / "inventory/hosts.yml", cwd=path)


def good(site: Site) -> str:
    proof = known_good(lines(site), "sbcs", int(time.time()))
    assert proof is not None
    assert site.example.git("rev-parse", "refs/flotilla/known-good/sbcs") == proof.commit
    return proof.commit


def test_a_board_is_off_during_a_rollout(site: Site) -> None:
    site.play("rollout.yml", "-l", "sbcs", "-e", "flotilla_serial=100%")
    site.release("25.05.2")
    site.fleet.fault("pi-3", "link-down")
    assert outcomes(site.play("rollout.yml", *UPDATE)) == {"pi-1": "updated", "pi-2": "updated", "pi-3": "deferred"}
    assert good(site) == site.example.head()
    assert [late.host for late in deferred(lines(site), "sbcs")] == ["pi-3"]
    # Nobody is there to be brought up to date: that is no failure.
    assert outcomes(catch_up(site)) == {"pi-3": "deferred"}


def test_the_head_moves_on_to_a_bad_release_and_the_board_gets_what_was_proven(site: Site) -> None:
    proven = good(site)
    site.release("bad-unit")
    assert not site.play("update.yml", "-l", "sbcs", "-e", "flotilla_land=true").command.status
    assert site.example.head() != proven
    assert outcomes(site.play("rollout.yml", "-l", "pi-1,pi-2", check=False))["pi-1"] == "rolled_back"
    site.fleet.fault("pi-3", "link-up")
    head = site.example.head()
    assert outcomes(catch_up(site)) == {"pi-3": "updated"}
    assert site.running(*SBCS) == ["25.05.2"] * 3
    assert (site.example.head(), good(site)) == (head, proven)
    assert "refs/flotilla/candidate" not in site.refs()
    assert deferred(lines(site), "sbcs") == []
    assert "No host is late." in catch_up(site).text


def test_a_clone_that_is_old_takes_no_board_back(site: Site) -> None:
    proven = good(site)
    site.example.git("reset", "--quiet", "--hard", f"{proven}~1")
    played = site.play("rollout.yml", "-l", "sbcs", check=False)
    assert not played.ok
    assert outcomes(played) == dict.fromkeys(SBCS, "held")
    assert "this would be a downgrade." in played.text
    assert site.running(*SBCS) == ["25.05.2"] * 3
    assert good(site) == proven
    site.example.git("reset", "--quiet", "--hard", proven)


def test_a_killed_controller_leaves_a_ledger_that_can_be_read(site: Site) -> None:
    proven = good(site)
    site.release("25.05.3")
    path = site.example.path
    check = path.parent / "wait.yml"
    check.write_text("- ansible.builtin.pause: {seconds: 60}\n")
    words = [*UPDATE, "-e", f"flotilla_health_tasks={check}", "-i", str(path / "inventory/hosts.yml"), str(path / "rollout.yml")]
    home = path.parent / "h"
    home.mkdir()
    run = subprocess.Popen(
        [str(site.ansible.venv / "bin/ansible-playbook"), *words],
        cwd=path,
        env=site.ansible.environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    seen = next((line for line in run.stdout if "wait.yml" in line or "Pausing" in line), None)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(30)
    assert seen, "the run ended by itself"
    last = lines(site)[-1]
    assert (last.outcome, last.hosts["pi-1"].result) == ("broken_off", "planned")
    assert good(site) == proven
    assert "last rollout: goes on, or was broken off of " in site.play("status.yml", "-l", "sbcs").text
    # Its guard brings the first board back; the next rollout waits for nobody, and ends it all well.
    _until_back(site)
    assert outcomes(site.play("rollout.yml", *UPDATE)) == dict.fromkeys(SBCS, "updated")
    assert [line.outcome for line in lines(site)][-2:] == ["broken_off", "complete"]
    assert good(site) == site.example.head()


def _until_back(site: Site, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while site.running("pi-1") != ["25.05.2"]:
        assert time.monotonic() < end, "pi-1 did not go back by itself"
        time.sleep(1)


def test_a_board_that_was_brought_back_is_recorded(site: Site, tmp_path: Path) -> None:
    site.play("rollback.yml", "-l", "pi-2", "-e", "flotilla_rollback_reason=slow")
    last = lines(site)[-1]
    assert (last.outcome, last.commit, last.reason) == ("rolled_back", site.example.head(), "slow")
    assert last.by.keys() >= {"user", "controller"}
    file = tmp_path / "status.json"
    text = site.play("status.yml", "-l", "sbcs", "-e", f"flotilla_status_file={file}").text
    assert "last rollout: rolled back of " in text
    assert '"standing": "behind"' in file.read_text()
