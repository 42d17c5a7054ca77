# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a host, from what its tasks registered; and which stages a run has."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.outcome import Outcome, StageResults, outcome_of, stages_to_run

COPIED = {"changed": True}
ACTIVE = {"changed": True, "outcome": "activated"}
STAGED = {"changed": True, "outcome": "staged_for_boot"}
CONFIRMED = {"changed": True, "outcome": "confirmed"}
SKIPPED = {"skipped": True, "changed": False}
LOST = {"failed": True, "unreachable": True, "msg": "h: gone"}
BACK = {"failed": True, "outcome": "rolled_back", "msg": "h: a unit fails."}
FAILED = {"failed": True, "msg": "h: no room."}
HOOK = {"failed": True, "msg": "closed"}


def results(**stages: Any) -> StageResults:
    names = ("copied", "activated", "confirmed", "rebooted", "rolled_back", "error")
    return StageResults(**{name: stages.get(name, {}) for name in names})


@pytest.mark.parametrize(
    ("stages", "expected", "reason"),
    [
        ({}, None, ""),
        ({"copied": COPIED, "activated": ACTIVE, "confirmed": CONFIRMED}, Outcome.UPDATED, ""),
        ({"copied": COPIED, "activated": CONFIRMED, "confirmed": SKIPPED}, Outcome.UPDATED, ""),
        ({"copied": COPIED, "activated": ACTIVE, "confirmed": CONFIRMED, "rebooted": SKIPPED}, Outcome.UPDATED, ""),
        ({"copied": COPIED, "activated": ACTIVE, "confirmed": CONFIRMED, "rebooted": {"changed": True}}, Outcome.REBOOTED, ""),
        ({"copied": COPIED, "activated": STAGED, "confirmed": CONFIRMED}, Outcome.STAGED, ""),
        ({"copied": COPIED, "activated": SKIPPED}, Outcome.COPIED, ""),
        ({"copied": COPIED, "activated": {"outcome": "would_activate"}, "confirmed": SKIPPED}, Outcome.PLANNED, ""),
        ({"copied": COPIED, "activated": {"outcome": "unchanged"}, "confirmed": {"outcome": "unchanged"}}, Outcome.UNCHANGED, ""),
        # Dropped by Ansible in a task that is not ours: nothing is known of it.
        ({"copied": COPIED, "activated": ACTIVE}, None, ""),
        ({"copied": LOST, "error": LOST}, Outcome.DEFERRED, "gone"),
        ({"copied": FAILED, "error": FAILED}, Outcome.FAILED, "no room."),
        ({"copied": COPIED, "activated": BACK, "error": BACK, "rolled_back": SKIPPED}, Outcome.ROLLED_BACK, "a unit fails."),
        ({"copied": COPIED, "activated": LOST, "error": LOST, "rolled_back": SKIPPED}, Outcome.FAILED, "gone"),
        ({"copied": COPIED, "activated": FAILED, "error": FAILED}, Outcome.FAILED, "no room."),
        (
            {"copied": COPIED, "activated": ACTIVE, "error": HOOK, "rolled_back": {"outcome": "rolled_back"}},
            Outcome.ROLLED_BACK,
            "closed",
        ),
        (
            {"copied": COPIED, "activated": ACTIVE, "error": HOOK, "rolled_back": LOST},
            Outcome.FAILED,
            "closed Going back: gone",
        ),
        ({"copied": COPIED, "activated": ACTIVE, "confirmed": BACK, "error": BACK}, Outcome.ROLLED_BACK, "a unit fails."),
        (
            {"copied": COPIED, "activated": ACTIVE, "confirmed": CONFIRMED, "rebooted": LOST, "error": LOST},
            Outcome.FAILED,
            "gone",
        ),
    ],
)
def test_outcome_of(stages: dict[str, Any], expected: Outcome | None, reason: str) -> None:
    found = outcome_of("h", results(**stages))
    assert (found.outcome if found else None, found.reason if found else "") == (expected, reason)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({"copied": FAILED}, False),
        # A refusal before anything began; what was begun and lost; an activation whose end nobody knows.
        ({"copied": COPIED, "activated": FAILED | {"phase": "activate"}}, False),
        ({"copied": COPIED, "activated": FAILED | {"outcome": "refused"}}, False),
        ({"copied": COPIED, "activated": LOST | {"outcome": "lost"}}, True),
        ({"copied": COPIED, "activated": FAILED | {"outcome": "failed"}}, True),
        ({"copied": COPIED, "activated": FAILED | {"exception": "Traceback"}}, True),
        ({"copied": COPIED, "activated": ACTIVE, "confirmed": LOST}, True),
        ({"copied": COPIED, "activated": STAGED, "error": HOOK, "rolled_back": LOST}, True),
        ({"copied": COPIED, "activated": STAGED, "error": HOOK, "rolled_back": {"outcome": "staged_for_boot"}}, True),
        ({"copied": COPIED, "activated": ACTIVE, "confirmed": CONFIRMED, "rebooted": LOST}, True),
        (
            {
                "copied": COPIED,
                "activated": ACTIVE,
                "confirmed": CONFIRMED,
                "rebooted": FAILED,
                "rolled_back": {"outcome": "unchanged"},
            },
            False,
        ),
    ],
)
def test_what_a_failed_host_may_run(stages: dict[str, Any], expected: bool) -> None:
    found = outcome_of("h", results(**{"error": FAILED, **stages}))
    assert found is not None
    assert (found.may_run_new, found.outcome.bad or found.outcome is Outcome.DEFERRED) == (expected, True)


def test_under_check_mode_a_host_is_planned() -> None:
    found = outcome_of("h", results(copied=COPIED, activated={"outcome": "would_activate"}), check=True)
    assert found is not None
    assert found.outcome is Outcome.PLANNED


ALL = ["lock", "build", "plan", "copy", "activate", "confirm", "finish"]


@pytest.mark.parametrize(
    ("run_tags", "skip_tags", "expected"),
    [
        (["all"], [], ALL),
        (["lock"], [], ALL[:1]),
        (["build"], [], ALL[:2]),
        (["copy", "build"], [], ALL[:4]),
        # An activation that is not confirmed would be undone at its deadline.
        (["activate"], [], ALL[:6]),
        (["all"], ["confirm"], ALL[:4]),
        (["all"], ["lock"], ALL[1:]),
        (["all"], ["finish"], ALL[:6]),
        (["all"], ["build"], ALL[:1]),
        (["motd"], [], []),
        (["all"], ["motd"], ALL),
    ],
)
def test_stages_to_run(run_tags: list[str], skip_tags: list[str], expected: list[str]) -> None:
    assert stages_to_run(run_tags, skip_tags) == expected
