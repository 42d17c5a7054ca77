# SPDX-License-Identifier: GPL-3.0-or-later
"""What rollouts leave in the ledger: the real playbook and a real repository, with stand-ins for nix and the targets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import Rollout, deferred, growing, in_order, iso, soaking
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger_record import read
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Repo, new_repo, sh
from integration.test_rollout_semantics import ALL, INVENTORY, ROOT, UPDATE, Fleet, Run
from integration.test_rollout_semantics import fleet as fleet

HOSTS = ("web1", "web2", "pi-1", "pi-2", "pi-3", "pi-4")
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


def test_a_part_of_a_group_proves_nothing_for_all(fleet: Fleet, repo: Repo) -> None:
    assert roll(fleet, repo, *ALL).status == 0
    first = repo.git("rev-parse", KNOWN_GOOD[0])
    second = repo.commit()
    assert roll(fleet, repo, "-l", "pi-1").status == 0
    assert (last(repo).outcome, last(repo).members) == ("complete", {"pi-1", "pi-2", "pi-3", "pi-4"})
    assert repo.git("rev-parse", KNOWN_GOOD[0]) == first
    part = growing(lines(repo), "sbcs")
    assert part is not None
    assert (part.commit, set(part.systems), set(part.missing)) == (second, {"pi-1"}, {"pi-2", "pi-3", "pi-4"})
    assert roll(fleet, repo, "-l", "pi-2,pi-3").status == 0
    assert repo.git("rev-parse", KNOWN_GOOD[0]) == first
    # The last one has left the inventory since.
    inventory = fleet.path / "inventory"
    inventory.write_text(re.sub(r"(?m)^pi-4\b.*\n", "", inventory.read_text()))
    assert roll(fleet, repo, "-l", "pi-2").status == 0
    assert repo.git("rev-parse", KNOWN_GOOD[0]) == second


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


NEW = f"/nix/store/{'n' * 32}-nixos-system-"
OLDER = f"/nix/store/{'e' * 32}-nixos-system-"


def at(commit: str, *older: str) -> dict[str, Any]:
    """flake_build at a commit, which has an earlier system for these hosts."""
    same = {group: {"commit": commit} for group in ("servers", "sbcs")}
    return {"*": {"override": same, "members": {host: {"system": f"{OLDER}{host}"} for host in older}}}


def test_an_old_clone_takes_nobody_back(fleet: Fleet, repo: Repo) -> None:
    before = repo.git("rev-parse", "HEAD")
    repo.commit()
    assert roll(fleet, repo, *ALL).status == 0
    reached = repo.git("rev-parse", "HEAD")
    repo.git("reset", "--quiet", "--hard", before)
    runs = {"pi-1": dict.fromkeys(("running", "profile", "boot_default"), f"{NEW}pi-1")}
    scenario = {"flake_build": at(before, "pi-1"), "system_info": runs}
    run = fleet.run("-l", "sbcs", scenario=scenario)
    text = " ".join(run.output.split())
    assert run.status == 2
    assert run.outcome("pi-1") == "held"
    assert f"pi-1 held: it runs commit {reached[:12]}, rolled out " in text
    assert f"which {before[:12]} comes before: this would be a downgrade." in text
    assert sorted(run.called("system_activate")) == ["pi-2", "pi-3", "pi-4"]
    assert fleet.run("-l", "pi-1", "--check", scenario=scenario).status == 2
    asked = fleet.run("-l", "pi-1", "-e", "flotilla_allow_downgrade=true", scenario=scenario)
    assert (asked.status, asked.called("system_activate")) == (0, ["pi-1"])


def test_a_ledger_that_cannot_be_read_is_told_with_the_plan(fleet: Fleet, repo: Repo) -> None:
    inventory = fleet.path / "inventory"
    inventory.write_text(inventory.read_text().replace("[all:vars]", f"flotilla_repo={fleet.path}/gone\n[all:vars]"))
    run = fleet.run("-l", "pi-1,web1", "--check")
    assert run.status == 0, run.output
    text = " ".join(run.output.split())
    unread = "not checked for downgrades, as the ledger could not be read"
    assert f"    {unread}" in run.output
    assert f"sbcs: {unread}" in text
    assert f"servers: {unread}" not in text
    allowed = fleet.run("-l", "pi-1", "--check", "-e", "flotilla_allow_downgrade=true")
    assert unread not in allowed.output
    (repo.path / ".git/HEAD").unlink()
    both = " ".join(fleet.run("-l", "pi-1,web1", "--check").output.split())
    assert f"sbcs: {unread}" in both
    assert f"servers: {unread}" in both


def test_a_commit_that_reverts_is_no_downgrade(fleet: Fleet, repo: Repo) -> None:
    assert roll(fleet, repo, *ALL).status == 0
    repo.commit()
    runs = {"pi-1": dict.fromkeys(("running", "profile", "boot_default"), f"{NEW}pi-1")}
    reverted = fleet.run("-l", "pi-1", scenario={"flake_build": at(repo.git("rev-parse", "HEAD"), "pi-1"), "system_info": runs})
    assert (reverted.status, reverted.called("system_activate")) == (0, ["pi-1"])


def test_a_rollout_that_finds_all_as_it_was_adds_no_line(fleet: Fleet, repo: Repo) -> None:
    right = {host: dict.fromkeys(("running", "profile", "boot_default"), f"{NEW}{host}") for host in HOSTS}
    assert roll(fleet, repo, *ALL, system_info=right | AWAY).status == 0
    before = repo.git("for-each-ref")
    assert len(lines(repo)) == 2
    assert roll(fleet, repo, *ALL, system_info=right | AWAY).status == 0
    assert repo.git("for-each-ref") == before


#: Ends the ansible-playbook that the worker belongs to which runs the script.
KILL = """
run=$PPID up=$(cut -d ' ' -f 4 /proc/$PPID/stat)
if tr '\\0' ' ' < "/proc/$up/cmdline" | grep -q ansible-playbook; then run=$up; fi
kill -9 "$run"
"""


def test_a_killed_controller_leaves_a_line_that_is_not_misread(fleet: Fleet, repo: Repo) -> None:
    inventory = fleet.path / "inventory"
    inventory.write_text(inventory.read_text().replace("[all:vars]", "flotilla_soak=2d\n[all:vars]"))
    assert roll(fleet, repo, "-l", "sbcs").status == 0
    repo.commit()
    (fleet.path / "kill.sh").write_text(KILL)
    kill = {"ansible.builtin.debug": {"msg": f"{{{{ lookup('ansible.builtin.pipe', 'sh {fleet.path}/kill.sh') }}}}"}}
    (fleet.path / "kill.yml").write_text(json.dumps([kill]))
    killed = roll(fleet, repo, "-l", "sbcs", "-e", f"flotilla_health_tasks={fleet.path}/kill.yml", system_info=AWAY)
    assert killed.status != 0
    assert "Rollout result" not in killed.output
    line = last(repo)
    assert (line.outcome, line.commit) == ("broken_off", repo.git("rev-parse", "HEAD"))
    assert {name: host.result for name, host in line.hosts.items()} == {
        **dict.fromkeys(("pi-1", "pi-2", "pi-3"), "planned"),
        "pi-4": "deferred",
    }
    # What soaked before may have been left by any of them.
    assert soaking(lines(repo), "sbcs", line.ended) is None
    again = roll(fleet, repo, "-l", "sbcs")
    assert again.status == 0, again.output
    assert [found.outcome for found in lines(repo)] == ["complete", "broken_off", "complete"]
    assert deferred(lines(repo), "sbcs") == []
    # The beginning of those that ended is gone.
    assert repo.git("log", "--all", "--notes=flotilla", "--format=%N", "main").count('"outcome": "broken_off"') == 1


def test_a_run_that_ansible_breaks_off_is_known_to_have_begun(fleet: Fleet, repo: Repo) -> None:
    run = roll(fleet, repo, "-l", "pi-1", system_activate={"pi-1": {"raise": "unreachable"}})
    assert run.status != 0
    assert last(repo).outcome == "broken_off"
    assert known_good(repo) == []


def test_what_fails_before_hosts_are_looked_at_is_recorded(fleet: Fleet, repo: Repo) -> None:
    run = roll(fleet, repo, "-l", "sbcs", flake_build={"*": {"failed": True, "msg": "builder: there is no nix."}})
    assert run.status == 2
    assert (last(repo).outcome, last(repo).reason) == ("not_started", "builder: there is no nix.")
    assert run.called("system_info") == []


def test_a_rollback_is_recorded_and_ends_a_soak(fleet: Fleet, repo: Repo) -> None:
    inventory = fleet.path / "inventory"
    inventory.write_text(inventory.read_text().replace("[all:vars]", "flotilla_soak=2d\n[all:vars]"))
    assert roll(fleet, repo, "-l", "sbcs").status == 0
    head = repo.commit()
    back = {"previous": f"{NEW}pi-2", "system": f"{OLDER}pi-2"}
    lost = {"failed": True, "unreachable": True, "msg": "pi-1: no route to host."}
    run = fleet.run(
        *("-l", "pi-1,pi-2", "-e", "flotilla_rollback_reason=slow"),
        scenario={"system_rollback": {"pi-1": lost, "pi-2": back}},
        playbook="flotilla.nixos.rollback",
    )
    assert run.status == 2
    assert run.recap("pi-2")["failed"] == 0
    assert run.recap("pi-1")["failed"] == 1
    line = last(repo)
    assert (line.outcome, line.reason) == ("rolled_back", "slow")
    assert line.commit != head
    assert (line.hosts["pi-2"].result, line.hosts["pi-2"].previous) == ("rolled_back", f"{OLDER}pi-2")
    assert (line.hosts["pi-1"].result, line.hosts["pi-1"].reason) == ("failed", "no route to host.")
    assert soaking(lines(repo), "sbcs", line.ended) is None
    # Who has no update group goes back all the same.
    inventory.write_text(inventory.read_text().replace("flotilla_update_group=sbcs\n", ""))
    assert fleet.run("-l", "pi-2", playbook="flotilla.nixos.rollback").status == 0


def test_late_hosts_are_known_to_another_controller(fleet: Fleet, repo: Repo, tmp_path: Path) -> None:
    sh("git", "clone", "--quiet", "--bare", str(repo.path), str(tmp_path / "hub.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "hub.git"))
    repo.git("push", "--quiet", "--set-upstream", "origin", "main")
    assert roll(fleet, repo, *ALL, "-e", "flotilla_push=true", system_info=AWAY).status == 0
    sh("git", "clone", "--quiet", str(tmp_path / "hub.git"), str(tmp_path / "second"))
    inventory = fleet.path / "inventory"
    inventory.write_text(inventory.read_text().replace(str(repo.path), str(tmp_path / "second")))
    run = catch_up(fleet, "-e", "flotilla_push=true")
    assert run.status == 0, run.output
    assert run.called("system_activate") == ["pi-4"]
    # And back again.
    inventory.write_text(inventory.read_text().replace(str(tmp_path / "second"), str(repo.path)))
    assert "No host is late." in catch_up(fleet, "-e", "flotilla_push=true").output


def test_a_remote_that_is_down_keeps_nobody_from_catching_up(fleet: Fleet, repo: Repo, tmp_path: Path) -> None:
    hub = tmp_path / "hub.git"
    sh("git", "clone", "--quiet", "--bare", str(repo.path), str(hub))
    repo.git("remote", "add", "origin", str(hub))
    repo.git("push", "--quiet", "--set-upstream", "origin", "main")
    assert roll(fleet, repo, *ALL, "-e", "flotilla_push=true", system_info=AWAY).status == 0
    hub.rename(tmp_path / "away.git")
    run = catch_up(fleet, "-e", "flotilla_push=true")
    assert run.called("system_activate") == ["pi-4"], run.output
    assert "The ledger was not exchanged." in " ".join(run.output.split())


def test_a_group_without_a_ledger_stops_no_other_from_catching_up(fleet: Fleet, repo: Repo) -> None:
    assert roll(fleet, repo, *ALL, system_info=AWAY).status == 0
    inventory, file = fleet.path / "inventory", fleet.path / "result.json"
    gone = f"flotilla_update_group=servers\nflotilla_repo={fleet.path}/gone"
    inventory.write_text(inventory.read_text().replace("flotilla_update_group=servers", gone))
    run = catch_up(fleet)
    assert run.called("system_activate") == ["pi-4"], run.output
    assert "servers: nobody knows who is late: " in run.output
    failed = catch_up(fleet, "-l", "servers", "-e", f"flotilla_result_file={file}")
    assert failed.status != 0
    found = json.loads(file.read_text())
    assert (found["status"], found["reason"].startswith("catchup: servers: nobody knows who is late: ")) == ("failed", True)


def test_status_says_what_groups_have_proven(fleet: Fleet, repo: Repo) -> None:
    assert roll(fleet, repo, *ALL, system_info=AWAY).status == 0
    (fleet.path / "ansible_collections/flotilla/nixos/plugins/action/fleet_status.py").symlink_to(
        ROOT / "plugins/action/fleet_status.py"
    )
    (fleet.path / "ansible_collections/flotilla/nixos/plugins/action/flake_info.py").symlink_to(
        ROOT / "plugins/action/flake_info.py"
    )
    file = fleet.path / "status.json"
    repo.git("update-ref", "-d", KNOWN_GOOD[0])
    words = ("-e", f"flotilla_status_file={file}")
    assert fleet.run(*words, "--check", playbook="flotilla.nixos.status").status == 0
    assert known_good(repo) == [KNOWN_GOOD[1]]
    run = fleet.run(*words, playbook="flotilla.nixos.status")
    assert run.status == 0, run.output
    assert known_good(repo) == list(KNOWN_GOOD)
    head = repo.git("rev-parse", "HEAD")
    assert f"  sbcs: known-good {head[:12]} (" in run.output
    assert f"    last rollout: complete of {head[:12]} (head) at " in run.output
    assert "    late: pi-4 since " in run.output
    found = json.loads(file.read_text())
    assert found["hosts"]["pi-1"]["group"] == "sbcs"
    assert found["groups"]["sbcs"]["known_good"]["commit"] == head
    assert found["groups"]["sbcs"]["deferred"][0]["host"] == "pi-4"
