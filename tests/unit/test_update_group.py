# SPDX-License-Identifier: GPL-3.0-or-later
"""Update groups: the strategies' defaults, overrides, and names that would lead astray."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES, Member, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import groups_from_options


@pytest.mark.parametrize(
    ("fields", "branch", "flake", "lock"),
    [
        ({}, None, "hosts/sbcs", "hosts/sbcs/flake.lock"),
        ({"strategy": "group_repos"}, None, ".", "flake.lock"),
        ({"strategy": "group_branches"}, "sbcs", ".", "flake.lock"),
        ({"strategy": "host_locks"}, None, ".", "locks/{host}.lock"),
        ({"strategy": "host_locks", "lock": "./locks/{group}.lock"}, None, ".", "locks/sbcs.lock"),
        ({"lock": "pins/{group}//{host}/flake.lock"}, None, "hosts/sbcs", "pins/sbcs/{host}/flake.lock"),
        ({"strategy": "stage_flakes", "flake": "env/dev"}, None, "env/dev", "env/dev/flake.lock"),
        ({"strategy": "host_locks", "flake": "nix"}, None, "nix", "locks/{host}.lock"),
        ({"flake": "./fleet//sbcs/", "branch": "field"}, "field", "fleet/sbcs", "fleet/sbcs/flake.lock"),
        ({"lock": "pins/sbcs.lock"}, None, "hosts/sbcs", "pins/sbcs.lock"),
    ],
)
def test_fields(fields: dict[str, Any], branch: str | None, flake: str, lock: str) -> None:
    group = update_group("sbcs", "/srv/fleet/", **fields)
    assert (group.repo, group.branch, group.flake, group.lock) == ("/srv/fleet", branch, flake, lock)


def members(*names: str) -> list[Member]:
    return [Member(name, f"{name}-attribute") for name in names]


def test_a_lock_for_each_host() -> None:
    group = update_group("sbcs", "/srv/fleet", strategy="host_locks", members=members("pi-1", "pi.2", "pi-1"))
    one, two = group.parts()
    assert (one.name, one.lock, [member.name for member in one.members]) == ("sbcs", "locks/pi-1.lock", ["pi-1", "pi-1"])
    assert (two.name, two.lock, two.members) == ("sbcs", "locks/pi.2.lock", (Member("pi.2", "pi.2-attribute"),))
    assert group.locks == ("locks/pi-1.lock", "locks/pi.2.lock")
    assert one.parts() == (one,)


def test_a_lock_for_the_group_is_one_part_whoever_is_in_it() -> None:
    for group in (update_group("sbcs", "/srv/fleet"), update_group("sbcs", "/srv/fleet", members=members("a", "b"))):
        assert group.parts() == (group,)
        assert group.locks == ("hosts/sbcs/flake.lock",)


def test_locks_of_hosts_that_nobody_names() -> None:
    group = update_group("sbcs", "/srv/fleet", strategy="host_locks")
    assert group.locks == ()
    with pytest.raises(BadInput, match=r"sbcs: each host has a lock of its own \(locks/\{host\}\.lock\), and no host is named"):
        group.parts()


@pytest.mark.parametrize(
    ("lock", "path", "named", "owned"),
    [
        ("locks/{host}.lock", "locks/pi-1.lock", ["pi-1", "pi-2"], True),
        ("locks/{host}.lock", "locks/pi-3.lock", ["pi-1", "pi-2"], False),
        ("locks/{host}.lock", "locks/pi-3.lock", [], True),
        ("locks/{host}.lock", "locks/a/b.lock", [], False),
        ("locks/{host}.lock", "locks/.lock", [], False),
        ("locks/{host}.lock", "locks/pi-3xlock", [], False),
        ("{host}/{host}.lock", "a/a.lock", [], True),
        ("{host}/{host}.lock", "a/b.lock", [], False),
        ("flake.lock", "flake.lock", [], True),
        ("flake.lock", "flake.nix", ["pi-1"], False),
    ],
)
def test_whose_a_lock_file_is(lock: str, path: str, named: list[str], owned: bool) -> None:
    assert update_group("sbcs", "/srv/fleet", lock=lock, members=members(*named)).owns(path) is owned


def test_groups_with_a_lock_in_common() -> None:
    hosts, same = (update_group(n, "/r", strategy="host_locks", members=members(*m)) for n, m in (("a", "xy"), ("b", "yz")))
    apart, none = (update_group(n, "/r", strategy="host_locks", members=members(*m)) for n, m in (("c", "uv"), ("d", "")))
    assert hosts.shares_lock(same)
    assert not hosts.shares_lock(apart)
    assert not hosts.shares_lock(none)
    assert hosts.shares_lock(update_group("e", "/r", lock="locks/x.lock"))


@pytest.mark.parametrize(
    ("lock", "error"),
    [
        ("locks/{hots}.lock", r"there is no placeholder \{hots\}\. Use \{host\} for a lock per host and \{group\}"),
        ("locks/{}.lock", r"there is no placeholder \{\}"),
        ("locks/{host.lock", "not a plain path"),
        ("../{host}.lock", "not a plain path"),
        ("-{host}.lock", "not a plain path"),
    ],
)
def test_placeholders_that_cannot_be(lock: str, error: str) -> None:
    with pytest.raises(BadInput, match=error):
        update_group("sbcs", "/srv/fleet", lock=lock)


BAD = ["a b", "quo'te", 'quo"te', "semi;colon", "$(id)", "-dash", "../up", "a/../b", "new\nline", "", "a\0b"]


@pytest.mark.parametrize("name", [*BAD, "a/b", ".hidden", "x.lock", "a..b"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(BadInput, match="this name cannot be used"):
        update_group(name, "/srv/fleet")


@pytest.mark.parametrize("field", ["flake", "lock"])
@pytest.mark.parametrize("path", [*(name for name in BAD if name), "/etc", "a/-b"])
def test_paths_that_cannot_be(field: str, path: str) -> None:
    with pytest.raises(BadInput, match="not a plain path inside the repository"):
        update_group("sbcs", "/srv/fleet", **{field: path})


@pytest.mark.parametrize(
    "branch", [*(name for name in BAD if name), "HEAD", "a//b", "x.lock", "a..b", ".a", "a.", "a:b", "a^", "refs/~1"]
)
def test_branches_that_cannot_be(branch: str) -> None:
    with pytest.raises(BadInput, match="is not the name of a branch"):
        update_group("sbcs", "/srv/fleet", branch=branch)


# An apostrophe is good in a name of nix's language.
@pytest.mark.parametrize("name", [*(name for name in BAD if name != "quo'te"), "a//b", "/a"])
def test_inputs_that_cannot_be(name: str) -> None:
    with pytest.raises(BadInput, match="is not the name of an input"):
        update_group("sbcs", "/srv/fleet", inputs=[name])


@pytest.mark.parametrize("repo", ["fleet", "../fleet", "", "-C", "/srv/../etc", "/srv/a\nb"])
def test_repositories_that_cannot_be(repo: str) -> None:
    with pytest.raises(BadInput, match="is not the absolute path of a repository"):
        update_group("sbcs", repo)


def test_a_strategy_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(BadInput, match=", ".join(STRATEGIES)):
        update_group("sbcs", "/srv/fleet", strategy="magic")


def option(name: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("branch", "flake", "lock", "inputs", "commit"))
    return {"name": name, "repo": "/srv/fleet", "strategy": "group_flakes", "hosts": [], **nothing}


def test_groups_are_named_once() -> None:
    assert [group.name for group in groups_from_options([option("a"), option("b")])] == ["a", "b"]
    with pytest.raises(BadInput, match="a: this update group is given twice"):
        groups_from_options([option("a"), option("a")])


@pytest.mark.parametrize(
    ("own", "wish", "inputs", "named"),
    [
        (None, Wish(), None, None),
        (None, Wish(("a",)), ("a",), ("a",)),
        (None, Wish((), {"a": "1"}), (), ("a",)),
        (None, Wish(None, {"a": "1"}), (), ("a",)),
        (None, Wish(("a", "b", "a"), {"a": "1"}), ("b",), ("b", "a")),
        (None, Wish(("*",), {"a": "1"}), None, None),
        (("a", "b"), Wish(("*",), {"a": "1"}), ("b",), ("b", "a")),
        (("a", "b"), Wish(), ("a", "b"), ("a", "b")),
        (("a", "b"), Wish(("a/x",)), ("a/x",), ("a/x",)),
        (("a", "b"), Wish(None, {"b": "1"}), (), ("b",)),
    ],
)
def test_what_moves(
    own: tuple[str, ...] | None, wish: Wish, inputs: tuple[str, ...] | None, named: tuple[str, ...] | None
) -> None:
    found = wish.within(update_group("sbcs", "/srv/fleet", inputs=own))
    assert (found.inputs, found.named) == (inputs, named)


@pytest.mark.parametrize(
    ("own", "wish", "error"),
    [
        (("a",), Wish(("b",)), "input b is not one that this group may move"),
        (("a/x",), Wish(("a",)), "input a is not one"),
        (("a",), Wish(None, {"b": "1"}), "input b is not one"),
        ((), Wish(), "none may move"),
        (None, Wish(()), "none may move"),
        (None, Wish(("-x",)), "is not the name of an input"),
    ],
)
def test_what_may_not_move(own: tuple[str, ...] | None, wish: Wish, error: str) -> None:
    with pytest.raises(BadInput, match=error):
        wish.within(update_group("sbcs", "/srv/fleet", inputs=own))
