# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger is given of a rollout's end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.action.flake_ledger import _ROLLOUT
from ansible_collections.flotilla.nixos.plugins.module_utils.conclusion import Conclusion
from ansible_collections.flotilla.nixos.plugins.module_utils.gate import GroupResult, Plan, PlannedGroup, PlannedHost
from ansible_collections.flotilla.nixos.plugins.module_utils.outcome import HostOutcome, Outcome
from ansible_collections.flotilla.nixos.plugins.module_utils.rollout_record import records

COMMIT, BASE, MERGE = "c" * 40, "b" * 40, "d" * 40
GROUP = PlannedGroup("sbcs", commit=COMMIT, base=BASE, candidate=COMMIT, branch="main", soak=60)
FINE = GroupResult("sbcs", halted=False, reason="", accept=True, discard=False, mixed=[])


def record(
    group: PlannedGroup,
    result: GroupResult = FINE,
    *,
    planned: Outcome | None = None,
    outcome: Outcome = Outcome.UPDATED,
    accepted: dict[str, Any] | None = None,
) -> dict[str, Any]:
    plan = Plan({"sbcs": group}, {"pi-1": PlannedHost("pi-1", "sbcs", "/new", "/old", planned)}, [["pi-1"]])
    end = Conclusion({"pi-1": HostOutcome("pi-1", outcome, "why")}, [result], {}, {})
    (found,) = records(plan, end, {"groups": {"sbcs": accepted}} if accepted else {})
    return found


def test_a_good_rollout() -> None:
    found = record(GROUP, accepted={"failed": False, "commit": MERGE})
    assert found == {
        "group": "sbcs",
        "commit": COMMIT,
        "source": "candidate",
        "halted": False,
        "touched": True,
        "reason": "",
        "soak": "60",
        "branch": "main",
        "landed": MERGE,
        "hosts": [{"name": "pi-1", "result": "updated", "system": "/new", "previous": "/old", "reason": "why"}],
    }
    assert found.keys() == _ROLLOUT.keys() - {"rollback"}


@pytest.mark.parametrize(
    ("group", "source"),
    [
        (GROUP, "candidate"),
        (replace(GROUP, candidate=None), "head"),
        (replace(GROUP, candidate=None, dirty=True), "worktree"),
        (replace(GROUP, commit=None, candidate=None, error="its upstream does not answer"), "head"),
    ],
)
def test_what_was_deployed(group: PlannedGroup, source: str) -> None:
    assert record(group)["source"] == source


@pytest.mark.parametrize(
    ("planned", "outcome", "touched"),
    [
        (None, Outcome.UPDATED, True),
        (None, Outcome.FAILED, True),
        (None, Outcome.HELD, False),
        (None, Outcome.DEFERRED, False),
        (Outcome.FAILED, Outcome.FAILED, False),
        (Outcome.UNCHANGED, Outcome.UNCHANGED, False),
    ],
)
def test_whether_any_host_was_touched(planned: Outcome | None, outcome: Outcome, touched: bool) -> None:
    assert record(GROUP, planned=planned, outcome=outcome)["touched"] is touched


def test_why_it_stopped() -> None:
    assert record(GROUP, replace(FINE, halted=True, reason="pi-1 failed in batch 1 (1 of 1)"))["reason"].startswith("pi-1 failed")
    refused = record(GROUP, accepted={"failed": True, "commit": BASE, "msg": "sbcs: origin refused the push."})
    assert (refused["reason"], refused["landed"]) == ("the candidate did not land: sbcs: origin refused the push.", None)
