# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a group runs may be promoted: what speaks against it, and what a reason overrides."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.durations import in_words, seconds
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.proving import Proven, Seen, proven, require_proven

NOW = 1_795_000_000
COMMIT = "c" * 40
SYSTEM = "/nix/store/x-nixos-system-c1"
WELL: dict[str, Any] = {"reachable": True, "running": SYSTEM, "failed_units": [], "guard": None}
GOOD = {"commit": COMMIT, "systems": {"c1": SYSTEM}, "since": "2026-11-01T00:00:00Z"}
SOAKING = {**GOOD, "since": "2026-11-20T11:06:40Z"}  # NOW is 2026-11-18T11:06:40Z


def judged(standing: dict[str, Any], info: dict[str, Any] | None = None, *, ignored: tuple[str, ...] = ()) -> Proven:
    return proven(standing, {"c1": Seen({**WELL, **(info or {})}, ignored)}, NOW)


def test_what_is_known_good_and_runs_well_may_be_promoted() -> None:
    found = judged({"known_good": GOOD, "soaking": None})
    assert (found.commit, found.against, require_proven("canary", found, "")) == (COMMIT, (), "")
    # A reason that nothing asks for is not recorded.
    assert require_proven("canary", found, "because") == ""


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"reachable": False, "msg": "c1: no route to host."}, "c1 could not be looked at (no route to host)"),
        ({"failed": True, "msg": "c1: permission denied."}, "c1 could not be looked at (permission denied)"),
        ({"running": "/nix/store/y-other"}, f"c1 runs /nix/store/y-other, and what it has proven is {SYSTEM}"),
        ({"guard": {"owner": "root@laptop"}}, "c1 is in the middle of an activation or restart by root@laptop"),
        ({"failed_units": ["app.service", "noise.service"]}, "c1 has failed units (app.service)"),
    ],
)
def test_a_host_that_is_not_well(info: dict[str, Any], expected: str) -> None:
    found = judged({"known_good": GOOD, "soaking": None}, info, ignored=("noise.service",))
    assert found.against == (expected,)
    with pytest.raises(BadInput, match=r"canary: what it runs must not be promoted: .*Mend them.*flotilla_force_reason"):
        require_proven("canary", found, "")
    assert require_proven("canary", found, "an urgent fix") == f"an urgent fix (although {expected})"
    assert found.commit == COMMIT


def test_units_that_are_ignored_do_not_count() -> None:
    assert not judged({"known_good": GOOD}, {"failed_units": ["noise.service"]}, ignored=("noise.service",)).against


def test_a_host_that_never_took_it_or_was_not_looked_at() -> None:
    standing = {"known_good": GOOD, "deferred": [{"host": "c2"}]}
    assert not proven(standing, {"c1": Seen(WELL), "c2": Seen({"reachable": False})}, NOW).against
    assert "no reason was given" in proven(standing, {"c1": Seen({})}, NOW).against[0]


def test_hosts_that_have_left_the_group_show_nothing() -> None:
    assert proven({"known_good": GOOD}, {"other": Seen(WELL)}, NOW).against == (
        "none of the hosts that proved it (c1) is in the group any more",
    )
    both = {**GOOD, "systems": {"c1": SYSTEM, "gone": "/nix/store/z"}}
    assert not proven({"known_good": both}, {"c1": Seen(WELL)}, NOW).against


def test_what_soaks_is_refused_even_where_something_older_is_known_good() -> None:
    older = {**GOOD, "commit": "a" * 40}
    found = judged({"known_good": older, "soaking": SOAKING})
    assert found.commit == COMMIT
    assert found.against == ("commit cccccccccccc soaks until 2026-11-20T11:06:40Z (2d left)",)
    assert "Wait until then" in found.hint


GROWS = {"commit": "b" * 40, "systems": {"c0": "/nix/store/b-c0"}, "missing": {"c1": COMMIT, "c2": COMMIT, "c3": None}}


def test_hosts_that_run_different_commits() -> None:
    good = {**GOOD, "systems": {"c0": "/nix/store/c-c0", "c1": SYSTEM}}
    there = {"c0": Seen({**WELL, "running": "/nix/store/b-c0"}), "c1": Seen(WELL)}
    found = proven({"known_good": good, "growing": GROWS}, there, NOW)
    mixed = (
        "its hosts run different commits: c0 runs commit bbbbbbbbbbbb; c1, c2 run commit cccccccccccc; c3 runs nobody knows what"
    )
    assert (found.commit, found.against) == (COMMIT, (mixed,))
    with pytest.raises(BadInput, match=r"Roll it out to all hosts of the group"):
        require_proven("canary", found, "")
    nothing = proven({"known_good": None, "growing": GROWS}, there, NOW)
    assert (nothing.commit, nothing.against) == (None, (mixed,))
    unwell = proven({"known_good": good, "growing": GROWS}, {**there, "c1": Seen({"reachable": False})}, NOW)
    assert unwell.against == (mixed, "c1 could not be looked at (no reason was given)")


@pytest.mark.parametrize(
    ("rollouts", "expected"),
    [
        ([], "it has proven nothing yet: no rollout of it is recorded"),
        (
            [{"ended": "2026-11-17T08:00:00Z", "outcome": "halted", "reason": "c1 rolled back"}],
            "it has proven nothing yet: its last rollout, of 2026-11-17T08:00:00Z, was halted: c1 rolled back",
        ),
        (
            [{"ended": "2026-11-17T08:00:00Z", "outcome": "not_started", "reason": ""}],
            "it has proven nothing yet: its last rollout, of 2026-11-17T08:00:00Z, was not started",
        ),
    ],
)
def test_nothing_is_proven(rollouts: list[dict[str, Any]], expected: str) -> None:
    found = judged({"known_good": None, "soaking": None, "rollouts": rollouts})
    assert (found.commit, found.against) == (None, (expected,))


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, "1s"), (59, "59s"), (60, "1m"), (3661, "1h 1m"), (3605, "1h"), (86400, "1d"), (100_000, "1d 3h"), (200_000, "2d 7h")],
)
def test_lengths_of_time_in_words(length: int, expected: str) -> None:
    assert in_words(length) == expected
    assert seconds("canary", "flotilla_soak", expected) <= max(length, 1)
