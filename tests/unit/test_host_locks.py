# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks of a group's hosts beside each other: what is alike is said once, and read once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import locks_at, locks_held
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.flake_source import alike
from ansible_collections.flotilla.nixos.plugins.module_utils.git import Repository
from ansible_collections.flotilla.nixos.plugins.module_utils.host_locks import (
    Relocked,
    all_changes,
    pins_before_and_after,
    relocked,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.lock_message import subject_line, whole_message
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import Lock, parse_lock
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import Member, UpdateGroup, update_group

from .fakes import FakeRunner, Step
from .lock_strategies import node

A = "a" * 40
C = ["git", "-C", "/srv/fleet"]


def group(*hosts: str) -> UpdateGroup:
    return update_group("sbcs", "/srv/fleet", strategy="host_locks", members=[Member(host, f"{host}.attr") for host in hosts])


def lock_text(**digits: str) -> str:
    nodes = {name: node(digit, url=name) for name, digit in digits.items()}
    return json.dumps({"nodes": {**nodes, "root": {"inputs": {n: n for n in digits}}}, "root": "root", "version": 7}, indent=2)


def lock(**digits: str) -> Lock:
    return parse_lock(lock_text(**digits), "sbcs", "x.lock")


def moved(hosts: Sequence[str], old: Lock | None, new: Lock) -> Relocked:
    """The first host's lock, as if all of these had it."""
    everyone = group(*hosts)
    return relocked(everyone.with_lock(f"locks/{hosts[0]}.lock"), old, new, new.to_text())


OLD, MID, NEW = lock(nixpkgs="1"), lock(nixpkgs="2"), lock(nixpkgs="3")


@pytest.mark.parametrize(
    ("locks", "hosts", "subject"),
    [
        ([moved(["a"], OLD, NEW)], [()], "sbcs: nixpkgs 1111111 → 3333333"),
        ([moved(["a"], OLD, NEW), moved(["b"], OLD, NEW)], [()], "sbcs: nixpkgs 1111111 → 3333333"),
        ([moved(["a"], NEW, NEW), moved(["b", "c"], OLD, NEW)], [("b", "c")], "sbcs: nixpkgs 1111111 → 3333333 on b, c"),
        ([moved(["a"], OLD, NEW), moved(["b"], MID, NEW)], [("a",), ("b",)], "sbcs: nixpkgs → 3333333"),
        ([moved(["a"], OLD, MID), moved(["b"], OLD, NEW)], [("a",), ("b",)], "sbcs: nixpkgs → 2222222 or 3333333"),
        ([moved(["a"], OLD, NEW), moved(["b"], None, NEW)], [("a",), ("b",)], "sbcs: nixpkgs → 3333333"),
        ([moved(["a"], NEW, NEW), moved(["b"], None, NEW)], [("b",)], "sbcs: nixpkgs added on b"),
    ],
)
def test_a_change_is_named_once_and_with_its_hosts_if_it_is_not_for_all(
    locks: list[Relocked], hosts: list[tuple[str, ...]], subject: str
) -> None:
    changes = all_changes(locks)
    assert [change.hosts for change in changes] == hosts
    assert subject_line("sbcs", changes) == subject


def test_the_message_has_the_hosts_and_the_lock_files() -> None:
    locks = [moved(["a"], OLD, NEW), moved(["b"], MID, NEW)]
    message = whole_message("sbcs", all_changes(locks), locks=["locks/a.lock", "locks/b.lock"])
    assert "\n\nnixpkgs on a:\n" in message
    assert "\n\nnixpkgs on b:\n" in message
    assert message.endswith("\n\nLock files:\n  locks/a.lock\n  locks/b.lock\n")


def test_pins_as_text() -> None:
    before, after = pins_before_and_after([moved(["a"], OLD, NEW), moved(["b", "c"], MID, NEW)])
    assert [line.split(": ")[0] for line in before.splitlines()] == ["a", "b, c"]
    assert [line.split(": ")[0] for line in after.splitlines()] == ["a", "b, c"]
    before, _after = pins_before_and_after([moved(["a"], OLD, NEW), moved(["b"], OLD, NEW)])
    assert before.startswith("nixpkgs: ")


def repository(*steps: Step) -> Repository:
    return Repository(FakeRunner(*steps), "sbcs", "/srv/fleet", "/srv/fleet/.git", bare=False, shallow=False)


def listed(**blobs: str) -> Step:
    """What git has of the locks of a, b and c."""
    lines = "".join(
        f"{'120000' if blob == 'link' else '100644'} blob {blob}\tlocks/{host}.lock\0" for host, blob in blobs.items()
    )
    return Step([*C, "ls-tree", "-z", A, "--", "locks/a.lock", "locks/b.lock", "locks/c.lock"], lines)


def test_a_text_that_several_hosts_have_is_read_once() -> None:
    repo = repository(listed(a="1", b="2", c="1"), *(Step([*C, "cat-file", "blob", b], lock_text(nixpkgs=b)) for b in "12"))
    found = locks_at(repo, group("a", "b", "c"), A)
    assert [part.lock for part, _lock in found] == ["locks/a.lock", "locks/b.lock", "locks/c.lock"]
    assert [lock and lock.nodes["nixpkgs"].locked["rev"][0] for _part, lock in found] == ["1", "2", "1"]


def test_a_host_without_a_lock_and_one_whose_lock_is_a_link() -> None:
    assert locks_at(repository(listed()), group("a", "b", "c"), A) == [(part, None) for part in group("a", "b", "c").parts()]
    with pytest.raises(BadInput, match=r"the lock locks/b\.lock is a symbolic link"):
        locks_at(repository(listed(b="link")), group("a", "b", "c"), A)


def test_hosts_are_gathered_by_what_is_in_their_locks() -> None:
    one, two = alike(repository(listed(a="1", b="2", c="1")), group("a", "b", "c"), A)
    assert (one.group.lock, [member.name for member in one.group.members]) == ("locks/a.lock", ["a", "c"])
    assert one.own == {"a.attr": "locks/a.lock", "c.attr": "locks/c.lock"}
    assert (two.group.lock, two.own) == ("locks/b.lock", {"b.attr": "locks/b.lock"})
    own = update_group("sbcs", "/srv/fleet")
    assert [some.group for some in alike(repository(), own, A)] == [own]


class Recorder:
    """A runner of whose commands all succeed; `links` has the locks that they were for."""

    name = "builder"

    def __init__(self) -> None:
        self.links: list[str] = []

    def run(self, argv: Sequence[str], **_more: Any) -> RunResult:
        self.links.append(argv[4])
        return RunResult(tuple(argv), 0, "", "", 0.0)


def test_locks_are_taken_in_one_order_and_each_once() -> None:
    runner = Recorder()
    repo = Repository(runner, "sbcs", "/srv/fleet", "/g", bare=False, shallow=False)
    with locks_held(repo, ["locks/b.lock", "locks/a.lock", "locks/b.lock"], "owner"):
        assert runner.links == ["/g/flotilla/busy/locks+a.lock", "/g/flotilla/busy/locks+b.lock"]
    assert runner.links[2:] == ["/g/flotilla/busy/locks+b.lock", "/g/flotilla/busy/locks+a.lock"]
