# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: who goes on, who is held, and what becomes of candidates."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.gate import (
    GroupResult,
    Plan,
    PlannedGroup,
    PlannedHost,
    brought_back,
    conclude_all,
    final_outcomes,
    hold,
    judge,
    too_many,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.outcome import HostOutcome, Outcome
from hypothesis import given
from hypothesis import strategies as st

U, F, R, D, H, N, P = (
    *(Outcome.UPDATED, Outcome.FAILED, Outcome.ROLLED_BACK),
    *(Outcome.DEFERRED, Outcome.HELD, Outcome.UNCHANGED, Outcome.PLANNED),
)


def make_plan(*batches: str, percentage: float = 0, candidate: str | None = "c" * 40, error: str = "", **known: Outcome) -> Plan:
    """A plan of one group `g`; batches as "a b c"; hosts whose outcome is known already as keywords."""
    names = [name for batch in batches for name in batch.split()]
    hosts = {name: PlannedHost(name, "g", "/new", "/old") for name in names}
    hosts |= {name: PlannedHost(name, "g", "/new", "/old", outcome, "why") for name, outcome in known.items()}
    group = PlannedGroup("g", candidate=candidate, branch="main", error=error, max_fail_percentage=percentage)
    return Plan({"g": group}, hosts, [batch.split() for batch in batches])


def outcomes(**kinds: Outcome) -> dict[str, HostOutcome]:
    return {name: HostOutcome(name, kind, "why") for name, kind in kinds.items()}


@pytest.mark.parametrize(
    ("failures", "size", "percentage", "expected"),
    [
        (0, 4, 0, False),
        (1, 4, 0, True),
        (1, 4, 25, False),
        (1, 4, 24, True),
        (4, 4, 100, False),
        (1, 3, 33.3, True),
        (0, 0, 0, False),
    ],
)
def test_too_many_is_strictly_more(failures: int, size: int, percentage: float, expected: bool) -> None:
    assert too_many(failures, size, percentage) is expected


@pytest.mark.parametrize(
    ("plan", "known", "done", "reason"),
    [
        (make_plan("a", "b c"), {}, 0, None),
        (make_plan("a", "b c"), {"a": U}, 1, None),
        (make_plan("a", "b c"), {"a": R}, 1, "a rolled back in batch 1 (1 of 1)"),
        (make_plan("a", "b c"), {"a": F}, 1, "a failed in batch 1 (1 of 1)"),
        (make_plan("a", "b c"), {}, 1, "a lost in batch 1 (1 of 1)"),
        (make_plan("a", "b c"), {"a": D}, 1, "a went away before the update, so nothing has been proven"),
        (make_plan("a b", "c"), {"a": D, "b": U}, 1, None),
        (make_plan("a", "b c", "d"), {"a": U, "b": U, "c": D}, 2, None),
        (make_plan("a", "b c", "d"), {"a": U, "b": U, "c": R}, 2, "c rolled back in batch 2 (1 of 2)"),
        (make_plan("a", "b c", "d", percentage=50), {"a": U, "b": U, "c": R}, 2, None),
        (make_plan("a", "b c", "d", percentage=49), {"a": U, "b": F, "c": R}, 2, "b failed, c rolled back in batch 2 (2 of 2)"),
        # Held hosts are no failures, and do not open the gate again.
        (make_plan("a", "b", "c"), {"a": R, "b": H}, 2, "a rolled back in batch 1 (1 of 1)"),
        (make_plan("a", "b", "c"), {"a": D, "b": H}, 2, "a went away before the update, so nothing has been proven"),
        # What failed before anything was touched counts against all of the group.
        (make_plan("a", x=F), {}, 0, "x failed before anything was touched"),
        (make_plan("a", x=F, percentage=50), {}, 0, None),
        (make_plan("a", x=D), {}, 0, None),
        (make_plan("a", error="there is no input x."), {}, 0, "there is no input x."),
    ],
)
def test_judge(plan: Plan, known: dict[str, Outcome], done: int, reason: str | None) -> None:
    verdict = judge(plan, "g", outcomes(**known), done)
    assert (verdict.reason if verdict.halted else None) == reason


@pytest.mark.parametrize(
    ("plan", "known", "land", "back", "expected"),
    [
        (make_plan("a", "b"), {"a": U, "b": U}, True, False, (True, False, [])),
        (make_plan("a", "b"), {"a": U, "b": U}, False, False, (False, False, [])),
        (make_plan("a", "b", candidate=None), {"a": U, "b": U}, True, False, (False, False, [])),
        (make_plan("a", "b"), {"a": R, "b": H}, True, False, (False, True, [])),
        (make_plan("a", "b"), {"a": U, "b": R}, True, False, (False, False, ["a"])),
        (make_plan("a", "b"), {"a": U, "b": R}, True, True, (False, True, [])),
        (make_plan("a b", percentage=50), {"a": U, "b": R}, True, False, (True, False, [])),
        # Failed everywhere, and tolerated: nothing is proven.
        (make_plan("a", "b", percentage=100), {"a": R, "b": R}, True, False, (False, True, [])),
        (make_plan("a"), {"a": P}, True, False, (True, False, [])),
        (make_plan(x=N), {}, True, False, (True, False, [])),
        (make_plan(x=D), {}, True, False, (False, True, [])),
        (make_plan("a", x=D), {"a": U}, True, False, (True, False, [])),
    ],
)
def test_conclude(plan: Plan, known: dict[str, Outcome], land: bool, back: bool, expected: tuple[bool, bool, list[str]]) -> None:
    ended = final_outcomes(plan, outcomes(**known))
    result: GroupResult = conclude_all(plan, ended, land=land)["g"]
    if back:
        assert result.mixed == ["a"]
        result = conclude_all(plan, ended, land=land, back=result.mixed)["g"]
    assert (result.accept, result.discard, result.mixed) == expected


@pytest.mark.parametrize(
    ("plan", "known", "reason"),
    [
        (make_plan("a", percentage=100), {"a": R}, "it worked on no host"),
        (make_plan(x=D), {}, "no host was reached"),
    ],
)
def test_why_nothing_lands_though_the_group_did_not_halt(plan: Plan, known: dict[str, Outcome], reason: str) -> None:
    assert conclude_all(plan, final_outcomes(plan, outcomes(**known)), land=True)["g"].reason == reason


def test_what_a_host_may_run_keeps_its_name() -> None:
    plan = make_plan("a", "b")
    known = {"a": HostOutcome("a", F, "its reboot failed", may_run_new=True), "b": HostOutcome("b", H)}
    kept = conclude_all(plan, known, land=True)["g"]
    assert (kept.accept, kept.discard, kept.mixed, kept.unsure) == (False, False, [], ["a"])
    back = conclude_all(plan, known, land=True, back=["a"])["g"]
    assert (back.accept, back.discard, back.unsure) == (False, True, [])


@pytest.mark.parametrize(
    ("result", "outcome", "reason"),
    [
        ({"outcome": "rolled_back", "failed": False}, R, "its group halted (flotilla_rollback_confirmed)"),
        ({"outcome": "unchanged"}, R, "its group halted (flotilla_rollback_confirmed)"),
        (
            {"outcome": "staged_for_boot"},
            F,
            "its group halted, and going back failed: the system before comes with its next boot.",
        ),
        ({"outcome": "lost", "msg": "a: gone."}, F, "its group halted, and going back failed: gone."),
        # What `failed_when: false` leaves of a lost connection.
        ({"failed": False, "unreachable": True, "msg": "a: gone."}, F, "its group halted, and going back failed: gone."),
    ],
)
def test_only_its_outcome_shows_that_a_host_is_back(result: dict[str, Any], outcome: Outcome, reason: str) -> None:
    found = brought_back(outcomes(a=U), [{"item": "a", **result}])["a"]
    assert (found.outcome, found.reason, found.may_run_new) == (outcome, reason, outcome is F)


@pytest.mark.parametrize(
    ("known", "landed", "dropped", "mixed"),
    [
        ({"a": U, "b": U}, ["g", "h"], [], []),
        ({"a": U, "b": R}, [], ["h"], ["a"]),
        ({"a": U, "b": D}, ["g"], ["h"], []),
    ],
)
def test_a_commit_of_several_groups_lands_if_none_of_them_halted(
    known: dict[str, Outcome], landed: list[str], dropped: list[str], mixed: list[str]
) -> None:
    groups = {name: PlannedGroup(name, candidate="c" * 40, branch="main") for name in "gh"}
    first = D if known["b"] is D else None
    plan = Plan(
        groups, {"a": PlannedHost("a", "g"), "b": PlannedHost("b", "h", outcome=first)}, [["a", "b"] if first is None else ["a"]]
    )
    results = conclude_all(plan, final_outcomes(plan, outcomes(**known)), land=True)
    assert [name for name, result in results.items() if result.accept] == landed
    assert [name for name, result in results.items() if result.discard] == dropped
    assert results["g"].mixed == mixed
    if mixed:
        assert results["g"].reason == "h halted, with which it has its candidate in common"


def test_a_host_that_was_let_through_and_is_not_known_has_failed() -> None:
    plan = make_plan("a", "b")
    assert {name: o.outcome for name, o in final_outcomes(plan, outcomes(a=U)).items()} == {"a": U, "b": F}
    assert {o.outcome for o in final_outcomes(plan, {}, ran=False).values()} == {P}


def test_a_plan_survives_the_way_through_ansible_variables() -> None:
    plan = make_plan("a", "b", x=D)
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))).as_dict() == {
        **plan.as_dict(),
        "groups": {"g": {**plan.as_dict()["groups"]["g"], "changes": [], "notes": []}},
    }


@given(st.lists(st.sampled_from([U, F, R, D, None]), min_size=1, max_size=6))
def test_a_group_that_halted_stays_halted(kinds: list[Outcome | None]) -> None:
    plan = make_plan(*[f"h{i}" for i in range(len(kinds))])
    known = outcomes(**{f"h{i}": kind for i, kind in enumerate(kinds) if kind})
    halted = [judge(plan, "g", known, done).halted for done in range(len(kinds) + 1)]
    assert halted == sorted(halted)
    verdicts = {"g": judge(plan, "g", known, len(kinds))}
    assert bool(hold(plan, ["h0"], verdicts)) is halted[-1]
