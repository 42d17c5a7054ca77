# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: who goes on, who is held, and what becomes of candidates."""

from __future__ import annotations

import json

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.gate import (
    GroupResult,
    Plan,
    PlannedGroup,
    PlannedHost,
    conclude,
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
        (make_plan("a", "b"), {"a": U, "b": R}, True, True, (False, True, ["a"])),
        (make_plan("a b", percentage=50), {"a": U, "b": R}, True, False, (True, False, [])),
        (make_plan("a"), {"a": P}, True, False, (True, False, [])),
        (make_plan(x=N), {}, True, False, (True, False, [])),
        (make_plan(x=D), {}, True, False, (False, True, [])),
        (make_plan("a", x=D), {"a": U}, True, False, (True, False, [])),
    ],
)
def test_conclude(plan: Plan, known: dict[str, Outcome], land: bool, back: bool, expected: tuple[bool, bool, list[str]]) -> None:
    ended = final_outcomes(plan, outcomes(**known))
    result: GroupResult = conclude(plan, "g", ended, land=land, roll_back_mixed=back)
    assert (result.accept, result.discard, result.mixed) == expected


def test_a_host_that_was_let_through_and_is_not_known_has_failed() -> None:
    plan = make_plan("a", "b")
    assert {name: o.outcome for name, o in final_outcomes(plan, outcomes(a=U)).items()} == {"a": U, "b": F}
    assert {o.outcome for o in final_outcomes(plan, {}, ran=False).values()} == {P}


def test_a_plan_survives_the_way_through_ansible_variables() -> None:
    plan = make_plan("a", "b", x=D)
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))).as_dict() == {
        **plan.as_dict(),
        "groups": {"g": {**plan.as_dict()["groups"]["g"], "changes": []}},
    }


@given(st.lists(st.sampled_from([U, F, R, D, None]), min_size=1, max_size=6))
def test_a_group_that_halted_stays_halted(kinds: list[Outcome | None]) -> None:
    plan = make_plan(*[f"h{i}" for i in range(len(kinds))])
    known = outcomes(**{f"h{i}": kind for i, kind in enumerate(kinds) if kind})
    halted = [judge(plan, "g", known, done).halted for done in range(len(kinds) + 1)]
    assert halted == sorted(halted)
    verdicts = {"g": judge(plan, "g", known, len(kinds))}
    assert bool(hold(plan, ["h0"], verdicts)) is halted[-1]
