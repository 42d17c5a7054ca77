# SPDX-License-Identifier: GPL-3.0-or-later
"""How a rollout behaves as an Ansible run, on each ansible-core that we have: batches, gate, losses, tags, exit status.

The real playbook, role, filters, gate and callback; the builder's and the targets' actions are stand-ins (fakes/action.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FAKES = Path(__file__).parent / "fakes"
VENVS = [venv for venv in (".venv", ".venv-newest") if (ROOT / venv / "bin/ansible-playbook").exists()]
FAKED = (
    *("flake_lock", "flake_build", "flake_ledger", "flake_ledger_info", "closure_copy", "system_info"),
    *("system_activate", "system_confirm", "system_rollback", "system_reboot"),
)

INVENTORY = """
[servers]
web1
web2
[sbcs]
pi-1
pi-2
pi-3
pi-4
[servers:vars]
flotilla_update_group=servers
[sbcs:vars]
flotilla_update_group=sbcs
[all:vars]
ansible_connection=local
flotilla_repo=/srv/fleet
"""


@dataclass
class Run:
    """A finished ansible-playbook."""

    status: int
    output: str
    calls: list[tuple[str, str, dict[str, Any]]]
    summary: dict[str, Any] = field(default_factory=dict)

    def called(self, action: str) -> list[str]:
        """The hosts that an action was called for, in order."""
        return [host for name, host, _arguments in self.calls if name == action]

    def arguments(self, action: str) -> list[dict[str, Any]]:
        """The arguments of an action's calls, in order."""
        return [arguments for name, _host, arguments in self.calls if name == action]

    def states(self) -> list[tuple[str, list[str]]]:
        """The calls of flake_lock: state and groups."""
        return [(a["state"], [g["name"] for g in a["groups"]]) for name, _host, a in self.calls if name == "flake_lock"]

    def batches(self) -> list[list[str]]:
        """The batches as the plan showed them."""
        lines = [line.strip() for line in self.output.splitlines()]
        return [line.partition(": ")[2].split(", ") for line in lines if line.startswith("batch ")]

    def recap(self, host: str) -> dict[str, int]:
        """The host's counts in Ansible's recap."""
        recap = self.output.rpartition("PLAY RECAP")[2]
        line = next(line for line in recap.splitlines() if line.split()[:1] == [host])
        return {key: int(value) for key, _, value in (word.partition("=") for word in line.split()[2:])}

    def outcome(self, host: str) -> str:
        """The outcome in the printed table."""
        lines = [line.split() for line in self.output.splitlines()]
        start = next(i for i, words in enumerate(lines) if words[:3] == ["host", "group", "outcome"])
        row = next(words for words in lines[start + 1 :] if words[:1] == [host])
        return " ".join(row[2:4]) if row[2] == "rolled" else row[2]


@dataclass
class Fleet:
    """A place to run the playbook in."""

    path: Path
    venv: str
    callback: bool = False

    def run(self, *arguments: str, scenario: dict[str, Any] | None = None, playbook: str = "flotilla.nixos.rollout") -> Run:
        """Run the playbook with these arguments, over a scenario for the stand-ins."""
        state = self.path / "scenario.json"
        state.write_text(json.dumps(scenario or {}))
        journal = Path(f"{state}.log")
        journal.unlink(missing_ok=True)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTHONPATH"))},
            "ANSIBLE_COLLECTIONS_PATH": str(self.path),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_HOME": str(self.path / "home"),
            "ANSIBLE_ACTION_PLUGINS": str(self.path / "action_plugins"),
            "ANSIBLE_FORKS": "4",
            **({"ANSIBLE_CALLBACKS_ENABLED": "flotilla.nixos.rollout"} if self.callback else {}),
            "FLOTILLA_FAKE": str(state),
        }
        argv = [str(ROOT / self.venv / "bin/ansible-playbook"), "-i", str(self.path / "inventory"), playbook, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=self.path, timeout=60, check=False)
        calls = [tuple(json.loads(line)) for line in journal.read_text().splitlines()] if journal.exists() else []
        return Run(done.returncode, done.stdout + done.stderr, calls)


@pytest.fixture(params=VENVS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Fleet:
    """What stand_ins gives, for each Ansible."""
    return stand_ins(tmp_path, request.param)


def stand_ins(path: Path, venv: str, *, but: tuple[str, ...] = ()) -> Fleet:
    """A collection whose actions on builder and targets are stand-ins, but for some, beside an inventory."""
    collection = path / "ansible_collections/flotilla/nixos"
    (collection / "plugins/action").mkdir(parents=True)
    for name in ("galaxy.yml", "meta", "roles", "playbooks"):
        (collection / name).symlink_to(ROOT / name)
    for name in ("filter", "callback", "module_utils", "plugin_utils", "modules", "doc_fragments"):
        (collection / "plugins" / name).symlink_to(ROOT / "plugins" / name)
    for real in (ROOT / "plugins/action").glob("rollout_*.py"):
        (collection / "plugins/action" / real.name).symlink_to(real)
    for name in but:
        (collection / f"plugins/action/{name}.py").symlink_to(ROOT / f"plugins/action/{name}.py")
    for name in set(FAKED) - set(but):
        (collection / f"plugins/action/{name}.py").write_text((FAKES / "action.py").read_text())
    (path / "action_plugins").mkdir()
    (path / "action_plugins/system_fake.py").write_text((FAKES / "action.py").read_text())
    (path / "inventory").write_text(INVENTORY)
    return Fleet(path, venv)


ALL = ("-e", "flotilla_all=true")
UPDATE = (*ALL, "-e", "flotilla_update=true")
#: How a host is brought back, but for the reason.
BACK = {
    "to": f"/nix/store/{'o' * 32}-nixos-system-pi-1",
    "activation_timeout": 600,
    "confirm_timeout": 300,
    "ignored_units": [],
}
GONE = {"raise": "unreachable"}


def rolled_back(host: str) -> dict[str, Any]:
    """A result of system_activate that failed and was undone."""
    return {"failed": True, "outcome": "rolled_back", "msg": f"{host}: units that did not fail before fail now: app.service."}


def lost(host: str) -> dict[str, Any]:
    """A result of our own actions when the connection is gone."""
    return {"failed": True, "unreachable": True, "msg": f"{host}: the connection failed: no route to host."}


def test_without_a_limit_nothing_is_started(fleet: Fleet) -> None:
    run = fleet.run()
    assert run.status == 2
    assert "Name the hosts or groups with -l, or set flotilla_all=true." in run.output
    assert run.calls == []


def test_what_is_false_on_the_command_line_is_false(fleet: Fleet) -> None:
    """`-e NAME=false` gives text, which is true to a template."""
    off = [word for name in ("land", "allow_dirty", "rollback_confirmed") for word in ("-e", f"flotilla_{name}=false")]
    run = fleet.run(*UPDATE, *off, scenario={"system_activate": {"pi-2": rolled_back("pi-2")}})
    assert run.status == 2
    assert run.states() == [("updated", ["servers", "sbcs"])]
    assert run.called("system_rollback") == []
    still = fleet.run(*ALL, *(word for name in ("update", "land") for word in ("-e", f"flotilla_{name}=false")))
    assert still.states() == []


def test_groups_that_differ_in_what_a_run_has_once_are_refused(fleet: Fleet) -> None:
    """A task that runs once has the variables of the first host."""
    inventory = fleet.path / "inventory"
    inventory.write_text(INVENTORY + "[sbcs:vars]\nflotilla_goal=boot\nflotilla_reboot=never\nflotilla_serial=2\n")
    run = fleet.run(*ALL)
    assert run.status == 2
    assert "servers and sbcs differ in flotilla_goal" in run.output
    assert run.calls == []
    assert fleet.run("-l", "sbcs").status == 0
    assert fleet.run(*ALL, "-e", "flotilla_goal=test").status == 0


def test_the_first_groups_pace_is_not_the_others(fleet: Fleet) -> None:
    inventory = fleet.path / "inventory"
    inventory.write_text(INVENTORY + "[servers:vars]\nflotilla_serial=2\nflotilla_max_fail_percentage=100\n")
    run = fleet.run(*ALL, scenario={"system_activate": {"pi-1": rolled_back("pi-1")}})
    assert run.batches() == [["web1", "web2", "pi-1"], ["pi-2"], ["pi-3", "pi-4"]]
    assert run.outcome("pi-2") == "held"


def test_a_reboot_that_waits_does_not_concern_a_goal_that_does_not_reboot(fleet: Fleet) -> None:
    (fleet.path / "inventory").write_text(INVENTORY + "[all:vars]\nflotilla_reboot=if_needed\n")
    right = dict.fromkeys(("running", "booted", "profile", "boot_default"), f"/nix/store/{'n' * 32}-nixos-system-web1")
    scenario = {"system_info": {"web1": {**right, "reboot_needed": True}}}
    assert fleet.run("-l", "web1", "-e", "flotilla_goal=test", scenario=scenario).outcome("web1") == "unchanged"
    assert fleet.run("-l", "web1", scenario=scenario).called("system_activate") == ["web1"]


def test_a_group_without_a_branch_to_land_on_does_not_begin(fleet: Fleet) -> None:
    scenario = {"flake_lock": {"*": {"override": {"sbcs": {"branch": None}}}}}
    run = fleet.run(*UPDATE, scenario=scenario)
    assert run.status == 2
    assert sorted(run.called("system_activate")) == ["web1", "web2"]
    assert "HEAD is detached, so there is no branch for the update to land on. Set flotilla_branch" in run.output
    without = fleet.run(*UPDATE, "-e", "flotilla_land=false", scenario=scenario)
    assert without.status == 0, without.output


@pytest.mark.parametrize(("land", "allowed"), [("true", False), ("false", True)])
def test_a_lock_with_uncommitted_changes_is_refused_before_hosts_move(fleet: Fleet, land: str, *, allowed: bool) -> None:
    run = fleet.run("-l", "web1", "-e", f"flotilla_update=true flotilla_allow_dirty=true flotilla_land={land}")
    assert run.arguments("flake_lock")[0]["allow_dirty"] is allowed
    assert run.arguments("flake_build")[0]["allow_dirty"] in (True, "true")


def test_one_file_of_health_checks_may_be_text(fleet: Fleet) -> None:
    (fleet.path / "check.yml").write_text("- ansible.builtin.debug: {msg: looked at}\n")
    run = fleet.run("-l", "web1", "-e", f"flotilla_health_tasks={fleet.path}/check.yml")
    assert run.status == 0, run.output
    assert run.output.count("looked at") == 1
    assert fleet.run("-l", "web1", "-e", "flotilla_health_tasks=").status == 0


def test_a_host_is_brought_back_with_its_own_variables(fleet: Fleet) -> None:
    own = "pi-1 flotilla_ignored_units=mail.service flotilla_activation_timeout=50 flotilla_confirm_timeout=40"
    (fleet.path / "inventory").write_text(INVENTORY.replace("pi-1", own, 1))
    scenario = {"system_activate": {"pi-2": rolled_back("pi-2")}}
    run = fleet.run(*ALL, "-e", "flotilla_rollback_confirmed=true", scenario=scenario)
    (arguments,) = run.arguments("system_rollback")
    assert (arguments["ignored_units"], int(arguments["activation_timeout"]), int(arguments["confirm_timeout"])) == (
        "mail.service",
        50,
        40,
    )


def test_every_group_has_its_own_canary_and_lands_its_candidate(fleet: Fleet) -> None:
    run = fleet.run(*UPDATE)
    assert run.status == 0, run.output
    assert run.batches() == [["web1", "pi-1"], ["web2", "pi-2"], ["pi-3", "pi-4"]]
    assert sorted(run.called("system_confirm")) == ["pi-1", "pi-2", "pi-3", "pi-4", "web1", "web2"]
    assert run.states() == [("updated", ["servers", "sbcs"]), ("accepted", ["servers", "sbcs"])]
    assert run.called("system_rollback") == []
    assert "sbcs: landed cccccccccccc on main" in run.output


TOUR = {
    "canary_fails": "a1 a2 a3",
    "canary_leaves": "b1 b2 b3",
    "late_failure": "c1 c2 c3",
    "no_way_back": "d1 d2",
    "no_lock": "e1",
    "no_build": "f1 f2",
    "no_landing": "g1",
    "asleep": "h1 h2",
    "reboots": "i1 i2",
    "own_checks": "j1 j2",
    "foreign_platform": "k1",
    "well": "z1 z2 z3",
}


def test_every_kind_of_trouble_at_once(fleet: Fleet) -> None:
    """One rollout over twelve update groups, each with a trouble of its own: none of them touches another."""
    lines = [f"[{g}]\n" + "\n".join(hosts.split()) + f"\n[{g}:vars]\nflotilla_update_group={g}\n" for g, hosts in TOUR.items()]
    (fleet.path / "inventory").write_text("\n".join(lines) + "[all:vars]\nansible_connection=local\nflotilla_repo=/srv/fleet\n")
    (fleet.path / "check.yml").write_text(
        "- ansible.builtin.fail: {msg: the shop is closed}\n  when: inventory_hostname == 'j1'\n"
    )
    refused = {"msg": "main has moved, and merging it conflicts.", "failed_at": "accepted"}
    scenario = {
        "flake_lock": {
            "*": {"override": {"no_lock": {"failed_at": "updated", "msg": "there is no input x."}, "no_landing": refused}}
        },
        "flake_build": {"*": {"members": {"f1": {"failed": True, "system": None, "error": "f1: attribute 'foo' missing."}}}},
        "system_info": {"h1": {"reachable": False, "msg": "h1: no route to host."}, "k1": {"platform": "aarch64-linux"}},
        "closure_copy": {"b1": lost("b1")},
        "system_activate": {
            "a1": rolled_back("a1"),
            "c2": rolled_back("c2"),
            "i1": {"reboot_needed": True},
            "i2": {"outcome": "staged_for_boot", "guard": None},
        },
        "system_confirm": {"d1": lost("d1")},
        "system_rollback": {"d1": lost("d1")},
    }
    extra = {"flotilla_serial": [1, 1, "100%"], "flotilla_health_tasks": [str(fleet.path / "check.yml")]}
    run = fleet.run(*UPDATE, "-e", json.dumps(extra), scenario=scenario)
    assert run.status == 2
    expected = {
        **{"a1": "rolled back", "a2": "held", "a3": "held"},
        **{"b1": "deferred", "b2": "held", "b3": "held"},
        **{"c1": "updated", "c2": "rolled back", "c3": "held"},
        **{"d1": "failed", "d2": "held", "e1": "failed", "f1": "failed", "f2": "held", "g1": "updated"},
        **{
            "h1": "deferred",
            "h2": "updated",
            "i1": "rebooted",
            "i2": "rebooted",
            "j1": "rolled back",
            "j2": "held",
            "k1": "failed",
        },
        **{"z1": "updated", "z2": "updated", "z3": "updated"},
    }
    assert {host: run.outcome(host) for host in expected} == expected
    failed = [host for host in expected if run.recap(host)["failed"]]
    assert failed == [host for host, outcome in expected.items() if outcome in ("failed", "held", "rolled back") or host == "g1"]
    assert run.states()[1:] == [
        ("accepted", ["no_landing", "asleep", "reboots", "well"]),
        ("discarded", ["canary_fails", "canary_leaves", "no_build", "own_checks", "foreign_platform"]),
    ]
    assert sorted(run.called("system_rollback")) == ["d1", "j1"]
    assert "  no_way_back: not landed. d1 may run the candidate cccccccccccc, kept as refs/flotilla/candidate" in run.output
    for line in (
        "  a1, c2 rolled back: units that did not fail before fail now: app.service.",
        "  a2, a3 held: canary_fails halted: a1 rolled back in batch 1 (1 of 1)",
        "  b2, b3 held: canary_leaves halted: b1 went away before the update, so nothing has been proven",
        "  late_failure: not landed. c1 runs the candidate cccccccccccc, kept as refs/flotilla/candidate/late_failure.",
        "  d1 failed: the connection failed: no route to host. Going back: the connection failed: no route to host.",
        "  e1 failed: there is no input x.",
        "  f1 failed: attribute 'foo' missing.",
        "  no_landing: the candidate was proven, but did not land: main has moved, and merging it conflicts.",
        "  h1 deferred: no route to host.",
        "  j1 rolled back: the shop is closed",
        "  k1 failed: its system is for x86_64-linux, and the host is aarch64-linux.",
        "  well: landed cccccccccccc on main",
        "  canary_fails: candidate dropped; main never had it",
    ):
        assert line in run.output


def test_failed_and_unreachable_in_the_same_task(fleet: Fleet) -> None:
    """Where Ansible's own gates leak. The dropped host is the first one, on which Ansible hangs the run_once tasks."""
    fleet.callback = True
    scenario = {"system_activate": {"pi-1": GONE, "pi-2": rolled_back("pi-2")}}
    run = fleet.run("-l", "sbcs", "-e", "{flotilla_update: true, flotilla_serial: [2, 1]}", scenario=scenario)
    assert run.status != 0
    assert sorted(run.called("closure_copy")) == ["pi-1", "pi-2"]
    assert [run.outcome(h) for h in ("pi-1", "pi-2", "pi-3", "pi-4")] == ["failed", "rolled back", "held", "held"]
    assert "pi-1 failed: it was lost during the rollout" in run.output
    assert run.states()[1:] == [], "nothing shows what pi-1 runs"
    assert "sbcs: not landed. pi-1 may run the candidate cccccccccccc, kept as refs/flotilla/candidate/sbcs." in run.output
    assert "batch 1 of 3 (0 of 4 hosts done): pi-1, pi-2" in run.output
    assert run.output.count("Rollout result") == 1
    assert run.output.index("PLAY RECAP") < run.output.index("Rollout result")


def test_a_whole_batch_that_fails_does_not_end_the_rollout(fleet: Fleet) -> None:
    full = {"*": {"failed": True, "msg": "the disk is full. Make room."}}
    run = fleet.run(*UPDATE, scenario={"closure_copy": full})
    assert run.status == 2
    assert run.called("closure_copy") == run.called("closure_copy")[:2]
    assert run.called("system_activate") == []
    assert run.states()[1:] == [("discarded", ["servers", "sbcs"])]
    assert "web1, pi-1 failed: the disk is full. Make room." in run.output


def test_a_whole_batch_that_ansible_drops_ends_the_run_and_lands_nothing(fleet: Fleet) -> None:
    """Only tasks that are not ours can do this. The last play cannot run; the callback still tells."""
    fleet.callback = True
    run = fleet.run("-l", "sbcs", "-e", "flotilla_update=true", scenario={"system_activate": {"pi-1": GONE}})
    assert run.status == 4
    assert run.called("closure_copy") == ["pi-1"]
    assert run.states() == [("updated", ["sbcs"])]
    assert [run.outcome(host) for host in ("pi-1", "pi-2")] == ["failed", "held"]
    assert "The run was broken off: candidates were neither landed nor dropped." in run.output


def test_hosts_that_are_not_there_are_no_failure(fleet: Fleet) -> None:
    scenario = {"system_info": {"*": {"reachable": False, "msg": "no route to host."}, "pi-2": GONE}}
    run = fleet.run("-l", "sbcs", "-e", "flotilla_update=true", scenario=scenario)
    assert run.status == 4, run.output  # Ansible's own, for pi-2
    assert [run.outcome(host) for host in ("pi-1", "pi-2")] == ["deferred", "deferred"]
    assert run.states()[1:] == [("discarded", ["sbcs"])]
    assert "sbcs: candidate dropped (no host was reached); main never had it" in run.output
    del scenario["system_info"]["pi-2"]
    assert fleet.run("-l", "sbcs", scenario=scenario).status == 0


def test_hosts_of_a_group_that_halts_late_go_back_on_demand(fleet: Fleet) -> None:
    extra = "{flotilla_update: true, flotilla_rollback_confirmed: true}"
    run = fleet.run("-l", "sbcs", "-e", extra, scenario={"system_activate": {"pi-2": rolled_back("pi-2")}})
    assert run.status == 2
    assert run.outcome("pi-1") == "rolled back"
    assert run.arguments("system_rollback") == [BACK | {"reason": "its group halted"}]
    assert run.states()[1:] == [("discarded", ["sbcs"])]


def test_a_host_that_cannot_be_brought_back_costs_neither_the_landing_nor_the_report(fleet: Fleet) -> None:
    """A lost connection in a task that runs once: Ansible would drop all hosts, unless it is told not to."""
    scenario = {"system_activate": {"pi-2": rolled_back("pi-2")}, "system_rollback": {"pi-1": lost("pi-1")}}
    run = fleet.run(*UPDATE, "-e", "flotilla_rollback_confirmed=true", scenario=scenario)
    assert run.status == 2, run.output
    assert run.called("system_rollback") == ["pi-1"]
    assert run.states()[1:] == [("accepted", ["servers"])]
    assert run.outcome("pi-1") == "failed"
    assert "pi-1 failed: its group halted, and going back failed: the connection failed: no route to host." in run.output
    assert "sbcs: not landed. pi-1 runs the candidate cccccccccccc, kept as refs/flotilla/candidate/sbcs." in run.output


@pytest.mark.parametrize("failure", [{"outcome": "staged_for_boot"}, {"failed": True, "outcome": "failed", "msg": "pi-1: no."}])
def test_only_what_came_back_counts_as_rolled_back(fleet: Fleet, failure: dict[str, Any]) -> None:
    scenario = {"system_activate": {"pi-2": rolled_back("pi-2")}, "system_rollback": {"pi-1": failure}}
    extra = "{flotilla_update: true, flotilla_rollback_confirmed: true}"
    run = fleet.run("-l", "sbcs", "-e", extra, scenario=scenario)
    assert run.status == 2, run.output
    assert run.outcome("pi-1") == "failed"
    assert run.states()[1:] == []


def test_a_builder_that_goes_away_while_landing_is_in_the_report(fleet: Fleet) -> None:
    run = fleet.run(*UPDATE, scenario={"flake_lock": {"*": {"lost_at": "accepted"}}})
    assert run.status == 2, run.output
    assert "sbcs: the candidate was proven, but did not land: web1: the connection to the builder failed." in run.output
    assert [host for host in ("web1", "web2", "pi-1", "pi-2") if run.recap(host)["failed"]] == ["web1", "pi-1"]


@pytest.mark.parametrize(
    ("answers", "outcome", "states"),
    [
        (True, "rolled back", [("discarded", ["sbcs"])]),
        (False, "failed", []),
    ],
)
@pytest.mark.parametrize("activated", [{"reboot_needed": True}, {"outcome": "staged_for_boot", "guard": None}])
def test_a_reboot_that_fails_after_the_confirmation(
    fleet: Fleet, activated: dict[str, Any], *, answers: bool, outcome: str, states: list[Any]
) -> None:
    """The host runs the new system for good: it goes back if it answers; else the candidate keeps its name."""
    dead = {"failed": True, "outcome": "lost", "unreachable": True, "msg": "pi-1: it did not come back."}
    sick = {"failed": True, "outcome": "rebooted", "msg": "pi-1: it came back, but app.service fails."}
    scenario = {
        "system_activate": {"pi-1": activated},
        "system_reboot": {"pi-1": sick if answers else dead},
        "system_rollback": {"pi-1": {} if answers else lost("pi-1")},
    }
    run = fleet.run("-l", "sbcs", "-e", "flotilla_update=true", scenario=scenario)
    assert run.status == 2, run.output
    assert run.arguments("system_rollback") == [BACK | {"reason": "the rollout failed on it"}]
    assert run.outcome("pi-1") == outcome
    assert run.states()[1:] == states


def test_a_commit_of_two_groups_lands_for_both_or_for_none(fleet: Fleet) -> None:
    same = {"candidate": "e" * 40, "commit": "e" * 40}
    scenario = {
        "flake_lock": {"*": {"override": {"servers": same, "sbcs": same}}},
        "system_activate": {"pi-1": rolled_back("pi-1")},
    }
    run = fleet.run(*UPDATE, scenario=scenario)
    assert run.status == 2
    assert run.states()[1:] == [("discarded", ["sbcs"])]
    assert (
        "servers: not landed (sbcs halted, with which it has its candidate in common). web1, web2 run the candidate eeeeeeeeeeee"
    ) in run.output


def test_nothing_to_do_and_the_resume(fleet: Fleet) -> None:
    right = {
        host: dict.fromkeys(("running", "booted", "profile", "boot_default"), f"/nix/store/{'n' * 32}-nixos-system-{host}")
        for host in ("web1", "web2", "pi-1", "pi-2", "pi-3", "pi-4")
    }
    scenario = {"system_info": right, "flake_build": {"*": {"changed": False}}}
    run = fleet.run(*ALL, scenario=scenario)
    assert run.status == 0, run.output
    assert {name for name, _host, _arguments in run.calls} == {"flake_build", "flake_ledger", "flake_ledger_info", "system_info"}
    assert "Nothing to do: every host runs what it should." in run.output
    assert sum(run.recap(host)["changed"] for host in right) == 0
    del right["pi-3"]
    again = fleet.run(*ALL, scenario=scenario)
    assert again.called("system_activate") == ["pi-3"]
    assert again.status == 0, again.output


def test_check_mode_lands_and_drops_nothing(fleet: Fleet) -> None:
    run = fleet.run(*UPDATE, "--check", "--diff")
    assert run.status == 0, run.output
    assert run.states() == [("updated", ["servers", "sbcs"])]
    assert run.outcome("pi-3") == "planned"
    assert "sbcs: the candidate would be landed on main" in run.output


@pytest.mark.parametrize(
    ("tags", "called"),
    [
        (("--tags", "build"), {"flake_lock", "flake_build"}),
        (("--skip-tags", "lock,confirm"), {"flake_build", "system_info", "closure_copy"}),
    ],
)
def test_tags_run_up_to_a_stage(fleet: Fleet, tags: tuple[str, ...], called: set[str]) -> None:
    run = fleet.run(*UPDATE, *tags)
    assert run.status == 0, run.output
    assert {name for name, _host, _arguments in run.calls} - {"flake_ledger", "flake_ledger_info"} == called


def test_two_rollouts_in_one_run_do_not_mix(fleet: Fleet) -> None:
    (fleet.path / "site.yml").write_text(
        "- ansible.builtin.import_playbook: flotilla.nixos.rollout\n- ansible.builtin.import_playbook: flotilla.nixos.rollout\n"
    )
    run = fleet.run("-l", "servers", playbook="site.yml")
    assert run.status == 0, run.output
    assert run.called("system_activate") == ["web1", "web2"] * 2


def test_a_bad_variable_is_refused_before_anything_runs(fleet: Fleet) -> None:
    run = fleet.run(*ALL, "-e", "flotilla_goal=explode")
    assert run.status == 2
    assert "web1: value of flotilla_goal must be one of" in run.output
    assert run.calls == []


def test_a_variable_that_there_is_not_is_refused_or_warned_of(fleet: Fleet) -> None:
    run = fleet.run(*ALL, "-e", "flotilla_stratgy=group_repos")
    assert run.status == 2
    assert "flotilla_stratgy is no variable of flotilla.nixos; the nearest is flotilla_strategy. Correct the -e" in run.output
    assert run.calls == []
    inventory = fleet.path / "inventory"
    inventory.write_text(f"{inventory.read_text()}flotilla_sereal=1\n")
    run = fleet.run(*ALL, "--tags", "plan")
    assert run.status == 0, run.output
    assert run.output.count("[WARNING]: flotilla_sereal is no variable of flotilla.nixos; the nearest is flotilla_serial.") == 1


def test_hosts_that_are_surely_away_are_not_waited_for(fleet: Fleet) -> None:
    """pi-1 refuses. pi-2 hangs up, pi-3 is behind a jump host, pi-4 has no such name: whether these are there, ssh has to say."""
    with socket.create_server(("127.0.0.1", 0)) as closed, socket.create_server(("127.0.0.1", 0)) as mute:
        port, busy = closed.getsockname()[1], mute.getsockname()[1]
        closed.close()
        threading.Thread(target=hang_up, args=(mute,), daemon=True).start()
        ssh = "ansible_connection=ssh ansible_host=127.0.0.1"
        jump = 'ansible_ssh_common_args="-J nowhere.invalid"'
        hosts = f"pi-1 {ssh} ansible_port={port}\npi-2 {ssh} ansible_port={busy}\npi-3 {ssh} ansible_port={port} {jump}\n"
        hosts += "pi-4 ansible_connection=ssh ansible_host=nobody.invalid\n"
        (fleet.path / "inventory").write_text(f"{INVENTORY}\n[sbcs]\n{hosts}")
        run = fleet.run(*UPDATE)
    assert run.status == 0, run.output
    assert sorted(run.called("system_info")) == ["pi-2", "pi-3", "pi-4", "web1", "web2"]
    outcomes = {host: run.outcome(host) for host in ("web1", "pi-1", "pi-2", "pi-3", "pi-4")}
    assert outcomes == dict.fromkeys(outcomes, "updated") | {"pi-1": "deferred"}
    assert "pi-1 deferred: nothing listens on its ssh port. Check that sshd runs there, and ansible_port." in run.output


def test_no_host_is_given_up_where_ansible_goes_another_way(fleet: Fleet) -> None:
    inventory = INVENTORY.replace("ansible_connection=local", "ansible_host=127.0.0.1\nansible_port=9")
    (fleet.path / "inventory").write_text(inventory)
    run = fleet.run(*ALL, "-c", "local", "--tags", "plan")
    assert sorted(run.called("system_info")) == ["pi-1", "pi-2", "pi-3", "pi-4", "web1", "web2"]


def hang_up(server: socket.socket) -> None:
    """Answer every connection with its end."""
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


def test_a_limit_from_a_file_and_forks(fleet: Fleet) -> None:
    (fleet.path / "late").write_text("pi-2\nweb2\n")
    run = fleet.run("--limit", "@late", "--forks", "1")
    assert run.status == 0, run.output
    assert run.batches() == [["web2", "pi-2"]]
    assert (run.called("system_confirm"), run.outcome("pi-2")) == (["web2", "pi-2"], "updated")
