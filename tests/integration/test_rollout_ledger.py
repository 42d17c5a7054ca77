# SPDX-License-Identifier: GPL-3.0-or-later
"""What rollouts leave in the ledger: the real playbook and a real repository, with stand-ins for nix and the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import Rollout, deferred, in_order, iso
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger_record import read
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Repo, new_repo
from integration.test_rollout_semantics import ALL, INVENTORY, ROOT, UPDATE, Fleet, Run
from integration.test_rollout_semantics import fleet as fleet

KNOWN_GOOD = ("refs/flotilla/known-good/sbcs", "refs/flotilla/known-good/servers")


@pytest.fixture
def repo(fleet: Fleet, tmp_path: Path) -> Repo:
    """The fleet's repository, whose head the stand-ins deploy."""
    made = new_repo(tmp_path / "repo")
    made.commit()
    (tmp_path / "inventory").write_text(INVENTORY.replace("/srv/fleet", str(made.path)))
    for name in ("flake_ledger", "flake_ledger_info"):
        stand_in = fleet.path / f"ansible_collections/flotilla/nixos/plugins/action/{name}.py"
        stand_in.unlink()
        stand_in.symlink_to(ROOT / f"plugins/action/{name}.py")
    return made


def roll(fleet: Fleet, repo: Repo, *arguments: str, **scenario: Any) -> Run:
    head = repo.git("rev-parse", "HEAD")
    same = {group: {"commit": head} for group in ("servers", "sbcs")}
    run = fleet.run(*arguments, scenario={"flake_build": {"*": {"override": same}}, **scenario})
    assert "Traceback" not in run.output
    assert "The ledger was not written" not in run.output, run.output
    return run


def lines(repo: Repo) -> list[Rollout]:
    return in_order(read(git.open_repository(LocalRunner(), str(repo.path), "test")))


def last(repo: Repo, group: str = "sbcs") -> Rollout:
    return next(line for line in reversed(lines(repo)) if line.group == group)


def known_good(repo: Repo) -> list[str]:
    return repo.git("for-each-ref", "--format=%(refname)", "refs/flotilla").splitlines()


def test_every_rollout_leaves_its_line(fleet: Fleet, repo: Repo) -> None:
    run = roll(fleet, repo, *ALL, system_info={"pi-4": {"reachable": False, "msg": "pi-4: no route to host."}})
    assert run.status == 0, run.output
    assert [(line.group, line.outcome, len(line.hosts)) for line in lines(repo)] == [
        ("sbcs", "complete", 4),
        ("servers", "complete", 2),
    ]
    assert known_good(repo) == list(KNOWN_GOOD)
    line = last(repo)
    assert (line.source, line.goal, line.id) == ("head", "switch", last(repo, "servers").id)
    assert line.hosts["pi-1"].system == f"/nix/store/{'n' * 32}-nixos-system-pi-1"
    assert (line.hosts["pi-4"].result, line.hosts["pi-4"].reason) == ("deferred", "no route to host.")
    assert [late.host for late in deferred(lines(repo), "sbcs")] == ["pi-4"]
    # The next one, for the late host alone.
    assert roll(fleet, repo, "-l", "pi-4").status == 0
    assert len(lines(repo)) == 3
    assert deferred(lines(repo), "sbcs") == []


def test_a_bad_rollout_is_recorded_and_proves_nothing(fleet: Fleet, repo: Repo) -> None:
    bad = {"pi-1": {"failed": True, "outcome": "rolled_back", "msg": "pi-1: app.service fails."}}
    run = roll(fleet, repo, *ALL, system_activate=bad)
    assert run.status == 2
    line = last(repo)
    assert (line.outcome, line.hosts["pi-1"].result, line.hosts["pi-2"].result) == ("halted", "rolled_back", "held")
    assert "pi-1 rolled back in batch 1" in line.reason
    assert known_good(repo) == [KNOWN_GOOD[1]]


def test_a_lock_that_fails_is_recorded_on_the_head(fleet: Fleet, repo: Repo) -> None:
    locked = {"*": {"override": {group: {"failed": True, "commit": None, "candidate": None} for group in ("servers", "sbcs")}}}
    built = {"*": {"override": {group: {"commit": None} for group in ("servers", "sbcs")}}}
    run = roll(fleet, repo, *UPDATE, flake_lock=locked, flake_build=built)
    assert run.status == 2
    assert (last(repo).outcome, last(repo).commit) == ("not_started", repo.git("rev-parse", "HEAD"))
    assert known_good(repo) == []


def test_a_soak_that_differs_by_group(fleet: Fleet, repo: Repo) -> None:
    inventory = fleet.path / "inventory"
    inventory.write_text(inventory.read_text().replace("[all:vars]", "flotilla_soak=2d\n[all:vars]"))
    assert roll(fleet, repo, *ALL).status == 0
    assert (last(repo).soak, last(repo, "servers").soak) == (172800, 0)
    assert known_good(repo) == [KNOWN_GOOD[1]]
    inventory.write_text(inventory.read_text().replace("flotilla_soak=2d", "flotilla_soak=soon"))
    run = fleet.run(*ALL)
    assert run.status == 2
    assert "sbcs: flotilla_soak is no length of time: 'soon'. Give seconds" in " ".join(run.output.split())
    assert run.called("system_activate") == []


@pytest.mark.parametrize("arguments", [("--check",), ("--tags", "plan"), ("-e", "flotilla_record=false")])
def test_what_leaves_no_line(fleet: Fleet, repo: Repo, arguments: tuple[str, ...]) -> None:
    before = repo.git("for-each-ref")
    run = fleet.run(*ALL, *arguments)
    assert run.status == 0, run.output
    assert repo.git("for-each-ref") == before


@pytest.mark.usefixtures("repo")
def test_a_ledger_that_cannot_be_written_is_a_warning(fleet: Fleet) -> None:
    run = fleet.run(*ALL)
    assert run.status == 0, run.output
    text = " ".join(run.output.split())
    assert "The ledger was not written." in text
    assert f"has no commit {'d' * 40}" in text
    assert run.outcome("pi-1") == "updated"


AWAY = {"pi-4": {"reachable": False, "msg": "pi-4: no route to host."}}
CATCHUP = "flotilla.nixos.catchup"


def catch_up(fleet: Fleet, *arguments: str, **scenario: Any) -> Run:
    run = fleet.run(*arguments, scenario=scenario, playbook=CATCHUP)
    assert "Traceback" not in run.output
    return run


def test_a_late_host_catches_up_with_what_was_proven(fleet: Fleet, repo: Repo) -> None:
    assert roll(fleet, repo, *ALL, system_info=AWAY).status == 0
    good = repo.git("rev-parse", "HEAD")
    repo.commit()
    still = catch_up(fleet, system_info=AWAY)
    assert still.status == 0, still.output
    assert f"sbcs: pi-4 is late since {deferred_at(repo)}" in still.output
    assert still.outcome("pi-4") == "deferred"
    # It has missed this commit before: nothing new to record.
    assert len(lines(repo)) == 2
    run = catch_up(fleet)
    assert run.status == 0, run.output
    assert [group["commit"] for group in run.arguments("flake_build")[0]["groups"]] == [good]
    assert run.called("system_activate") == ["pi-4"]
    assert run.states() == []
    line = last(repo)
    assert (line.commit, line.source, line.outcome, line.landed) == (good, "known_good", "complete", None)
    assert deferred(lines(repo), "sbcs") == []
    nobody = catch_up(fleet)
    assert (nobody.status, nobody.calls) == (0, [])
    assert "No host is late." in nobody.output


def deferred_at(repo: Repo) -> str:
    return iso(deferred(lines(repo), "sbcs")[0].since)


def test_late_hosts_that_cannot_catch_up_are_named(fleet: Fleet, repo: Repo) -> None:
    inventory = fleet.path / "inventory"
    inventory.write_text(inventory.read_text().replace("[all:vars]", "flotilla_soak=2d\n[all:vars]"))
    away = AWAY | {"web2": {"reachable": False, "msg": "web2: no route to host."}}
    assert roll(fleet, repo, *ALL, system_info=away).status == 0
    waits = catch_up(fleet, "-l", "sbcs")
    assert (waits.status, waits.called("system_activate")) == (0, [])
    text = " ".join(waits.output.split())
    assert "and waits: sbcs has proven no commit yet; " in text
    assert "web2" not in waits.output
    inventory.write_text(inventory.read_text().replace("web2\n", ""))
    gone = catch_up(fleet)
    assert (gone.status, gone.called("system_activate")) == (0, [])
    assert "servers: web2 is late since " in gone.output
    assert "and no longer in the inventory" in gone.output


def test_known_good_for_any_host(fleet: Fleet, repo: Repo) -> None:
    target = ("-e", "flotilla_target=known-good")
    none = fleet.run(*ALL, *target)
    assert none.status == 2
    assert none.called("system_activate") == []
    assert "sbcs has proven no commit yet. Roll out its branch first." in none.output
    assert roll(fleet, repo, *ALL).status == 0
    good = repo.git("rev-parse", "HEAD")
    repo.commit()
    run = fleet.run("-l", "pi-1,pi-2", *target)
    assert run.status == 0, run.output
    assert f"sbcs: 2 hosts at {good[:12]} (known-good)" in run.output
    assert run.states() == []
    both = fleet.run("-l", "pi-1", *target, "-e", "flotilla_update=true")
    assert both.status == 2
    assert "cannot be deployed and their inputs updated in one run" in " ".join(both.output.split())
    assert both.calls == []
