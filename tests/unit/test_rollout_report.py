# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning from findings, and what the user gets to read: plan, result, status, comparison."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import nix, system_diff
from ansible_collections.flotilla.nixos.plugins.module_utils.conclusion import Conclusion, Landing, conclude_report
from ansible_collections.flotilla.nixos.plugins.module_utils.fleet_status import Standing, host_status, status_lines
from ansible_collections.flotilla.nixos.plugins.module_utils.gate import Plan, conclude_all, final_outcomes
from ansible_collections.flotilla.nixos.plugins.module_utils.outcome import HostOutcome, Outcome
from ansible_collections.flotilla.nixos.plugins.module_utils.planning import Findings, Pace, make_plan
from ansible_collections.flotilla.nixos.plugins.module_utils.report import outcome_lines, plan_lines, system_name
from ansible_collections.flotilla.nixos.plugins.module_utils.system_diff import compare, together
from fakes import FakeRunner, Step

OLD, NEW = "/nix/store/oooooooooooo-nixos-system-x-1", "/nix/store/nnnnnnnnnnnn-nixos-system-x-2"
RUNS_OLD = {"reachable": True, "running": OLD, "profile": OLD, "boot_default": OLD, "guard": None, "platform": "x86_64-linux"}
RUNS_NEW = RUNS_OLD | {"running": NEW, "profile": NEW, "boot_default": NEW}
GOOD = {"system": NEW, "failed": False, "platform": "x86_64-linux"}
BROKEN = {"system": None, "failed": True, "error": "x: no such option."}
LOCK = {"failed": False, "commit": "c" * 40, "base": "b" * 40, "candidate": "c" * 40, "branch": "main"}
MOVE = {"input": "nixpkgs", "old": {"rev": "1" * 40, "lastModified": 1762041600}, "new": {"rev": "2" * 40}}


def plan_of(
    info: dict[str, Any], built: dict[str, Any], lock: dict[str, Any] | None = None, percentage: float = 0, **group: Any
) -> Plan:
    groups = [{"name": "g", "hosts": [{"name": name} for name in info]}]
    builds = {"failed": any(b.get("failed") for b in built.values()), "commit": "c" * 40, "hosts": built, **group}
    locked = {"g": lock} if lock else {}
    return make_plan(Findings(groups, locked, {"g": builds}, info), {"g": Pace([1, "100%"], percentage)})


@pytest.mark.parametrize(
    ("info", "build", "outcome", "reason"),
    [
        (RUNS_OLD, GOOD, None, ""),
        (RUNS_NEW, GOOD, Outcome.UNCHANGED, ""),
        (RUNS_NEW | {"boot_default": None}, GOOD, Outcome.UNCHANGED, ""),
        (RUNS_NEW | {"boot_default": OLD}, GOOD, None, ""),
        (RUNS_NEW | {"profile": OLD}, GOOD, None, ""),
        (RUNS_NEW | {"guard": {"id": "1"}}, GOOD, None, ""),
        (RUNS_NEW | {"reboot_wanted": True}, GOOD, None, ""),
        ({"reachable": False, "msg": "x: no route."}, GOOD, Outcome.DEFERRED, "no route."),
        ({}, GOOD, Outcome.DEFERRED, "it could not be reached"),
        ({"failed": True, "msg": "x: no sudo."}, GOOD, Outcome.FAILED, "no sudo."),
        (
            RUNS_OLD | {"platform": "aarch64-linux"},
            GOOD,
            Outcome.FAILED,
            "its system is for x86_64-linux, and the host is aarch64",
        ),
        (RUNS_OLD, BROKEN, Outcome.FAILED, "no such option."),
    ],
)
def test_what_is_known_of_a_host_before_anything_is_touched(
    info: dict[str, Any], build: dict[str, Any], outcome: Outcome | None, reason: str
) -> None:
    host = plan_of({"x": info}, {"x": build}).hosts["x"]
    assert host.outcome is outcome
    assert host.reason.startswith(reason)


def test_a_group_is_held_if_a_host_does_not_build_also_outside_the_limit() -> None:
    inside = plan_of({"x": RUNS_OLD, "y": RUNS_OLD}, {"x": BROKEN, "y": GOOD})
    assert (inside.hosts["y"].outcome, inside.hosts["y"].reason) == (
        Outcome.HELD,
        "g halted: x failed before anything was touched",
    )
    assert inside.batches == []
    tolerant = plan_of({"x": RUNS_OLD, "y": RUNS_OLD}, {"x": BROKEN, "y": GOOD}, percentage=50)
    assert tolerant.batches == [["y"]]
    outside = plan_of({"y": RUNS_OLD}, {"x": BROKEN, "y": GOOD}, LOCK)
    assert outside.hosts["y"].reason == "x, outside the limit, would not build any more (x: no such option.)"


def test_the_plan_in_words() -> None:
    info = {"a": RUNS_OLD, "b": RUNS_NEW, "c": {"reachable": False, "msg": "c: no route."}, "d": RUNS_OLD}
    plan = plan_of(info, dict.fromkeys(info, GOOD), LOCK | {"changes": [MOVE]})
    assert plan_lines(plan) == [
        "",
        "Rollout plan",
        "  g: 4 hosts at cccccccccccc (candidate on main)",
        "    nixpkgs 2025-11-02 (1111111) → 2222222",
        "    unchanged: b",
        "    c deferred: no route.",
        "  batch 1: a",
        "  batch 2: d",
        "",
    ]


def test_the_end_in_words() -> None:
    plan = plan_of({"a": RUNS_OLD, "b": RUNS_OLD, "c": RUNS_OLD}, dict.fromkeys("abc", GOOD), LOCK)
    known = {
        "a": HostOutcome("a", Outcome.UPDATED),
        "b": HostOutcome("b", Outcome.ROLLED_BACK, "app.service fails."),
        "c": HostOutcome("c", Outcome.UPDATED),
    }
    outcomes = final_outcomes(plan, known)
    verdict = {
        "outcomes": {name: asdict(outcome) for name, outcome in outcomes.items()},
        "results": [asdict(conclude_all(plan, outcomes, land=True)["g"])],
    }
    end = conclude_report(plan, verdict, Landing({}, {}))
    assert Conclusion.from_dict(asdict(end)) == end
    assert end.bad == {"b": "b rolled back: app.service fails."}
    assert outcome_lines(plan, end, {"a": 1.25}) == [
        "",
        "Rollout result",
        "  host  group  outcome      system                                                 seconds",
        "  a     g      updated      oooooooo-nixos-system-x-1 → nnnnnnnn-nixos-system-x-2  1.2",
        "  b     g      rolled back  oooooooo-nixos-system-x-1                              -",
        "  c     g      updated      oooooooo-nixos-system-x-1 → nnnnnnnn-nixos-system-x-2  -",
        "  b rolled back: app.service fails.",
        "  g: not landed. a, c run the candidate cccccccccccc, kept as refs/flotilla/candidate/g. "
        "To go back: ansible-playbook flotilla.nixos.rollback -l a,c",
        "",
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [(NEW, "nnnnnnnn-nixos-system-x-2"), (None, "-"), ("/nix/store/odd", "odd")],
)
def test_system_name(path: str | None, name: str) -> None:
    assert system_name(path) == name


@pytest.mark.parametrize(
    ("info", "build", "standing", "note"),
    [
        (RUNS_NEW, GOOD, Standing.CURRENT, ""),
        (RUNS_NEW | {"boot_default": None}, GOOD, Standing.CURRENT, ""),
        (RUNS_OLD, GOOD, Standing.BEHIND, ""),
        (RUNS_NEW | {"profile": OLD}, GOOD, Standing.PENDING, ""),
        (RUNS_OLD | {"guard": {"id": "1"}}, GOOD, Standing.PENDING, ""),
        (RUNS_NEW, BROKEN, Standing.UNKNOWN, "no such option."),
        ({"reachable": False, "msg": "x: no route."}, GOOD, Standing.UNREACHABLE, "no route."),
        ({"failed": True, "msg": "x: no sudo."}, GOOD, Standing.FAILED, "no sudo."),
    ],
)
def test_status(info: dict[str, Any], build: dict[str, Any], standing: Standing, note: str) -> None:
    status = host_status("x", "g", build, {"lock_age": 12.4}, info)
    assert (status.standing, status.note) == (standing, note)


def test_the_age_is_that_of_the_hosts_own_lock() -> None:
    locks = {"locks/x.lock": {"hosts": ["x"], "age": 3.0}, "locks/y.lock": {"hosts": ["y"], "age": None}}
    ages = [host_status(host, "g", GOOD, {"lock_age": 40.0, "locks": locks}, {}).lock_age for host in "xyz"]
    assert ages == [3.0, None, 40.0]


def test_the_status_in_words() -> None:
    info = RUNS_OLD | {"since": 1762041600, "reboot_needed": True, "failed_units": ["app.service"]}
    found = [host_status("x", "g", GOOD, {"lock_age": 12.4}, info), host_status("y", "g", GOOD, {}, {})]
    assert status_lines(found) == [
        "",
        "  host  group  state        runs                       since             lock  reboot  failed units",
        "  x     g      behind       oooooooo-nixos-system-x-1  2025-11-02 00:00  12 d  needed  app.service",
        "  y     g      unreachable  -                          -                 -     -       -",
        "  x: should run nnnnnnnn-nixos-system-x-2",
        "  y: it could not be reached",
        "",
    ]


def test_hosts_with_the_same_changes_share_a_heading() -> None:
    assert together({"a": ["x"], "b": ["y"], "c": ["x"]}) == ["a, c:", "  x", "b:", "  y"]


#: What the look at a system prints: units, where they lie, and where kernel and the like lie.
LOOKS = {
    OLD: "app.service app.service.d multi-user.target.wants old.timer -- /o/app /o/app.d /o/wants /o/timer -- /k1 /i /m quiet",
    NEW: "app.service app.service.d multi-user.target.wants new.timer -- /o/app /n/app.d /n/wants /n/timer -- /k2 /i /m quiet",
}


def test_two_systems_compared() -> None:
    argv = ["sh", "-eu", "-c", system_diff._LOOK, "sh"]
    colored = "curl: 8.14.0 → 8.14.1, \x1b[31;1m+1.0 KiB\x1b[0m\nnixos-system-x: 1 → 2\n"
    runner = FakeRunner(
        Step(["nix-store", "--check-validity", "--print-invalid", OLD, NEW]),
        Step(nix.nix_argv("store", "diff-closures", OLD, NEW), colored),
        *(Step([*argv, system], look.replace(" ", "\n")) for system, look in LOOKS.items()),
    )
    assert compare(runner, "x", OLD, NEW) == [
        "curl: 8.14.0 → 8.14.1, +1.0 KiB",
        "units that change: app.service",
        "units that are new: new.timer",
        "units that go: old.timer",
        "needs a reboot: kernel",
    ]
    runner.done()
