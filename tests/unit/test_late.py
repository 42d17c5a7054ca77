# SPDX-License-Identifier: GPL-3.0-or-later
"""Which late hosts catch up, which downgrades are refused, and what status says of a group."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.group_status import group_lines, group_status
from ansible_collections.flotilla.nixos.plugins.module_utils.late import at_known_good, choose
from ansible_collections.flotilla.nixos.plugins.module_utils.outcome import Outcome
from ansible_collections.flotilla.nixos.plugins.module_utils.planning import Findings, Pace, make_plan
from ansible_collections.flotilla.nixos.plugins.module_utils.rollout_record import beginnings, failures, rollbacks

GOOD, NEW = "a" * 40, "b" * 40
SINCE = "2026-11-20T08:00:00Z"
SBCS = {"name": "sbcs", "hosts": [{"name": "pi-1"}, {"name": "pi-2"}]}
SERVERS = {"name": "servers", "hosts": [{"name": "web1"}]}


def missed(*hosts: str) -> list[dict[str, Any]]:
    return [{"host": host, "since": SINCE, "missed": 2, "reason": "no route to host"} for host in hosts]


def standing(*late: str, good: str | None = GOOD, **more: Any) -> dict[str, Any]:
    proof = {"commit": good, "proven": SINCE, "since": SINCE, "systems": {}} if good else None
    return {"known_good": proof, "known_good_ref": good, "soaking": None, "deferred": missed(*late), "rollouts": [], **more}


SOAKS = {"commit": NEW, "proven": SINCE, "since": "2026-11-22T08:00:00Z"}


@pytest.mark.parametrize(
    ("ledger", "inventory", "hosts", "line"),
    [
        pytest.param({"sbcs": standing()}, "pi-1 pi-2", [], "No host is late.", id="nobody"),
        pytest.param(
            {"sbcs": standing("pi-1")},
            "pi-1 pi-2",
            ["pi-1"],
            f"sbcs: pi-1 is late since {SINCE}, and gets aaaaaaaaaaaa, which sbcs has proven",
            id="late",
        ),
        pytest.param(
            {"sbcs": standing("pi-9")},
            "pi-1 pi-2",
            [],
            f"sbcs: pi-9 is late since {SINCE}, and no longer in the inventory",
            id="gone",
        ),
        pytest.param({"sbcs": standing("pi-3")}, "pi-1 pi-2 pi-3", [], "No host is late.", id="outside the limit"),
        pytest.param(
            {"sbcs": standing("pi-1", good=None)},
            "pi-1 pi-2",
            [],
            f"sbcs: pi-1 is late since {SINCE}, and waits: sbcs has proven no commit yet. Roll out its branch first",
            id="nothing proven",
        ),
        pytest.param(
            {"sbcs": standing("pi-1", good=None, soaking=SOAKS)},
            "pi-1 pi-2",
            [],
            f"sbcs: pi-1 is late since {SINCE}, and waits: "
            f"sbcs has proven no commit yet; bbbbbbbbbbbb soaks until 2026-11-22T08:00:00Z",
            id="soaking",
        ),
        pytest.param(
            {"sbcs": standing("pi-1", warnings=["sbcs: its known-good commit is not in the repository."], known_good_ref=NEW)},
            "pi-1 pi-2",
            [],
            f"sbcs: pi-1 is late since {SINCE}, and waits: sbcs: its known-good commit is not in the repository.",
            id="known-good is elsewhere",
        ),
        pytest.param(
            {"sbcs": standing("pi-1", warnings=["sbcs: origin did not take it."], known_good_ref=GOOD)},
            "pi-1 pi-2",
            ["pi-1"],
            f"sbcs: pi-1 is late since {SINCE}, and gets aaaaaaaaaaaa, which sbcs has proven",
            id="known-good is here, and the remote did not take it",
        ),
        pytest.param(
            {"sbcs": {"failed": True, "msg": "sbcs: there is no repository /gone."}, "servers": standing()},
            "pi-1 pi-2",
            [],
            "sbcs: nobody knows who is late: there is no repository /gone.",
            id="a ledger that cannot be read",
        ),
        pytest.param(
            {"sbcs": standing(good=NEW), "servers": standing("pi-1", good=GOOD)},
            "pi-1 pi-2 web1",
            ["pi-1"],
            f"servers: pi-1 is late since {SINCE}, and gets bbbbbbbbbbbb, which sbcs has proven",
            id="moved to another group since",
        ),
    ],
)
def test_who_catches_up(ledger: dict[str, Any], inventory: str, hosts: list[str], line: str) -> None:
    late = choose([SBCS, SERVERS], ledger, set(inventory.split()))
    assert (late.hosts, late.lines) == (hosts, [line])


def test_what_is_proven_cannot_land() -> None:
    found = at_known_good([SBCS, SERVERS], {"sbcs": standing()})
    assert (found["sbcs"]["commit"], found["sbcs"]["candidate"], found["sbcs"]["failed"]) == (GOOD, None, False)
    assert found["servers"]["failed"]
    assert found["servers"]["msg"] == "servers: servers has proven no commit yet. Roll out its branch first."


def plan_of(running: str, ahead: dict[str, Any], locked: dict[str, Any] | None = None) -> Any:
    """A plan for two hosts: pi-2 runs /old, pi-1 something else."""
    places = ("running", "profile", "boot_default")
    built = {"sbcs": {"commit": GOOD, "hosts": {host: {"system": "/new"} for host in ("pi-1", "pi-2")}}}
    info = {"pi-1": dict.fromkeys(places, running), "pi-2": dict.fromkeys(places, "/old")}
    findings = Findings([SBCS], locked or {}, built, info, ahead=ahead)
    return make_plan(findings, {"sbcs": Pace([1, "100%"], 0)})


RAN = {"commit": NEW, "time": SINCE, "ahead": True}


@pytest.mark.parametrize(
    ("running", "ahead", "outcome", "reason"),
    [
        pytest.param("/newer", {}, None, "", id="nothing is known of it"),
        pytest.param(
            "/newer",
            {"pi-1": RAN},
            Outcome.HELD,
            f"it runs commit bbbbbbbbbbbb, rolled out {SINCE}, which aaaaaaaaaaaa comes before: this would be a downgrade.",
            id="a downgrade",
        ),
        pytest.param(
            "/newer",
            {"pi-1": RAN | {"ahead": None}},
            Outcome.HELD,
            f"it runs commit bbbbbbbbbbbb, rolled out {SINCE}, which this repository does not have: this may be a downgrade.",
            id="from another controller",
        ),
        pytest.param("/new", {"pi-1": RAN}, Outcome.UNCHANGED, "", id="another commit, the same system"),
    ],
)
def test_downgrades_are_held_and_halt_nobody(running: str, ahead: dict[str, Any], outcome: Outcome | None, reason: str) -> None:
    plan = plan_of(running, ahead)
    assert plan.hosts["pi-1"].outcome is outcome
    assert plan.hosts["pi-1"].reason.startswith(reason)
    assert ("flotilla_allow_downgrade=true" in plan.hosts["pi-1"].reason) is (outcome is Outcome.HELD)
    assert plan.hosts["pi-2"].outcome is None


def test_a_group_that_could_not_be_checked_for_downgrades_says_so() -> None:
    findings = Findings([SBCS], {}, {}, {}, unchecked={"sbcs": "its repository is gone."})
    told = "not checked for downgrades, as the ledger could not be read: its repository is gone"
    assert list(make_plan(findings, {"sbcs": Pace([1], 0)}).groups["sbcs"].notes) == [told]
    assert list(plan_of("/new", {}).groups["sbcs"].notes) == []


def test_what_is_recorded_before_hosts_are_touched() -> None:
    [begun] = beginnings(plan_of("/new", {}, {"sbcs": {"known_good": True}}))
    assert (begun["group"], begun["commit"], begun["source"]) == ("sbcs", GOOD, "known_good")
    assert {host["name"]: host["result"] for host in begun["hosts"]} == {"pi-1": "unchanged", "pi-2": "planned"}
    [failed] = failures([SBCS], "there is no nix")
    assert (failed["touched"], failed["reason"], failed["hosts"][0]["result"]) == (False, "there is no nix", "failed")


@pytest.mark.parametrize(
    ("result", "outcome", "system", "previous"),
    [
        ({"outcome": "rolled_back", "changed": True, "system": "/old", "previous": "/new"}, "rolled_back", "/new", "/old"),
        ({"outcome": "staged_for_boot", "changed": True, "system": "/old", "previous": "/new"}, "rolled_back", "/new", "/old"),
        ({"outcome": "failed", "failed": True, "system": "/old", "previous": "/new"}, "failed", "/new", None),
        ({"failed": True, "unreachable": True, "msg": "pi-1: no route to host."}, "failed", None, None),
    ],
)
def test_what_is_recorded_of_a_rollback(result: dict[str, Any], outcome: str, system: str | None, previous: str | None) -> None:
    [found] = rollbacks([SBCS, SERVERS], {"pi-1": result, "web1": {"outcome": "unchanged"}}, "it is slow")
    assert (found["group"], found["rollback"], found["reason"]) == ("sbcs", True, "it is slow")
    [host] = found["hosts"]
    assert (host["result"], host["system"], host["previous"]) == (outcome, system, previous)


def test_what_status_says_of_a_group() -> None:
    last = {
        "id": "r1",
        "outcome": "halted",
        "reason": "pi-1 rolled back in batch 1",
        "commit": NEW,
        "source": "candidate",
        "by": {"user": "anna", "controller": "desk"},
        "started": SINCE,
        "ended": "2026-11-20T08:05:00Z",
        "hosts": {},
    }
    holds = [
        {"input": "nixpkgs", "reason": "the modem fails on 6.12", "until": "2026-12-24"},
        {"input": None, "reason": "the fair", "until": "2026-11-01"},
    ]
    status = group_status(SBCS | {"holds": holds}, standing("pi-2", soaking=SOAKS, rollouts=[last]), 1763683200)
    assert group_lines([status]) == [
        "  sbcs: known-good aaaaaaaaaaaa (2026-11-20 08:00)",
        "    soaking: bbbbbbbbbbbb (2026-11-20 08:00), known-good from 2026-11-22 08:00",
        "    last rollout: halted of bbbbbbbbbbbb (candidate) at 2026-11-20 08:05 by anna@desk: pi-1 rolled back in batch 1",
        "    late: pi-2 since 2026-11-20 08:00, missed 2 rollouts (no route to host)",
        "    held: nixpkgs until 2026-12-24: the modem fails on 6.12",
        "    held: the whole group until 2026-11-01: the fair",
        "",
    ]
    part = {"commit": NEW, "systems": {"pi-1": "/new"}, "missing": {"pi-2": GOOD}}
    assert group_lines([group_status(SBCS, standing(growing=part), 0)])[1] == (
        "    partly rolled out: bbbbbbbbbbbb runs on pi-1, not yet on pi-2"
    )
    later = group_status(SBCS | {"holds": holds[1:]}, {}, 1795219200)
    assert group_lines([later]) == [
        "  sbcs: known-good none yet",
        "    held: the whole group expired 2026-11-01, so it holds no longer: the fair",
        "",
    ]
