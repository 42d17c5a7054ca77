# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's lines, and what follows from them: what is known-good, what soaks, and who is late."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.durations import seconds
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import (
    Ending,
    HostRecord,
    Proof,
    Rollout,
    Source,
    deferred,
    ending,
    growing,
    in_order,
    is_news,
    known_good,
    last_ran,
    origins,
    parse_line,
    proofs,
    soaking,
    to_line,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.outcome import Outcome
from hypothesis import given
from hypothesis import strategies as st

DAY = 86400


def rollout(
    at: int,
    commit: str,
    hosts: Mapping[str, str] | None = None,
    *,
    soak: int = 0,
    goal: str = "switch",
    source: str = "head",
    group: str = "sbcs",
    halted: bool = False,
    touched: bool = True,
    systems: str | None = None,
    name: str | None = None,
    outcome: str | None = None,
    **more: Any,
) -> Rollout:
    """A rollout of ten seconds that ended at a time. systems: what the hosts were to get, by the commit otherwise."""
    found = {
        host: HostRecord(Outcome(result), f"/nix/store/{systems or commit}-{host}", None, at)
        for host, result in (hosts or {"pi-1": "updated"}).items()
    }
    return Rollout(
        id=name or f"r{at}",
        group=group,
        commit=commit,
        source=Source(source),
        goal=goal,
        outcome=Ending(outcome or ending([host.result for host in found.values()], goal, halted=halted, touched=touched)),
        started=at - 10,
        ended=at,
        hosts=found,
        soak=soak,
        **more,
    )


@pytest.mark.parametrize(
    ("results", "goal", "halted", "touched", "outcome"),
    [
        ("updated unchanged rebooted", "switch", False, True, "complete"),
        ("updated deferred", "switch", False, True, "complete"),
        ("updated", "boot", False, True, "complete"),
        ("updated staged", "boot", False, True, "staged"),
        ("updated failed", "switch", False, True, "partial"),
        ("updated rolled_back", "switch", False, True, "partial"),
        ("updated held", "switch", False, True, "partial"),
        ("updated failed held", "switch", True, True, "halted"),
        ("deferred held", "switch", True, True, "halted"),
        ("failed held", "switch", True, False, "not_started"),
        ("unchanged held", "switch", False, False, "not_started"),
        ("failed", "switch", False, False, "not_started"),
        ("deferred deferred", "switch", False, True, "unreached"),
        ("", "switch", False, True, "unreached"),
        ("planned", "switch", False, True, "unfinished"),
        ("updated copied", "switch", False, True, "unfinished"),
        ("updated", "test", False, True, "unfinished"),
        ("planned", "dry-activate", False, True, "unfinished"),
    ],
)
def test_how_a_rollout_ended(results: str, goal: str, halted: bool, touched: bool, outcome: str) -> None:
    found = [Outcome(result) for result in results.split()]
    assert ending(found, goal, halted=halted, touched=touched) == outcome


BAD = {"pi-1": "updated", "pi-2": "rolled_back"}
TWO = {"pi-1": "updated", "pi-2": "updated"}
SAME = {"pi-1": "unchanged", "pi-2": "unchanged"}
PLAN = {"pi-1": "planned", "pi-2": "unchanged"}
LATE = {"pi-1": "unchanged", "pi-2": "deferred"}


@pytest.mark.parametrize(
    ("lines", "now", "good", "since"),
    [
        pytest.param([], 100, None, None, id="an empty ledger"),
        pytest.param([rollout(100, "A")], 100, "A", 100, id="no soak"),
        pytest.param([rollout(100, "A", soak=50)], 149, None, None, id="the soak is not over"),
        pytest.param([rollout(100, "A", soak=50)], 150, "A", 150, id="the soak is over"),
        pytest.param([rollout(100, "A"), rollout(200, "B", soak=50)], 249, "A", 100, id="the one before, while the next soaks"),
        pytest.param([rollout(100, "A"), rollout(200, "B", soak=50)], 250, "B", 250, id="the next"),
        pytest.param(
            [rollout(100, "A", soak=200), rollout(200, "B", soak=50)], 999, "B", 250, id="left before its soak was over"
        ),
        pytest.param([rollout(100, "A", TWO | {"pi-3": "deferred"})], 100, "A", 100, id="late hosts do not count"),
        pytest.param([rollout(100, "A", BAD)], 999, None, None, id="a host was rolled back"),
        pytest.param([rollout(100, "A", {"pi-1": "staged"}, goal="boot")], 999, None, None, id="nobody has booted it"),
        pytest.param([rollout(100, "A", goal="test")], 999, None, None, id="only tested"),
        pytest.param([rollout(100, "A", source="worktree")], 999, None, None, id="no commit has it"),
        pytest.param([rollout(100, "A", group="servers")], 999, None, None, id="another group"),
        pytest.param([rollout(100, "A", TWO, soak=50), rollout(120, "A", BAD)], 999, None, None, id="rolled back in the soak"),
        pytest.param([rollout(100, "A", TWO, soak=50), rollout(200, "A", BAD)], 999, "A", 150, id="rolled back after the soak"),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "A", BAD), rollout(130, "A", TWO, soak=50)],
            999,
            "A",
            180,
            id="rolled back in the soak, and proven again",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "B", {"pi-1": "rolled_back", "pi-2": "held"}, halted=True)],
            150,
            "A",
            150,
            id="another commit that failed and left all hosts where they were",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "B", BAD)], 999, None, None, id="another commit that moved a host"
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "A", {"pi-1": "failed", "pi-2": "held"}, touched=False)],
            150,
            "A",
            150,
            id="an upstream that did not answer",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "A", {"pi-1": "deferred", "pi-2": "deferred"})],
            150,
            "A",
            150,
            id="nobody there",
        ),
        pytest.param([rollout(100, "A", TWO, soak=50), rollout(120, "A", SAME, soak=50)], 150, "A", 150, id="run again"),
        pytest.param([rollout(100, "A", TWO, soak=50), rollout(120, "A", SAME, soak=5)], 120, "A", 120, id="a shorter soak now"),
        pytest.param(
            [rollout(100, "A", TWO, soak=5), rollout(120, "A", SAME, soak=50)], 120, "A", 105, id="a longer one too late"
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "B", SAME, soak=50, systems="A")],
            150,
            "B",
            150,
            id="a commit that changes nothing for the group",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "B", {"pi-1": "unchanged"}, soak=50, systems="A")],
            999,
            "A",
            150,
            id="a commit of which too little was seen",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "A", BAD, source="worktree")],
            999,
            None,
            None,
            id="a work tree on that commit that moved a host",
        ),
        pytest.param([rollout(100, "A"), rollout(100, "A")], 999, "A", 100, id="the same line twice"),
        pytest.param(
            [rollout(100, "A", TWO), rollout(200, "B", SAME, soak=50), rollout(300, "A", BAD)],
            250,
            "B",
            250,
            id="a commit that was deployed by hand",
        ),
        pytest.param(
            [rollout(100, "A"), rollout(200, "B", soak=50), rollout(220, "A", {"pi-3": "updated"}, source="known_good")],
            250,
            "B",
            250,
            id="a late host that caught up, while the next soaks",
        ),
        pytest.param(
            [rollout(100, "A"), rollout(200, "B", soak=50), rollout(220, "A", source="known_good")],
            999,
            "A",
            220,
            id="a host that went back to it",
        ),
        pytest.param([rollout(100, "A", PLAN, outcome="broken_off")], 999, None, None, id="broken off"),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "B", PLAN, outcome="broken_off")],
            999,
            None,
            None,
            id="another that was broken off in the soak",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(200, "B", PLAN, outcome="broken_off")],
            999,
            "A",
            150,
            id="another that was broken off after the soak",
        ),
        pytest.param(
            [
                rollout(100, "A", TWO, soak=50),
                rollout(120, "A", {"pi-3": "planned"}, outcome="broken_off", source="known_good"),
            ],
            150,
            "A",
            150,
            id="a late host whose catching up was broken off",
        ),
        pytest.param(
            [rollout(90, "A", PLAN, outcome="broken_off", name="r100"), rollout(100, "A", TWO)],
            100,
            "A",
            100,
            id="begun and ended",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "A", {"pi-1": "rolled_back"}, outcome="rolled_back")],
            999,
            None,
            None,
            id="brought back on demand in the soak",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(120, "H", {"pi-1": "rolled_back"}, outcome="rolled_back")],
            999,
            None,
            None,
            id="brought back on demand, from who knows what",
        ),
        pytest.param(
            [rollout(100, "A", TWO, soak=50), rollout(160, "A", {"pi-1": "rolled_back"}, outcome="rolled_back")],
            999,
            "A",
            150,
            id="brought back on demand after the soak",
        ),
    ],
)
def test_known_good(lines: list[Rollout], now: int, good: str | None, since: int | None) -> None:
    proof = known_good(lines, "sbcs", now)
    assert (proof.commit, proof.good_from) == (good, since) if proof else (good, since) == (None, None)


def test_the_systems_of_known_good() -> None:
    lines = [rollout(100, "A", {"pi-1": "updated", "pi-2": "deferred"}), rollout(200, "A", {"pi-2": "updated"})]
    proof = known_good(lines, "sbcs", 200)
    assert proof == Proof("sbcs", "A", 100, 0, {"pi-1": "/nix/store/A-pi-1", "pi-2": "/nix/store/A-pi-2"})


C0, C1 = {"c0": "updated"}, {"c1": "updated"}
RING = {"c0": "updated", "c1": "updated", "c2": "updated"}
ALL_A = rollout(100, "A", RING)


@pytest.mark.parametrize(
    ("lines", "good", "proven", "missing"),
    [
        pytest.param([ALL_A, rollout(200, "B", C0)], "A", 100, {"c1": "A", "c2": "A"}, id="one of three"),
        pytest.param([ALL_A, rollout(200, "B", C0), rollout(300, "B", C1)], "A", 100, {"c2": "A"}, id="two of three"),
        pytest.param(
            [ALL_A, rollout(200, "B", C0), rollout(300, "B", C1), rollout(400, "B", {"c2": "updated"})],
            "B",
            400,
            None,
            id="one after the other",
        ),
        pytest.param([ALL_A, rollout(200, "B", C0), rollout(300, "B", C0)], "A", 100, {"c1": "A", "c2": "A"}, id="one, again"),
        pytest.param([ALL_A, rollout(200, "B", C0), rollout(300, "B", RING)], "B", 300, None, id="one, then all"),
        pytest.param(
            [ALL_A, rollout(200, "B", C0), rollout(300, "A", C0)], "A", 300, None, id="brought back, so that all run A again"
        ),
        pytest.param(
            [ALL_A, rollout(200, "B", C0), rollout(300, "B", {"c0": "unchanged", "c1": "updated", "c2": "deferred"})],
            "B",
            300,
            None,
            id="the last one was not there",
        ),
        pytest.param(
            [ALL_A, rollout(200, "B", RING | {"c2": "rolled_back"}), rollout(300, "B", C0)],
            "A",
            100,
            {"c2": "A"},
            id="the one that was rolled back is left out",
        ),
        pytest.param(
            [ALL_A, rollout(200, "B", RING | {"c2": "rolled_back"}), rollout(300, "B", {"c2": "updated"})],
            "B",
            300,
            None,
            id="the one that was rolled back has come to it",
        ),
        pytest.param(
            [rollout(200, "B", RING | {"c2": "held"}), rollout(300, "B", C0)],
            None,
            None,
            {"c2": None},
            id="one was held from the start",
        ),
        pytest.param(
            [
                ALL_A,
                rollout(200, "B", {"c0": "failed", "c1": "failed", "c2": "failed"}, touched=False),
                rollout(300, "B", C0 | C1),
            ],
            "A",
            100,
            {"c2": "A"},
            id="what failed before hosts were touched left them where they were",
        ),
        pytest.param(
            [ALL_A, rollout(200, "S", {"c1": "updated", "c2": "updated"}, group="servers"), rollout(300, "B", C0)],
            "B",
            300,
            None,
            id="the others have moved to another group",
        ),
        pytest.param(
            [ALL_A, rollout(200, "S", {"c1": "updated", "c2": "failed"}, group="servers"), rollout(300, "B", C0)],
            "A",
            100,
            {"c2": "A"},
            id="only one has arrived in the other group",
        ),
        pytest.param(
            [ALL_A, rollout(200, "B", C0, members=frozenset({"c0"}))], "B", 200, None, id="the others have left the inventory"
        ),
        pytest.param(
            [ALL_A, rollout(200, "B", C0, members=frozenset({"c0", "c1"})), rollout(300, "B", C1)],
            "B",
            300,
            None,
            id="one has left, the other has come",
        ),
        pytest.param(
            [
                ALL_A,
                rollout(200, "B", C0, members=frozenset({"c0", "c1"})),
                rollout(300, "A", {"c0": "deferred"}, members=frozenset(RING)),
                rollout(400, "B", C0 | C1),
            ],
            "A",
            100,
            {"c2": "A"},
            id="one has left and come back",
        ),
        pytest.param(
            [ALL_A, rollout(200, "B", C0), rollout(300, "B", {"c1": "unchanged", "c2": "unchanged"}, systems="A")],
            "B",
            300,
            None,
            id="for the others nothing changes",
        ),
        pytest.param(
            [ALL_A, rollout(200, "B", C0), rollout(300, "B", {"c1": "updated", "c2": "updated"}, goal="test")],
            "A",
            100,
            {"c1": None, "c2": None},
            id="the others only test it",
        ),
        pytest.param(
            [
                ALL_A,
                rollout(200, "B", C0, systems="A"),
                rollout(300, "A", {"c1": "failed"}),
                rollout(400, "A", {"c1": "updated"}),
            ],
            "A",
            400,
            None,
            id="a commit that changes nothing for one does not take it elsewhere",
        ),
    ],
)
def test_parts_of_a_group_add_up(
    lines: list[Rollout], good: str | None, proven: int | None, missing: dict[str, str] | None
) -> None:
    proof, part = known_good(lines, "sbcs", 999), growing(lines, "sbcs")
    assert (proof and proof.commit, proof and proof.proven) == (good, proven)
    assert (part and part.missing) == missing
    if proof is not None and missing is None:
        assert proof.systems["c0"] == f"/nix/store/{proof.commit}-c0"


def test_the_soak_begins_with_the_last_host() -> None:
    parts = [rollout(at, "B", {host: "updated"}, soak=50) for at, host in ((200, "c0"), (300, "c1"), (400, "c2"))]
    found = [known_good([ALL_A, *parts], "sbcs", now) for now in (399, 449, 450)]
    assert [proof and (proof.commit, proof.good_from) for proof in found] == [("A", 100), ("A", 100), ("B", 450)]
    assert found[-1] is not None
    assert set(found[-1].systems) == set(RING)
    assert soaking([ALL_A, *parts[:2]], "sbcs", 300) is None
    left_in_its_soak = [rollout(100, "A", RING, soak=500), *parts]
    assert known_good(left_in_its_soak, "sbcs", 449) is None


def test_what_soaks() -> None:
    lines = [rollout(100, "A", soak=DAY)]
    found = soaking(lines, "sbcs", 200)
    assert found is not None
    assert (found.commit, found.good_from) == ("A", 100 + DAY)
    assert soaking(lines, "sbcs", 100 + DAY) is None
    assert soaking([*lines, rollout(200, "A", {"pi-1": "failed"})], "sbcs", 200) is None


@pytest.mark.parametrize(
    ("lines", "late"),
    [
        pytest.param([rollout(100, "A", TWO)], {}, id="nobody"),
        pytest.param([rollout(100, "A", {"pi-1": "deferred"})], {"pi-1": (90, "A", 1)}, id="missed once"),
        pytest.param(
            [rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "B", {"pi-1": "deferred", "pi-2": "updated"})],
            {"pi-1": (90, "B", 2)},
            id="missed twice",
        ),
        pytest.param([rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "B", {"pi-1": "updated"})], {}, id="updated"),
        pytest.param([rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "B", {"pi-1": "unchanged"})], {}, id="was right"),
        pytest.param(
            [rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "B", {"pi-1": "staged"}, goal="boot")], {}, id="staged"
        ),
        pytest.param(
            [rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "B", {"pi-1": "updated"}, goal="test")],
            {"pi-1": (90, "A", 1)},
            id="only tested",
        ),
        pytest.param(
            [rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "B", {"pi-1": "rolled_back"})],
            {"pi-1": (90, "A", 1)},
            id="there, but rolled back",
        ),
        pytest.param(
            [rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "B", {"pi-2": "updated"})],
            {"pi-1": (90, "A", 1)},
            id="a rollout without it",
        ),
        pytest.param(
            [rollout(100, "A", {"pi-1": "deferred"}), rollout(200, "A", {"pi-1": "updated"}, group="desktops")],
            {},
            id="moved to another group",
        ),
        pytest.param([rollout(100, "A", {"web1": "deferred"}, group="servers")], {}, id="late in another group"),
    ],
)
def test_who_is_late(lines: list[Rollout], late: dict[str, tuple[int, str, int]]) -> None:
    assert {d.host: (d.since, d.commit, d.missed) for d in deferred(lines, "sbcs")} == late


@pytest.mark.parametrize(
    ("lines", "last", "news"),
    [
        pytest.param([], rollout(200, "A", SAME), True, id="the first of all"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", SAME), False, id="all as it was"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", {"pi-1": "unchanged"}), False, id="a part as it was"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", TWO), True, id="hosts were updated again"),
        pytest.param([rollout(100, "A", {"pi-1": "updated"})], rollout(200, "A", SAME), True, id="a host that was not seen yet"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "B", SAME, systems="A"), True, id="another commit, the same systems"),
        pytest.param(
            [rollout(100, "A", TWO), rollout(150, "B", SAME, systems="A")],
            rollout(200, "A", SAME, source="known_good"),
            False,
            id="what is known-good, the same systems",
        ),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", SAME, systems="B"), True, id="brought elsewhere by hand"),
        pytest.param([rollout(100, "A", BAD)], rollout(200, "A", SAME), True, id="well again"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", LATE), True, id="late"),
        pytest.param([rollout(100, "A", LATE)], rollout(200, "A", LATE), False, id="still late"),
        pytest.param([rollout(100, "A", LATE)], rollout(200, "B", LATE, systems="A"), True, id="late, and missed another commit"),
        pytest.param(
            [rollout(100, "A", LATE), rollout(150, "B", {"pi-2": "deferred"})],
            rollout(200, "A", {"pi-2": "deferred"}),
            False,
            id="missed what it had missed before",
        ),
        pytest.param([rollout(100, "A", LATE)], rollout(200, "A", SAME), True, id="no longer late"),
        pytest.param(
            [rollout(100, "A", {"pi-1": "deferred"})],
            rollout(200, "A", {"pi-1": "deferred"}, reason="no host was reached"),
            False,
            id="nobody there again",
        ),
        pytest.param([rollout(100, "A", TWO, soak=50)], rollout(120, "A", SAME, soak=5), True, id="a shorter soak"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", SAME, landed="A"), True, id="it has landed"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", SAME, reason="it did not land"), True, id="it did not land"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", SAME, forced="it is urgent"), True, id="forced"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", SAME, goal="test"), False, id="only to be tested"),
        pytest.param([rollout(100, "A", TWO)], rollout(200, "A", {"pi-1": "held"}), True, id="held"),
        pytest.param([rollout(100, "A", TWO, group="servers")], rollout(200, "A", SAME), True, id="another group's"),
    ],
)
def test_what_is_news(lines: list[Rollout], last: Rollout, news: bool) -> None:
    assert is_news(lines, last) is news


def system(commit: str, host: str = "pi-1") -> str:
    return f"/nix/store/{commit}-{host}"


@pytest.mark.parametrize(
    ("lines", "running", "commit"),
    [
        pytest.param([], "A", None, id="an empty ledger"),
        pytest.param([rollout(100, "A")], "A", "A", id="what it last ran"),
        pytest.param([rollout(100, "A")], "X", None, id="brought elsewhere by hand"),
        pytest.param([rollout(100, "A"), rollout(200, "B")], "A", "A", id="went back"),
        pytest.param([rollout(100, "A"), rollout(200, "B", {"pi-1": "unchanged"}, systems="A")], "A", "B", id="two commits"),
        pytest.param([rollout(100, "A"), rollout(200, "B", PLAN, outcome="broken_off")], "B", "B", id="of a killed controller"),
        pytest.param([rollout(100, "A", {"pi-1": "failed"})], "A", "A", id="lost, and yet there"),
        pytest.param([rollout(100, "A", group="servers")], "A", None, id="in another group before"),
    ],
)
def test_where_a_system_comes_from(lines: list[Rollout], running: str, commit: str | None) -> None:
    found = origins(lines, "sbcs", {"pi-1": system(running)}).get("pi-1")
    assert (found and found.commit) == commit


def test_what_hosts_last_ran() -> None:
    lines = [rollout(100, "A", TWO), rollout(200, "B", {"pi-1": "updated", "pi-2": "rolled_back"})]
    assert {name: ran.system for name, ran in last_ran(lines, "sbcs").items()} == {
        "pi-1": system("B"),
        "pi-2": system("A", "pi-2"),
    }


@given(st.booleans())
def test_an_end_takes_the_place_of_its_beginning(turned: bool) -> None:
    begun, done = rollout(90, "A", PLAN, outcome="broken_off", name="one"), rollout(100, "A", TWO, name="one")
    assert in_order([done, begun] if turned else [begun, done]) == [done]


def test_lines_of_before_have_no_members() -> None:
    old = rollout(100, "A")
    assert '"members"' not in to_line(old)
    assert parse_line(to_line(replace(old, members=frozenset({"pi-2", "pi-1"})))) == replace(
        old, members=frozenset({"pi-1", "pi-2"})
    )


def test_a_line_is_one_line_and_always_the_same() -> None:
    one = rollout(100, "A", {"pi-1": "updated", "pi-2": "failed"}, soak=5)
    other = replace(one, hosts=dict(reversed(list(one.hosts.items()))))
    line = to_line(replace(one, reason='pi-2 failed:\n"no" ü'))
    assert "\n" not in line
    assert line.isascii()
    assert to_line(one) == to_line(other)
    assert list(json.loads(line))[:4] == ["id", "group", "outcome", "reason"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Reviewed-by: Op Erator",
        "{}",
        "[]",
        "null",
        '{"v": 2}',
        to_line(rollout(1, "A")).replace('"v": 1', '"v": 2'),
        to_line(rollout(1, "A")).replace("complete", "excellent"),
        to_line(rollout(1, "A")).replace("1970-01-01T00:00:01Z", "yesterday"),
        to_line(rollout(1, "A"))[:-1],
        to_line(rollout(1, "A")).replace('"group": "sbcs"', '"group": 7'),
    ],
)
def test_lines_that_are_not_ours(line: str) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (0, 0), (90, 90), (1.5, 1), ("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("2d", 2 * DAY), ("1w", 7 * DAY),
        ("1h 30m", 5400), (" 1d12h ", 129600), (None, 0),
    ],
)  # fmt: skip
def test_lengths_of_time(value: str | float | None, length: int) -> None:
    assert seconds("sbcs", "flotilla_soak", value) == length


@pytest.mark.parametrize("value", ["", "two days", "2y", "-1", -1, "1.5h", "1 2", True])
def test_what_is_no_length_of_time(value: str | float) -> None:
    with pytest.raises(BadInput, match=r"^sbcs: flotilla_soak is no length of time: .* such as 2d\.$"):
        seconds("sbcs", "flotilla_soak", value)


BROKEN = (Outcome.FAILED, Outcome.ROLLED_BACK)
HOSTS = st.dictionaries(
    st.sampled_from(["pi-1", "pi-2", "pi-3"]),
    st.sampled_from(["unchanged", "updated", "rebooted", "staged", "failed", "rolled_back", "held", "deferred"]),
    min_size=1,
)


@st.composite
def ledgers(draw: st.DrawFn) -> list[Rollout]:
    """Rollouts of one group, one after the other."""
    lines: list[Rollout] = []
    at = 100
    for _number in range(draw(st.integers(0, 8))):
        at += draw(st.integers(11, 200))
        commit = draw(st.sampled_from("ABC"))
        lines.append(
            rollout(
                at,
                commit,
                draw(HOSTS),
                soak=draw(st.sampled_from([0, 60, 300])),
                source=draw(st.sampled_from(["head", "head", "candidate", "worktree"])),
                systems=draw(st.sampled_from([commit, "X"])),
                touched=draw(st.booleans()),
                halted=draw(st.booleans()),
            )
        )
    return lines


@given(ledgers())
def test_a_line_says_it_all(lines: list[Rollout]) -> None:
    assert [parse_line(to_line(line)) for line in lines] == lines


@given(ledgers(), st.randoms(use_true_random=False), st.integers(0, 3000))
def test_neither_order_nor_repetition_matters(lines: list[Rollout], random: object, now: int) -> None:
    mixed = lines + lines[:2]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert in_order(mixed) == lines
    assert known_good(mixed, "sbcs", now) == known_good(lines, "sbcs", now)
    assert deferred(mixed, "sbcs") == deferred(lines, "sbcs")


@given(ledgers(), st.integers(0, 3000))
def test_what_is_known_good_was_proven_and_has_soaked(lines: list[Rollout], now: int) -> None:
    proof = known_good(lines, "sbcs", now)
    if proof is None:
        return
    assert proof.good_from <= now
    first = next(line for line in lines if line.proves and line.commit == proof.commit and line.ended >= proof.proven)
    soak = [line for line in lines if first.ended < line.started < proof.good_from and line.deployed(proof.commit)]
    assert not [line for line in soak if line.outcome is not Ending.NOT_STARTED and line.any(*BROKEN)]


@given(ledgers())
def test_nobody_was_last_seen_elsewhere_when_a_commit_was_proven(lines: list[Rollout]) -> None:
    """Nobody whom the proof leaves out ran, as far as the group knew, anything but that commit's systems."""
    for proof in proofs(lines, "sbcs"):
        until = [line for line in lines if line.ended <= proof.proven]
        first = next(line.commit for line in reversed(until))
        ran: dict[str, Rollout] = {}
        for line in until:
            for name, host in line.hosts.items():
                if host.result is Outcome.DEFERRED:
                    ran.pop(name, None)
                elif name in line.running:
                    ran[name] = line
        same = {
            name
            for name, line in ran.items()
            if any(b.deployed(first) and b.running.get(name) == line.running[name] for b in until)
        }
        assert set(ran) <= same


def test_a_soak_that_is_made_shorter_ends_with_the_rollout_that_says_so() -> None:
    lines = [rollout(100, "A", {"pi-1": "updated"}, soak=60), rollout(120, "A", {"pi-1": "unchanged"}, soak=0)]
    proof = known_good(lines, "sbcs", 10_000)
    assert proof is not None
    assert (proof.proven, proof.good_from) == (lines[0].ended, lines[1].ended)


@given(ledgers(), st.integers(0, 10))
def test_what_happens_later_does_not_take_back_what_was_known(lines: list[Rollout], count: int) -> None:
    """Whatever begins after a time, what was known-good then is the same, if under the name of a commit with the same systems."""
    now = lines[count].started if count < len(lines) else 10_000
    before, after = known_good(lines[:count], "sbcs", now), known_good(lines, "sbcs", now)
    assert (before and before.proven) == (after and after.proven)


@given(ledgers())
def test_known_good_never_goes_back(lines: list[Rollout]) -> None:
    found = [proof.good_from for now in range(0, 2000, 200) if (proof := known_good(lines, "sbcs", now))]
    assert found == sorted(found)


@given(ledgers())
def test_stretches_follow_each_other(lines: list[Rollout]) -> None:
    found = proofs(lines, "sbcs")
    for one, next_one in itertools.pairwise(found):
        assert one.ended is not None
        assert one.proven <= one.ended <= next_one.proven


@given(ledgers())
def test_late_hosts_were_missed_and_not_seen_since(lines: list[Rollout]) -> None:
    late = {d.host for d in deferred(lines, "sbcs")}
    for host in ("pi-1", "pi-2", "pi-3"):
        results = [line.hosts[host].result for line in lines if host in line.hosts]
        done = [n for n, r in enumerate(results) if r in (Outcome.UNCHANGED, Outcome.UPDATED, Outcome.REBOOTED, Outcome.STAGED)]
        since = results[done[-1] + 1 :] if done else results
        assert (host in late) == (Outcome.DEFERRED in since)


def test_only_a_complete_rollout_proves() -> None:
    assert [e for e in Ending if replace(rollout(1, "A"), outcome=e).proves] == [Ending.COMPLETE]
