# SPDX-License-Identifier: GPL-3.0-or-later
"""One lock's pins in another: what comes, what stays, what is refused, on locks of any shape."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.graft import Graft, graft, unlocked, written
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import (
    InputPath,
    Lock,
    RawEntry,
    difference,
    lock_of_entries,
    parse_lock,
    raw_entries,
    resolve,
    root_inputs,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.pairing import Choice, paired
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup
from hypothesis import given
from lock_strategies import Rings, node, rings

NAMES = ("stable", "canary")


def lock_of(version: int = 7, **inputs: dict[str, Any] | list[str]) -> Lock:
    """A lock from input paths, with two underscores for each slash."""
    return lock_of_entries({tuple(name.split("__")): entry for name, entry in inputs.items()}, version)


def entries(lock: Lock) -> dict[str, str]:
    """Input path → revision, or `→ what it follows`."""
    found = raw_entries(lock)
    return {
        written(path): str(entry["locked"].get("rev"))[0] if isinstance(entry, dict) else f"→ {'/'.join(entry)}"
        for path, entry in found.items()
    }


def grafted(target: Lock, source: Lock, **pairs: str) -> Graft:
    by_path = {tuple(name.split("__")): tuple(origin.split("/")) for name, origin in pairs.items()}
    return graft(target, source, by_path, NAMES)


TARGET = lock_of(
    nixpkgs=node("1"), hm=node("1", url="hm"), hm__nixpkgs=["nixpkgs"], extra=node("1"), extra__nixpkgs=["hm", "nixpkgs"]
)
SOURCE = lock_of(nixpkgs=node("2"), hm=node("2", url="hm"), hm__nixpkgs=["nixpkgs"], hm__new=node("2"), own=node("2"))


@pytest.mark.parametrize(
    ("target", "source", "pairs", "result"),
    [
        pytest.param(
            TARGET,
            SOURCE,
            {"nixpkgs": "nixpkgs", "hm": "hm"},
            {"nixpkgs": "2", "hm": "2", "hm/nixpkgs": "→ nixpkgs", "hm/new": "2", "extra": "1", "extra/nixpkgs": "→ hm/nixpkgs"},
            id="what both have",
        ),
        pytest.param(
            TARGET,
            SOURCE,
            {"nixpkgs": "own"},
            {"nixpkgs": "2", "hm": "1", "hm/nixpkgs": "→ nixpkgs", "extra": "1", "extra/nixpkgs": "→ hm/nixpkgs"},
            id="under another name",
        ),
        pytest.param(
            lock_of(b=node("1"), depB=node("1"), depB__base=["b"]),
            lock_of(
                a=node("2"),
                depA=node("2"),
                depA__base=["a"],
                depA__in=node("2"),
                depA__also=["depA", "in"],
                depA__fresh=["a"],
            ),
            {"b": "a", "depB": "depA"},
            {"b": "2", "depB": "2", "depB/base": "→ b", "depB/in": "2", "depB/also": "→ depB/in", "depB/fresh": "→ b"},
            id="followers inside and outside, renamed",
        ),
        pytest.param(
            lock_of(hm=node("1"), hm__x=node("1"), hm__y=node("1")),
            lock_of(hm=node("2"), hm__x=node("2"), hm__z=node("2")),
            {"hm__x": "hm/x"},
            {"hm": "1", "hm/x": "2", "hm/y": "1"},
            id="a nested one alone",
        ),
        pytest.param(
            lock_of(a=node("1"), a__b=node("1"), a__b__c=node("1")),
            lock_of(5, a=node("2")),
            {"a": "a"},
            {"a": "2"},
            id="what is not below it any more goes",
        ),
    ],
)
def test_grafts(target: Lock, source: Lock, pairs: dict[str, str], result: dict[str, str]) -> None:
    made = grafted(target, source, **pairs)
    assert entries(made.lock) == result
    assert made.rewired == ()
    assert made.lock.version == 7


def test_what_the_target_lets_follow_another_goes_on_to_do_so_and_is_named() -> None:
    source = lock_of(nixpkgs=node("2"), hm=node("2"), hm__nixpkgs=node("3"), hm__nixpkgs__deep=node("3"))
    made = grafted(TARGET, source, nixpkgs="nixpkgs", hm="hm")
    assert entries(made.lock)["hm/nixpkgs"] == "→ nixpkgs"
    assert "hm/nixpkgs/deep" not in entries(made.lock)
    assert made.rewired == ("hm/nixpkgs",)


def test_the_flake_that_a_relative_one_belongs_to_is_named_by_its_new_path() -> None:
    relative = {"locked": {"type": "path", "path": "./sub"}, "original": {"type": "path", "path": "./sub"}, "parent": ["a"]}
    made = grafted(lock_of(b=node("1")), lock_of(a=node("2"), a__sub=relative), b="a")
    assert raw_entries(made.lock)["b", "sub"]["parent"] == ["b"]  # type: ignore[call-overload]


def test_version_5_keeps_its_hashes_elsewhere() -> None:
    old = {
        "info": {"narHash": "sha256-x", "lastModified": 7},
        "locked": {"type": "path", "path": "/x"},
        "original": {"type": "path"},
    }
    made = grafted(lock_of(a=node("1")), lock_of(5, a=old), a="a")
    assert raw_entries(made.lock)["a",] == {
        "locked": {"narHash": "sha256-x", "lastModified": 7, "type": "path", "path": "/x"},
        "original": {"type": "path"},
    }


def test_trees_with_uncommitted_changes() -> None:
    dirty = {
        "locked": {"type": "git", "url": "file:///x", "dirtyRev": "1-dirty"},
        "original": {"type": "git", "url": "file:///x"},
    }
    relative = {"locked": {"type": "path", "path": "./sub"}, "original": {"type": "path", "path": "./sub"}, "parent": []}
    assert unlocked(lock_of(a=dirty, b=node("1"), b__c=dirty, d=relative)) == ("a", "b/c")


@pytest.mark.parametrize(
    ("target", "source", "error"),
    [
        (
            lock_of(nixpkgs=node("1"), hm=node("1"), hm__nixpkgs=node("1")),
            SOURCE,
            "stable: input hm/nixpkgs follows nixpkgs in canary, and not in stable. Let the flake.nix of both",
        ),
        (
            lock_of(hm=node("1")),
            lock_of(hm=node("2"), only=node("2"), hm__x=["only"]),
            "stable: input hm/x would follow only, which is not there with the pins of canary",
        ),
        (
            lock_of(hm=node("1"), hm__x=node("1"), d=node("1"), d__x=["hm", "x"]),
            lock_of(hm=node("2")),
            "stable: input d/x would follow hm/x, which is not there",
        ),
    ],
)
def test_locks_that_do_not_fit_together(target: Lock, source: Lock, error: str) -> None:
    with pytest.raises(BadInput) as caught:
        grafted(target, source, hm="hm")
    assert str(caught.value).startswith(error)


# Which inputs

WIRED = lock_of(
    **{
        **{path.replace("/", "__"): entry for path, entry in ((written(p), e) for p, e in raw_entries(TARGET).items())},
        "hm__x": node("1"),
        "extra__x": node("1"),
        "led": ["hm"],
    }
)


def stable(*inputs: str) -> UpdateGroup:
    return UpdateGroup("stable", "/fleet", None, ".", "flake.lock", inputs or None)


@pytest.mark.parametrize(
    ("group", "choice", "result"),
    [
        (stable(), Choice(), {"nixpkgs": "nixpkgs", "hm": "hm"}),
        (stable("hm"), Choice(), {"hm": "hm"}),
        (stable(), Choice(("hm",)), {"hm": "hm"}),
        (stable(), Choice(mapping={"own": "nixpkgs"}), {"nixpkgs": "own", "hm": "hm"}),
        (stable(), Choice(mapping={"own": "nixpkgs"}, by_name=False), {"nixpkgs": "own"}),
        (stable(), Choice(("nixpkgs",), {"own": "nixpkgs"}), {"nixpkgs": "own"}),
    ],
)
def test_pairs(group: UpdateGroup, choice: Choice, result: dict[str, str]) -> None:
    found = paired(group, TARGET, SOURCE, "canary", choice)
    assert {written(path): written(origin) for path, origin in found.items()} == result


OTHER = {
    "locked": {"type": "github", "rev": "2"},
    "original": {"type": "github", "owner": "NixOS", "repo": "nixpkgs", "ref": "next"},
}


@pytest.mark.parametrize(
    ("choice", "source", "error"),
    [
        (Choice(("nosuch",)), SOURCE, "stable has no input 'nosuch'. It has nixpkgs, hm, extra, led"),
        (Choice(("extra",)), SOURCE, "canary has no input 'extra'. It has nixpkgs, hm, own"),
        (Choice(("hm/nixpkgs",)), SOURCE, "input hm/nixpkgs follows another and has no pin of its own. Name nixpkgs instead."),
        (Choice(()), SOURCE, "the list of inputs is empty"),
        (Choice(mapping={"nosuch": "hm"}), SOURCE, "canary has no input 'nosuch'"),
        (Choice(mapping={"nixpkgs": "hm", "own": "hm"}), SOURCE, "the mapping gives input hm the pins of nixpkgs and own"),
        (Choice(("hm/nixpkgs/x",)), SOURCE, "stable has no input 'hm/nixpkgs/x'"),
        (Choice(("led/x",)), SOURCE, "input led/x follows another and has no pin of its own. Name hm/x instead."),
        (
            Choice(("extra/x",)),
            lock_of(hm=node("2"), hm__x=node("2"), extra=["hm"]),
            "extra/x follows hm/x in canary, and not here",
        ),
        (Choice(mapping={"own": "--x"}), SOURCE, "this is not the name of an input"),
        (Choice(mapping={"own": "hm"}), SOURCE, "hm is github:NixOS/hm, and github:NixOS/nixpkgs in canary"),
        (
            Choice(),
            lock_of(nixpkgs=OTHER, hm=["nixpkgs"]),
            "its flake.nix has other inputs than that of canary: hm follows nixpkgs in canary, and not here; "
            "nixpkgs is github:NixOS/nixpkgs, and github:NixOS/nixpkgs next in canary",
        ),
        (Choice(), lock_of(nixpkgs=node("2", flake=False)), "nixpkgs is taken as a flake in stable alone"),
        (Choice(), lock_of(a=node("2")), "it has no input in common with canary, of which it could take the pin. canary has a."),
    ],
)
def test_inputs_that_cannot_be_paired(choice: Choice, source: Lock, error: str) -> None:
    with pytest.raises(BadInput) as caught:
        paired(stable(), WIRED, source, "canary", choice)
    assert error in str(caught.value)


# Any two locks of groups that fit together


def same_names(names: Iterable[str]) -> dict[InputPath, InputPath]:
    return {(name,): (name,) for name in names}


@given(rings())
def test_promoted_pins_are_the_sources_all_others_the_targets_and_follows_resolve(groups: Rings) -> None:
    chosen = groups.chosen
    made = graft(groups.target, groups.source, same_names(chosen), NAMES).lock
    theirs, ours, now = raw_entries(groups.source), raw_entries(groups.target), raw_entries(made)
    assert set(root_inputs(made)) == set(groups.roots[0])
    for path, entry in now.items():
        assert entry == (theirs if path[0] in chosen else ours)[path]
        assert resolve(made, path) is not None
    assert now.keys() == {path for path in theirs if path[0] in chosen} | {path for path in ours if path[0] not in chosen}
    assert parse_lock(json.dumps(made.raw), "stable", "flake.lock") == made
    # Nothing is left that nothing leads to, and a second time nothing moves.
    assert len(made.nodes) == 1 + sum(isinstance(entry, dict) for entry in now.values())
    assert not difference(made, graft(made, groups.source, same_names(chosen), NAMES).lock).touched


@given(rings())
def test_where_the_inputs_are_the_same_the_whole_lock_is(groups: Rings) -> None:
    every = same_names(groups.roots[1])
    older = graft(groups.source, groups.target, same_names(groups.chosen), NAMES).lock
    assert not difference(groups.source, graft(older, groups.source, every, NAMES).lock).touched


@given(rings())
def test_with_other_names_the_same_comes(groups: Rings) -> None:
    """Every input of the source under another name in the target: followers lead to the new names."""
    renamed: dict[InputPath, RawEntry] = {
        (f"t-{path[0]}", *path[1:]): [f"t-{entry[0]}", *entry[1:]] if isinstance(entry, list) else entry
        for path, entry in raw_entries(groups.source).items()
    }
    target = lock_of_entries(renamed, 7)
    bare = lock_of_entries({path: entry for path, entry in renamed.items() if len(path) == 1}, 7)
    pairs: dict[InputPath, InputPath] = {(f"t-{name}",): (name,) for name in groups.roots[1]}
    for old in (target, bare):
        assert not difference(target, graft(old, groups.source, pairs, NAMES).lock).touched
