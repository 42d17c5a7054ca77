# SPDX-License-Identifier: GPL-3.0-or-later
"""What is held, until when, and what must not move because of it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.holding import Holding
from ansible_collections.flotilla.nixos.plugins.module_utils.holds import Hold, as_options, parse_holds
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import Lock, difference, parse_lock
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.fleet import update_groups
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import completed, groups_from_options

from .lock_strategies import node

WHY = "the new kernel does not boot on our boards"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = at("2026-12-01T12:00")


def hold(name: str | None = "nixpkgs", until: str = "2026-12-24") -> Hold:
    return Hold(name, WHY, date.fromisoformat(until))


def group(*holds: Hold, name: str = "sbcs", inputs: tuple[str, ...] | None = None) -> UpdateGroup:
    return update_group(name, "/srv/fleet", inputs=inputs, holds=holds)


def lock(**digits: str) -> Lock:
    """nixpkgs, and home, which follows it and has a lib of its own; same follows nixpkgs; tools stands alone."""
    pinned = {"nixpkgs": "1", "home": "1", "home-lib": "1", "tools": "1", **digits}
    nodes: dict[str, Any] = {name: node(digit, url=name) for name, digit in pinned.items()}
    nodes["home"]["inputs"] = {"nixpkgs": ["nixpkgs"], "lib": "home-lib"}
    own = {"nixpkgs": "nixpkgs", "home": "home", "tools": "tools", "same": ["nixpkgs"]}
    text = json.dumps({"nodes": {**nodes, "root": {"inputs": own}}, "root": "root", "version": 7})
    return parse_lock(text, "sbcs", "flake.lock")


@pytest.mark.parametrize(
    ("moment", "over"),
    [
        ("2026-12-24T00:00", False),
        ("2026-12-24T23:59:59", False),
        ("2026-12-25T00:00", True),
        ("2027-01-01T00:00", True),
    ],
)
def test_a_hold_lasts_to_the_end_of_its_day(moment: str, *, over: bool) -> None:
    assert hold().over(at(moment)) is over


@pytest.mark.parametrize("until", ["2026-12-24", date(2026, 12, 24)])
def test_a_day_may_be_text_or_what_yaml_makes_of_it(until: object) -> None:
    (found,) = parse_holds("sbcs", [{"input": "nixpkgs", "reason": " it\n breaks ", "until": until}])
    assert found == Hold("nixpkgs", "it breaks", date(2026, 12, 24))
    assert parse_holds("sbcs", as_options([found])) == (found,)
    assert parse_holds("sbcs", [{"reason": "x", "until": until}])[0].input is None
    assert parse_holds("sbcs", None) == parse_holds("sbcs", []) == ()


@pytest.mark.parametrize(
    ("holds", "message"),
    [
        ("nixpkgs", "sbcs: flotilla_hold is not a list. Write each as {input: nixpkgs"),
        ({"input": "nixpkgs"}, "sbcs: flotilla_hold is not a list"),
        (["nixpkgs"], "sbcs: flotilla_hold has 'nixpkgs', which is not a hold"),
        ([{"input": "nixpkgs", "until": "2026-12-24"}], "sbcs: the hold of nixpkgs has no reason"),
        ([{"input": "nixpkgs", "until": "2026-12-24", "reason": " "}], "sbcs: the hold of nixpkgs has no reason"),
        ([{"reason": "x"}], "sbcs: the hold of the whole group has no end"),
        ([{"input": "a", "reason": "x", "until": "24.12.2026"}], "sbcs: the hold of a ends at '24.12.2026', which is not a day"),
        ([{"input": "a", "reason": "x", "until": "2026-02-30"}], "which is not a day. Write it as in 2026-12-24"),
        ([{"input": "a", "reason": "x", "until": "20261224"}], "which is not a day"),
        ([{"input": "a", "reason": "x", "until": datetime(2026, 12, 24, 10, tzinfo=UTC)}], "which is not a day"),
        ([{"input": "a", "reason": "x", "til": "2026-12-24"}], "sbcs: a hold has no til"),
        ([{"input": "a", "reason": "x", "until": "2026-12-24"}] * 2, "sbcs: flotilla_hold has a twice"),
    ],
)
def test_holds_that_cannot_be_meant(holds: object, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_holds("sbcs", holds)
    assert message in str(caught.value)


def test_a_hold_names_an_input() -> None:
    with pytest.raises(BadInput, match="this is not the name of an input"):
        group(hold("--flake"))


def test_holds_come_from_the_hosts_variables() -> None:
    held = [{"input": "nixpkgs", "reason": "it breaks", "until": "2026-12-24"}]
    sbcs = {"flotilla_update_group": "sbcs", "flotilla_repo": "/r", "flotilla_hold": held}
    (found,) = update_groups(["a", "b"], {"a": sbcs, "b": sbcs})
    assert found["holds"] == held
    (made,) = groups_from_options([completed(found)])
    assert made.holds == (Hold("nixpkgs", "it breaks", date(2026, 12, 24)),)
    with pytest.raises(BadInput, match="its hosts disagree on flotilla_hold: a has"):
        update_groups(["a", "b"], {"a": sbcs, "b": {**sbcs, "flotilla_hold": []}})
    with pytest.raises(BadInput, match="a: the hold of nixpkgs has no reason"):
        update_groups(["a"], {"a": {**sbcs, "flotilla_hold": [{"input": "nixpkgs"}]}})


NAMES = ("nixpkgs", "home", "tools", "same")


@pytest.mark.parametrize(
    ("holding", "free", "notes"),
    [
        (Holding(group()), NAMES, 0),
        (Holding(group(hold("tools"))), ("nixpkgs", "home", "same"), 1),
        (Holding(group(hold("nixpkgs"))), ("home", "tools", "same"), 1),
        # What is below a held input stays, and so does what is above one, for it would take it along.
        (Holding(group(hold("home"))), ("nixpkgs", "tools", "same"), 1),
        (Holding(group(hold("home/lib"))), ("nixpkgs", "tools", "same"), 1),
        # An input without a pin of its own holds the one that it follows.
        (Holding(group(hold("same"))), ("home", "tools", "same"), 1),
        (Holding(group(hold(None))), (), 1),
        (Holding(group(hold("home"), hold("tools"))), ("nixpkgs", "same"), 2),
        (Holding(group(hold("tools", "2026-11-30"))), NAMES, 0),
        (Holding(group(hold("no-such"))), NAMES, 0),
        # What is held for a group that has its pins in the same lock.
        (Holding(group(), (group(hold("tools"), name="lab"),)), ("nixpkgs", "home", "same"), 1),
        (Holding(group(), (group(hold(None), name="lab", inputs=("home",)),)), ("tools", "same"), 1),
        (Holding(group(), (group(hold(None), name="lab"),)), (), 1),
    ],
)
def test_what_may_move(holding: Holding, free: tuple[str, ...], notes: int) -> None:
    kept = Holding(holding.group, holding.sharers, NOW).kept(lock())
    assert kept.free(NAMES) == free
    assert len(kept.notes) == notes
    assert all(WHY in note and "2026-12-24" in note for note in kept.notes)


def test_what_is_held_by_whom_until_when_and_why_is_said() -> None:
    held = group(hold(), hold("tools", "2026-11-30"), hold("no-such"))
    kept = Holding(held, (group(hold(None), name="lab", inputs=("tools",)),), NOW).kept(lock())
    assert kept.notes == (
        f"nixpkgs is held until 2026-12-24: {WHY}",
        f"the whole group is held for lab until 2026-12-24: {WHY}",
    )
    assert list(kept.warnings) == [
        f"sbcs: the hold of tools ended with 2026-11-30, and holds no more ({WHY}). Take it out of flotilla_hold.",
        "sbcs: flotilla_hold names the input no-such, which the lock has not. It has: nixpkgs, home, tools, same.",
        *(f"sbcs: {note}" for note in kept.notes),
    ]


@pytest.mark.parametrize("asked", [("nixpkgs",), ("same",), ("tools", "nixpkgs")])
@pytest.mark.parametrize("held", [hold("nixpkgs"), hold(None)])
def test_what_is_asked_for_by_name_needs_a_reason(asked: tuple[str, ...], held: Hold) -> None:
    with pytest.raises(BadInput, match=r"must not move: .* is held until 2026-12-24: .*-e flotilla_force_reason"):
        Holding(group(held), now=NOW).kept(lock(), asked)
    kept = Holding(group(held), now=NOW, force="the fix is out").kept(lock(), asked)
    assert set(asked) <= set(kept.free(asked))
    assert "It moves all the same: the fix is out" in kept.warnings[0]


def test_a_reason_alone_moves_nothing_that_is_held() -> None:
    assert "nixpkgs" not in Holding(group(hold()), now=NOW, force="I want to").kept(lock()).free(NAMES)


@pytest.mark.parametrize(
    ("holding", "refused"),
    [
        (Holding(group(hold(None)), now=NOW, alone=True), True),
        (Holding(group(hold(None)), now=NOW), False),
        (Holding(group(hold(None)), now=NOW, alone=True, force="x"), False),
        (Holding(group(hold()), now=NOW, alone=True), False),
        (Holding(group(hold(None, "2026-11-01")), now=NOW, alone=True), False),
    ],
)
def test_a_promotion_to_a_group_that_is_held(holding: Holding, *, refused: bool) -> None:
    if refused:
        with pytest.raises(BadInput, match="nothing of it may move"):
            holding.require_open()
    else:
        holding.require_open()
    if holding.force:
        assert holding.kept(lock()).free(NAMES) == NAMES
        (opened,) = holding.kept(lock()).opened
        assert opened.startswith(f"{holding.force} (against: ")


def test_going_back_passes_over_holds_and_says_so() -> None:
    said = Holding(group(hold(), hold("tools", "2026-11-30")), now=NOW).passed_over()
    assert "It goes back all the same" in said[0]
    assert "ended with 2026-11-30" in said[1]


def test_a_wish_without_what_is_held() -> None:
    kept = Holding(group(hold("home")), now=NOW).kept(lock())
    assert Wish(None, {}, kept).moving(lock()) == ("nixpkgs", "tools", "same")
    assert Wish(("*", "tools"), {"home": "v1"}).asked == ("tools", "home")
    assert kept.moved(difference(lock(), lock(nixpkgs="2", **{"home-lib": "2"}))) == ("home/lib",)
