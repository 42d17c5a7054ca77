# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock for each host, with real nix and git: what moves, what does not by a bit, what is built with which, and bad input."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Candidate, Run, make_candidate, publish
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, FlotillaError
from ansible_collections.flotilla.nixos.plugins.module_utils.git import open_repository
from ansible_collections.flotilla.nixos.plugins.module_utils.group_build import BuildSettings, GroupBuild, build_groups
from ansible_collections.flotilla.nixos.plugins.module_utils.group_info import inspect, shared_inputs
from ansible_collections.flotilla.nixos.plugins.module_utils.landing import accept, discard
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import Source
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger_record import Occasion, Report, as_rollout
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import parse_lock, pins
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.pairing import Choice
from ansible_collections.flotilla.nixos.plugins.module_utils.promotion import promote, restore
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import Member, UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Fixture, fixture, sh

RUNNER = LocalRunner()
HOSTS = ("pi-1", "pi-2", "pi-3")


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


@pytest.fixture
def made(tmp_path: Path) -> Fixture:
    """One flake with three hosts, each with a lock of its own at upstream's version 1; upstream has 2."""
    made = fixture(tmp_path)
    made.repo.git("config", "user.name", "Op Erator")
    made.repo.git("config", "user.email", "op@example.org")
    made.group("all", {f"{host}-attribute": f'lib.host {{ name = "{host}"; }}' for host in HOSTS}, flake=".", lock=False)
    for host in HOSTS:
        lock(made, host)
    made.repo.commit()
    made.release("2")
    return made


def lock(made: Fixture, host: str) -> None:
    """Lock a host to what upstream has, by nix alone."""
    (made.repo.path / "locks").mkdir(exist_ok=True)
    path = f"{made.repo.path}/locks/{host}.lock"
    sh("nix", "flake", "update", "--flake", f"path:{made.repo.path}", "--output-lock-file", path)


def group_of(made: Fixture, *hosts: str, name: str = "sbcs", **more: Any) -> UpdateGroup:
    members = [Member(host, f"{host}-attribute") for host in hosts or HOSTS]
    return update_group(name, str(made.repo.path), strategy="host_locks", members=members, **more)


def run() -> Run:
    return Run(f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester")


def update(group: UpdateGroup, *inputs: str, **more: Any) -> Candidate:
    candidate = make_candidate(RUNNER, group, run(), Wish(inputs or None), **more)
    publish(candidate)
    return candidate


def build(group: UpdateGroup, commit: str | None = None) -> GroupBuild:
    return build_groups(RUNNER, [(group, commit)], BuildSettings()).groups[group.name]


def blobs(made: Fixture, commit: str = "main") -> dict[str, str]:
    """What every file of a commit is, to the bit."""
    lines = made.repo.git("ls-tree", "-r", commit).splitlines()
    return {path: facts for facts, path in (line.split("\t") for line in lines)}


def changed(made: Fixture, old: str, new: str) -> set[str]:
    before, after = blobs(made, old), blobs(made, new)
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def rev(made: Fixture, host: str, commit: str = "main") -> str | None:
    path = f"locks/{host}.lock"
    return pins(parse_lock(made.repo.git("show", f"{commit}:{path}") + "\n", "test", path))["nixpkgs"].rev


def upstream(made: Fixture, revision: str = "main") -> str:
    return made.upstream.git("rev-parse", revision)


def test_an_update_of_one_host_leaves_the_others_locks_as_they_are_to_the_bit(made: Fixture) -> None:
    found = update(group_of(made, "pi-1"))
    assert changed(made, found.base, found.commit) == {"locks/pi-1.lock"}
    assert rev(made, "pi-1", found.commit) == upstream(made)
    assert found.locks == ("locks/pi-1.lock",)
    assert found.message.startswith("sbcs: nixpkgs ")
    landed = accept(RUNNER, group_of(made, "pi-1"), run(), commit=found.commit)
    assert (landed.changed, landed.commit) == (True, found.commit)
    assert {host: rev(made, host) for host in HOSTS[1:]} == dict.fromkeys(HOSTS[1:], upstream(made, "main~1"))
    assert not update(group_of(made, "pi-1")).changed


def test_an_update_of_the_group_is_one_commit_for_all_its_locks(made: Fixture) -> None:
    found = update(group_of(made))
    assert changed(made, found.base, found.commit) == {f"locks/{host}.lock" for host in HOSTS}
    assert {rev(made, host, found.commit) for host in HOSTS} == {upstream(made)}
    [change] = found.changes
    assert (change.input, change.hosts) == ("nixpkgs", ())
    body = made.repo.git("show", "--no-patch", "--format=%B", found.commit)
    assert "Lock files:\n  locks/pi-1.lock\n  locks/pi-2.lock\n  locks/pi-3.lock" in body
    assert not list((made.repo.path / ".git/flotilla/busy").iterdir())
    again = update(group_of(made))
    assert (again.changed, again.commit) == (False, found.commit)
    assert discard(RUNNER, group_of(made)).changed
    assert update(group_of(made)).changed


def test_locks_that_differ_are_told_apart_and_come_together(made: Fixture) -> None:
    first = update(group_of(made, "pi-1"))
    accept(RUNNER, group_of(made, "pi-1"), run(), commit=first.commit)
    made.release("3")
    found = update(group_of(made))
    moves = {change.hosts: (change.old and change.old.rev, change.new and change.new.rev) for change in found.changes}
    one, two, three = (upstream(made, f"main~{back}") for back in (2, 1, 0))
    assert moves == {("pi-1",): (two, three), ("pi-2", "pi-3"): (one, three)}
    assert found.message == f"sbcs: nixpkgs → {three[:7]}"
    body = made.repo.git("show", "--no-patch", "--format=%b", found.commit)
    assert "nixpkgs on pi-1:\n" in body
    assert "nixpkgs on pi-2, pi-3:\n" in body
    assert f"pi-1: nixpkgs: file://{made.upstream.path} main {two}" in found.before
    assert f"pi-2, pi-3: nixpkgs: file://{made.upstream.path} main {one}" in found.before


def test_each_host_is_built_with_its_own_lock(made: Fixture) -> None:
    candidate = update(group_of(made, "pi-2"))
    built = build(group_of(made), candidate.commit)
    assert not built.error
    assert {host.name: (host.version, host.error) for host in built.hosts} == {
        "pi-1": ("1", ""),
        "pi-2": ("2", ""),
        "pi-3": ("1", ""),
    }


def test_a_host_without_a_lock_gets_one_with_the_others_revisions(made: Fixture) -> None:
    made.repo.git("rm", "--quiet", "locks/pi-3.lock")
    made.repo.git("commit", "--quiet", "-m", "A new host")
    built = build(group_of(made))
    errors = {host.name: host.error for host in built.hosts}
    assert (errors["pi-1"], errors["pi-2"]) == ("", "")
    assert errors["pi-3"].startswith("sbcs: there is no lock locks/pi-3.lock at commit ")
    found = update(group_of(made))
    assert {rev(made, host, found.commit) for host in HOSTS} == {upstream(made)}
    assert [change.hosts for change in found.changes] == [("pi-1", "pi-2"), ("pi-3",)]
    assert not build(group_of(made), found.commit).failed_hosts


def test_hosts_of_one_group_land_one_after_the_other_though_the_branch_has_moved(made: Fixture) -> None:
    one, two = group_of(made, "pi-1"), group_of(made, "pi-2")
    first = update(one)
    second = update(two)
    accept(RUNNER, one, run(), commit=first.commit)
    landed = accept(RUNNER, two, run(), commit=second.commit)
    assert landed.merged
    assert [rev(made, host) for host in HOSTS] == [upstream(made), upstream(made), upstream(made, "main~1")]
    with pytest.raises(BadInput, match="is no candidate: it changes more than"):
        accept(RUNNER, two, run(), commit=update(group_of(made, "pi-3", name="other")).commit)


def test_one_lock_that_moved_otherwise_on_the_branch_is_named(made: Fixture) -> None:
    found = update(group_of(made))
    made.release("3")
    lock(made, "pi-2")
    made.repo.commit()
    before = made.repo.state()
    with pytest.raises(BadInput, match=r"branch main has moved, and its locks/pi-2\.lock cannot be merged"):
        accept(RUNNER, group_of(made), run(), commit=found.commit)
    assert made.repo.state() == before


def conflict(made: Fixture) -> None:
    made.repo.write("locks/pi-2.lock", "<<<<<<< ours\n{}\n=======\n>>>>>>> theirs\n")
    made.repo.commit()


def symlink(made: Fixture) -> None:
    (made.repo.path / "locks/pi-2.lock").unlink()
    (made.repo.path / "locks/pi-2.lock").symlink_to("pi-1.lock")
    made.repo.commit()


def uncommitted(made: Fixture) -> None:
    path = made.repo.path / "locks/pi-2.lock"
    path.write_text(json.dumps(json.loads(path.read_text())))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (conflict, r"locks/pi-2\.lock.*merge conflict"),
        (symlink, r"the lock locks/pi-2\.lock is a symbolic link. Name the file it leads to in flotilla_lock"),
        (uncommitted, r"the lock locks/pi-2\.lock has uncommitted changes"),
    ],
)
def test_one_bad_lock_stops_the_update_of_its_group_and_of_no_other_host(made: Fixture, spoil: Any, error: str) -> None:
    spoil(made)
    before = made.repo.state()
    with pytest.raises(FlotillaError, match=error):
        update(group_of(made))
    assert made.repo.state() == before
    assert changed(made, "main", update(group_of(made, "pi-1")).commit) == {"locks/pi-1.lock"}


@pytest.mark.parametrize(("spoil", "error"), [(conflict, "merge conflict"), (symlink, "is a symbolic link")])
def test_one_bad_lock_fails_its_host_alone(made: Fixture, spoil: Any, error: str) -> None:
    spoil(made)
    failed = {host.name: host.error for host in build(group_of(made)).failed_hosts}
    assert list(failed) == ["pi-2"]
    assert "locks/pi-2.lock" in failed["pi-2"]
    assert error in failed["pi-2"]


def test_hosts_with_the_same_pins_are_evaluated_together_and_their_errors_name_their_own_locks(made: Fixture) -> None:
    hosts = {f"{host}-attribute": f'lib.host {{ name = "{host}"; }}' for host in HOSTS} | {
        "pi-2-attribute": 'throw "no such board"'
    }
    made.group("all", hosts, flake=".", lock=False)
    said: list[str] = []
    [built] = build_groups(RUNNER, [(group_of(made), None)], BuildSettings(), said.append).groups.values()
    [failed] = built.failed_hosts
    assert failed.name == "pi-2"
    assert "evaluation of pi-2-attribute failed: no such board" in failed.error
    assert f"--reference-lock-file {made.repo.path}/locks/pi-2.lock" in failed.error
    assert not any("differ" in line for line in said)


def test_locks_that_lag_behind_flake_nix_fail_their_hosts_and_no_other(made: Fixture) -> None:
    flake = (made.repo.path / "flake.nix").read_text().replace("nixpkgs }", "nixpkgs, ... }")
    more = f'{{\n  inputs.extra.url = "git+file://{made.upstream.path}?ref=main";\n'
    made.repo.write("flake.nix", flake.replace("{\n", more, 1))
    lock(made, "pi-3")
    made.repo.commit()
    failed = {host.name: host.error for host in build(group_of(made)).failed_hosts}
    assert set(failed) == {"pi-1", "pi-2"}
    assert "locks/pi-1.lock (and locks/pi-2.lock, which is the same) is not complete for its flake.nix" in failed["pi-2"]


def test_info_is_of_each_lock(made: Fixture) -> None:
    accept(RUNNER, group_of(made, "pi-1"), run(), commit=update(group_of(made, "pi-1")).commit)
    conflict(made)
    in_a_year = time.time() + 365 * 86400
    info = inspect(RUNNER, group_of(made), now=in_a_year, max_age=30)
    states = {lock.path: (lock.hosts, str(lock.state)) for lock in info.locks}
    assert states == {
        "locks/pi-1.lock": (("pi-1",), "locked"),
        "locks/pi-2.lock": (("pi-2",), "broken"),
        "locks/pi-3.lock": (("pi-3",), "locked"),
    }
    pinned = {lock.path: known.pin.rev for lock in info.locks for known in lock.inputs.values()}
    assert pinned == {"locks/pi-1.lock": upstream(made), "locks/pi-3.lock": upstream(made, "main~1")}
    assert info.lock_state == "broken"
    assert info.lock_age == max(lock.age for lock in info.locks if lock.age)
    assert info.hosts == tuple(f"{host}-attribute" for host in HOSTS)
    said = [problem.what for problem in info.problems]
    assert [what for what in said if "merge conflict" in what and what.endswith("(pi-2)")]
    assert "the input nixpkgs is 365 days old (pi-1, pi-3)" in said
    assert not [what for what in said if "has hosts that the group has not" in what]


def test_info_of_a_host_that_the_flake_has_not_and_of_a_group_that_names_none(made: Fixture) -> None:
    info = inspect(RUNNER, group_of(made, "pi-1", "pi-9"), now=time.time())
    said = [problem.what for problem in info.problems]
    assert any("there is no lock locks/pi-9.lock" in what and what.endswith("(pi-9)") for what in said)
    assert any("there is no 'pi-9-attribute'" in what for what in said)
    assert any("has hosts that the group has not: pi-2-attribute, pi-3-attribute" in what for what in said)
    nobody = update_group("sbcs", str(made.repo.path), strategy="host_locks")
    [problem] = inspect(RUNNER, nobody, now=time.time()).problems
    assert problem.what == "each host has a lock of its own (locks/{host}.lock), and no host is named"


def test_groups_share_only_locks_that_are_the_same_file(made: Fixture) -> None:
    hosts = {"a": "pi-1", "b": "pi-2", "c": "pi-1"}
    groups = [inspect(RUNNER, group_of(made, host, name=name), now=0, evaluate=False) for name, host in hosts.items()]
    shared_inputs(groups)
    moves = {info.group.name: [p.what for p in info.problems if p.what.startswith("an update of")] for info in groups}
    assert moves == {
        "a": ["an update of nixpkgs moves the group c too, which has the same lock"],
        "b": [],
        "c": ["an update of nixpkgs moves the group a too, which has the same lock"],
    }


def ahead(made: Fixture, *hosts: str) -> None:
    """Let these hosts have version 2, landed."""
    group = group_of(made, *hosts)
    accept(RUNNER, group, run(), commit=update(group).commit)


def test_one_host_is_promoted_to_its_neighbours_and_from_a_group_with_one_lock(made: Fixture) -> None:
    ahead(made, "pi-1")
    made.release("3")
    canary, stable = group_of(made, "pi-1", name="canary"), group_of(made, "pi-2", "pi-3", name="stable")
    found = promote(RUNNER, stable, run(), canary, Choice())
    assert changed(made, found.base, found.commit) == {"locks/pi-2.lock", "locks/pi-3.lock"}
    assert {rev(made, host, found.commit) for host in HOSTS} == {upstream(made, "main~1")}
    assert found.message.endswith("(from canary)")
    made.repo.git("mv", "locks/pi-1.lock", "flake.lock")
    made.repo.git("commit", "--quiet", "-m", "One lock")
    found = promote(RUNNER, stable, run(), group_of(made, name="canary", lock="flake.lock"), Choice())
    assert {rev(made, host, found.commit) for host in HOSTS[1:]} == {upstream(made, "main~1")}


def test_hosts_of_a_source_have_to_agree_on_what_is_promoted(made: Fixture) -> None:
    ahead(made, "pi-1")
    source, target = group_of(made, "pi-1", "pi-2", name="canary"), group_of(made, "pi-3", name="stable")
    before = made.repo.state()
    with pytest.raises(
        BadInput, match=r"canary: its hosts have different pins of nixpkgs: pi-2 others than pi-1\. Update canary as"
    ):
        promote(RUNNER, target, run(), source, Choice())
    assert made.repo.state() == before
    ahead(made, "pi-2")
    found = promote(RUNNER, target, run(), source, Choice())
    assert changed(made, found.base, found.commit) == {"locks/pi-3.lock"}


def test_each_host_gets_its_own_pins_back(made: Fixture) -> None:
    ahead(made, "pi-1")
    made.repo.git("rm", "--quiet", "locks/pi-3.lock")
    made.repo.git("commit", "--quiet", "-m", "Without pi-3")
    old = made.repo.git("rev-parse", "main")
    made.release("3")
    ahead(made, *HOSTS)
    found = restore(RUNNER, group_of(made), run(), old)
    assert [blobs(made, found.commit)[f"locks/{host}.lock"] for host in HOSTS[:2]] == [
        blobs(made, old)[f"locks/{host}.lock"] for host in HOSTS[:2]
    ]
    assert changed(made, found.base, found.commit) == {"locks/pi-1.lock", "locks/pi-2.lock"}
    assert f"sbcs: locks/pi-3.lock came after {old[:7]}; kept as at the branch's head." in found.warnings
    assert found.message.endswith(f"(back to {old[:7]})")
    with pytest.raises(BadInput, match=r"there is no lock locks/pi-3\.lock at commit"):
        restore(RUNNER, group_of(made, "pi-3"), run(), old)


def test_the_ledger_has_pins_that_differ_by_host(made: Fixture) -> None:
    ahead(made, "pi-1")
    repo = open_repository(RUNNER, str(made.repo.path), "sbcs")
    report = Report(group_of(made, "pi-1", "pi-2"), None, Source.HEAD, {})
    [pin] = as_rollout(repo, report, Occasion("id", "switch", 1, 2)).pins.values()
    assert (pin["rev"], pin["hosts"]) == (None, {"pi-1": upstream(made), "pi-2": upstream(made, "main~1")})
    alike = Report(group_of(made, "pi-2", "pi-3"), None, Source.HEAD, {})
    [pin] = as_rollout(repo, alike, Occasion("id", "switch", 1, 2)).pins.values()
    assert pin["rev"] == upstream(made, "main~1")
    assert "hosts" not in pin
