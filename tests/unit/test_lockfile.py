# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks as values: what is read, what is refused, what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import (
    Change,
    Lock,
    Pin,
    compare_link,
    difference,
    followed,
    gone_back,
    merged,
    parse_lock,
    pin_of,
    pins,
    reachable,
    resolve,
    root_inputs,
)
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data/locks"

#: Files of the wild that cannot be read, and what is said of them.
UNREADABLE = {
    "another-format.lock": "has version '1'",
    "blank.lock": "is empty",
    "conflict.lock": "has a merge conflict in it",
    "empty.lock": "is empty",
    "git-crypt.lock": "encrypted by git-crypt",
    "licence-text.lock": "is not JSON",
    "not-json.lock": "is not JSON: Expecting ',' delimiter: line 125 column 9",
    "version-1.lock": "has version 1, and only 5 to 7 can be read",
    "version-4.lock": "has version 4, and only 5 to 7 can be read",
}
READABLE = sorted({path.name for path in DATA.glob("*.lock")} - UNREADABLE.keys())


def text_of(name: str) -> str:
    return (DATA / name).read_bytes().decode("utf-8", "surrogateescape")


def wild(name: str) -> Lock:
    return parse_lock(text_of(name), "sbcs", name)


@pytest.mark.parametrize("name", READABLE)
def test_locks_of_the_wild_are_read_and_written_back_to_the_byte(name: str) -> None:
    lock = wild(name)
    assert pins(lock).keys() == set(root_inputs(lock))
    assert lock.to_text().rstrip("\n") == text_of(name).rstrip("\n")
    assert not difference(lock, lock).touched
    assert reachable(lock, None) <= lock.nodes.keys() - {lock.root}


@pytest.mark.parametrize(("name", "error"), UNREADABLE.items())
def test_what_is_no_lock_is_said_in_a_sentence(name: str, error: str) -> None:
    with pytest.raises(BadInput) as caught:
        wild(name)
    assert error in caught.value.what
    assert name in str(caught.value)
    assert caught.value.hint


def test_inputs_are_found_through_the_root_and_not_by_the_keys_of_nodes() -> None:
    lock = wild("node-key-is-not-input.lock")
    differing = {name: resolve(lock, [name]) for name in root_inputs(lock) if resolve(lock, [name]) != name}
    assert differing
    lock = wild("input-called-root.lock")
    assert resolve(lock, ["root"]) == "root_2"
    assert lock.root == "root"


def test_pins_of_odd_kinds() -> None:
    version_5 = pins(wild("version-5.lock")).values()
    assert all(pin.date and pin.nar_hash for pin in version_5)
    tarballs = [pin_of(node) for node in wild("tarball-without-rev.lock").nodes.values() if node.locked.get("type") == "tarball"]
    assert any(pin.rev is None and pin.url.startswith("https://") for pin in tarballs)


def node(rev: str, *, inputs: dict[str, Any] | None = None, owner: str = "NixOS", **more: Any) -> dict[str, Any]:
    original = {"type": "github", "owner": owner, "repo": "nixpkgs", "ref": "stable"}
    locked = {"type": "github", "owner": owner, "repo": "nixpkgs", "rev": rev, "lastModified": 1762041600, "narHash": f"h-{rev}"}
    return {**({"inputs": inputs} if inputs else {}), "locked": {**locked, **more}, "original": original}


def lock_of(root: dict[str, Any], **nodes: dict[str, Any]) -> Lock:
    raw = {"nodes": {**nodes, "root": {"inputs": root}}, "root": "root", "version": 7}
    return parse_lock(json.dumps(raw), "sbcs", "flake.lock")


OLD = lock_of(
    {"a": "a", "b": "b", "c": ["a"]}, a=node("1"), b=node("2", inputs={"x": "x", "y": ["a"]}), x=node("3", owner="someone")
)


@pytest.mark.parametrize(
    ("new", "changes", "outside_a"),
    [
        pytest.param(OLD, [], (), id="the same"),
        pytest.param(
            lock_of(
                {"a": "a2", "b": "q", "c": ["a"]},
                a2=node("1"),
                q=node("2", inputs={"x": "a", "y": ["a"]}),
                a=OLD.raw["nodes"]["x"],
            ),
            [],
            (),
            id="nodes with other names",
        ),
        pytest.param(
            lock_of({"a": "a", "b": "b", "c": ["a"]}, a=node("9"), b=OLD.raw["nodes"]["b"], x=OLD.raw["nodes"]["x"]),
            [("a", "1", "9")],
            (),
            id="one moves",
        ),
        pytest.param(
            lock_of({"a": "a", "b": "b", "c": ["a"]}, a=node("1"), b=OLD.raw["nodes"]["b"], x=node("9", owner="someone")),
            [("b/x", "3", "9")],
            ("b/x",),
            id="a nested one moves",
        ),
        pytest.param(
            lock_of({"a": "a", "b": "b"}, a=node("1"), b=node("2", inputs={"y": ["a"]})),
            [("b/x", "3", None)],
            ("b/x", "c"),
            id="some go",
        ),
        pytest.param(
            lock_of(
                {"a": "a", "b": "b", "c": ["b"], "d": "d"},
                a=node("1"),
                b=OLD.raw["nodes"]["b"],
                x=OLD.raw["nodes"]["x"],
                d=node("4"),
            ),
            [("d", None, "4")],
            ("c", "d"),
            id="one comes, one follows another",
        ),
    ],
)
def test_differences(new: Lock, changes: list[tuple[str, str | None, str | None]], outside_a: tuple[str, ...]) -> None:
    found = difference(OLD, new)
    assert [(c.input, c.old and c.old.rev, c.new and c.new.rev) for c in found.changes] == changes
    assert found.outside(["a"]) == outside_a
    assert found.outside(None) == ()


@pytest.mark.parametrize(
    ("modified", "date", "age"), [(1762041600, "2025-11-02", 1.0), (1, None, None), (0, None, None), (None, None, None)]
)
def test_dates_and_ages(modified: int | None, date: str | None, age: float | None) -> None:
    pin = pins(lock_of({"a": "a"}, a=node("1", lastModified=modified)))["a"]
    assert (pin.date, pin.age(1762041600 + 86400)) == (date, age)


def test_spellings_of_a_branch_are_no_difference() -> None:
    one, two = (lock_of({"a": "a"}, a=node("1", ref=ref)) for ref in ("main", "refs/heads/main"))
    assert not difference(one, two).touched


@pytest.mark.parametrize(
    ("nodes", "error"),
    [
        ({"root": {"inputs": {"a": "gone"}}}, "names the node 'gone', which is not there"),
        ({"root": {"inputs": {"a": ["b"]}}}, "follows 'b', which is not there"),
        ({"root": {"inputs": {"a": ["b"], "b": ["a"]}}}, "which is not there"),
        ({"root": {"inputs": {"a": "a"}}, "a": {"inputs": {"b": "a"}}}, "node 'a' is an input of itself"),
        ({"root": {"inputs": {"a": 7}}}, "neither a node nor a path"),
        ({"root": []}, "node 'root' is not an object"),
        ({}, "it has no root node"),
    ],
)
def test_broken_graphs(nodes: dict[str, Any], error: str) -> None:
    with pytest.raises(BadInput, match=error):
        parse_lock(json.dumps({"nodes": nodes, "root": "root", "version": 7}), "sbcs", "flake.lock")


def test_followers() -> None:
    assert followed(OLD, ("c",)) == ("a",)
    assert followed(OLD, ("b", "y")) == ("a",)
    assert followed(OLD, ("a",)) is None
    assert reachable(OLD, ["b"]) == {"b", "x"}
    assert resolve(OLD, ["b", "y"]) == "a"
    assert resolve(OLD, ["b", "nosuch"]) is None


@pytest.mark.parametrize(
    ("old", "new", "link"),
    [
        (
            {"type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "1"},
            {"rev": "2"},
            "https://github.com/NixOS/nixpkgs/compare/1...2",
        ),
        (
            {"type": "github", "owner": "o", "repo": "r", "host": "git.corp", "rev": "1"},
            {"rev": "2"},
            "https://git.corp/o/r/compare/1...2",
        ),
        (
            {"type": "gitlab", "owner": "a%2Fb", "repo": "r", "rev": "1"},
            {"rev": "2"},
            "https://gitlab.com/a/b/r/-/compare/1...2",
        ),
        ({"type": "sourcehut", "owner": "~u", "repo": "r", "rev": "1"}, {"rev": "2"}, "https://git.sr.ht/~u/r/log/1..2"),
        ({"type": "github", "owner": "o", "repo": "r", "rev": "1"}, {"rev": "1"}, None),
        ({"type": "github", "owner": "o", "repo": "r", "rev": "1"}, {"rev": "2", "repo": "fork"}, None),
        ({"type": "git", "url": "https://x/y", "rev": "1"}, {"rev": "2"}, None),
        (
            {"type": "github", "owner": "nixos", "repo": "r", "rev": "1"},
            {"rev": "2", "owner": "NixOS"},
            "https://github.com/NixOS/r/compare/1...2",
        ),
    ],
)
def test_compare_links(old: dict[str, Any], new: dict[str, Any], link: str | None) -> None:
    assert compare_link(old, {**old, **new}) == link


# Any lock at all


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    """A lock as nix makes them: a tree of nodes under any keys, with followers of paths that exist."""
    names = st.sampled_from(["nixpkgs", "root", "a", "b", "home-manager"])
    nodes: dict[str, dict[str, Any]] = {"root": {"inputs": {}}}
    paths: list[tuple[tuple[str, ...], str]] = [((), "root")]
    for number in range(draw(st.integers(0, 8))):
        path, parent = draw(st.sampled_from(paths))
        name = draw(names)
        if name in nodes[parent].setdefault("inputs", {}):
            continue
        real = [p for p, _key in paths if p]
        if real and draw(st.booleans()):
            nodes[parent]["inputs"][name] = list(draw(st.sampled_from(real)))
            continue
        key = f"{draw(st.sampled_from(['n', 'root_']))}{number}"
        nodes[key] = node(draw(st.sampled_from("123")))
        nodes[parent]["inputs"][name] = key
        paths.append(((*path, name), key))
    return parse_lock(json.dumps({"nodes": nodes, "root": "root", "version": 7}), "sbcs", "flake.lock")


def renamed(lock: Lock) -> Lock:
    """The same lock with other keys."""
    keys = {key: f"k{number}" for number, key in enumerate(sorted(lock.nodes))}
    nodes = {}
    for key, raw in lock.raw["nodes"].items():
        edges = {n: keys[e] if isinstance(e, str) else e for n, e in raw.get("inputs", {}).items()}
        nodes[keys[key]] = {**raw, "inputs": edges}
    return parse_lock(json.dumps({"nodes": nodes, "root": keys[lock.root], "version": 7}), "sbcs", "flake.lock")


@given(locks())
def test_keys_of_nodes_mean_nothing(lock: Lock) -> None:
    assert not difference(lock, renamed(lock)).touched
    assert pins(lock) == pins(renamed(lock))


@given(locks(), locks())
def test_a_difference_looks_the_same_from_both_sides(one: Lock, two: Lock) -> None:
    there, back = difference(one, two), difference(two, one)
    assert there.touched == back.touched
    assert [(c.input, c.new, c.old) for c in back.changes] == [(c.input, c.old, c.new) for c in there.changes]
    assert {tuple(c.input.split("/")) for c in there.changes} <= there.touched


@given(locks())
def test_an_input_reaches_what_is_below_it_and_all_inputs_reach_everything(lock: Lock) -> None:
    each = [reachable(lock, [name]) for name in root_inputs(lock)]
    assert frozenset().union(*each) == reachable(lock, None) == lock.nodes.keys() - {lock.root}


@given(locks(), locks())
def test_merging(base: Lock, theirs: Lock) -> None:
    """What only one side has moved is taken from it, whatever the other side is called."""
    assert not difference(_merged(base, renamed(base), theirs), theirs).touched
    assert not difference(_merged(base, theirs, base), theirs).touched
    assert not difference(_merged(base, theirs, renamed(theirs)), theirs).touched


def _merged(*locks: Lock) -> Lock:
    lock = merged(*locks)
    assert lock is not None
    return lock


def test_a_merge_takes_the_moves_of_both_sides_and_refuses_two_moves_of_one_input() -> None:
    base = lock_of({"a": "a", "b": "b"}, a=node("1"), b=node("1"))
    ours = lock_of({"a": "a", "b": "b"}, a=node("2"), b=node("1"))
    theirs = lock_of({"a": "x", "b": "y"}, x=node("1"), y=node("3", inputs={"c": "z"}), z=node("4"))
    both = merged(base, ours, theirs)
    assert both is not None
    assert {name: pin.rev for name, pin in pins(both).items()} == {"a": "2", "b": "3"}
    assert merged(base, ours, lock_of({"a": "a", "b": "b"}, a=node("3"), b=node("1"))) is None


@pytest.mark.parametrize(
    ("name", "times", "said"),
    [
        ("nixpkgs", (1763596800, 1762041600), ("nixpkgs goes back from 2025-11-20 to 2025-11-02",)),
        ("nixpkgs", (1762041600, 1763596800), ()),
        ("home/nixpkgs", (1763596800, 1762041600), ()),
        ("nixpkgs", (1763596800, 1), ()),
        ("nixpkgs", (None, 1762041600), ()),
    ],
)
def test_an_input_that_goes_back_is_named(name: str, times: tuple[int | None, int | None], said: tuple[str, ...]) -> None:
    old, new = (Pin("github:NixOS/nixpkgs", "a" * 40, None, time, None) for time in times)
    assert gone_back([Change(name, old, new, None)]) == said
    assert gone_back([Change(name, None, new, None), Change(name, old, None, None)]) == ()
