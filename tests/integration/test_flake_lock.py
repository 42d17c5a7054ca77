# SPDX-License-Identifier: GPL-3.0-or-later
"""flake_lock with real nix and git: what a candidate changes and what it leaves alone, landing, and bad input."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.builder_files import held
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import (
    Candidate,
    Run,
    candidate_ref,
    make_candidate,
    publish,
    replaced_ref,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed, FlotillaError
from ansible_collections.flotilla.nixos.plugins.module_utils.landing import accept, discard
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import parse_lock, pins
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import QUICK, RunResult
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils import runners
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Fixture, Repo, fixture, new_repo, sh
from testbed.playbooks import Ansible

RUNNER = LocalRunner()
LOCK = "hosts/sbcs/flake.lock"


def owner() -> str:
    return f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester"


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


@pytest.fixture
def fleet_repo(tmp_path: Path) -> Fixture:
    """The groups servers and sbcs, locked to upstream's version 1; upstream has 2."""
    made = fixture(tmp_path)
    identify(made.repo)
    for name in ("servers", "sbcs"):
        made.group(name, {f"{name}-1": f'lib.host {{ name = "{name}-1"; }}'})
    made.release("2")
    return made


def identify(repo: Repo) -> None:
    repo.git("config", "user.name", "Op Erator")
    repo.git("config", "user.email", "op@example.org")


def group_of(repo: Repo, name: str = "sbcs", **fields: Any) -> UpdateGroup:
    return update_group(name, str(repo.path), **fields)


def update(
    group: UpdateGroup, *inputs: str, run: Run | None = None, pins: Mapping[str, str] | None = None, **more: Any
) -> Candidate:
    made = make_candidate(RUNNER, group, run or Run(owner()), Wish(inputs or None, pins or {}), **more)
    publish(made)
    return made


def land(group: UpdateGroup, **more: Any) -> Any:
    return accept(RUNNER, group, Run(owner()), **more)


def files(repo: Repo) -> dict[str, str]:
    """Hashes of all files of the work tree."""
    return {
        str(path.relative_to(repo.path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(repo.path.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(repo.path).parts
    }


def everything(repo: Repo) -> tuple[object, ...]:
    """Branches, index, files: all but our own refs."""
    refs = [line for line in repo.git("for-each-ref").splitlines() if "refs/flotilla/" not in line]
    return (
        refs,
        repo.git("status", "--porcelain", "--ignored"),
        repo.git("ls-files", "--stage"),
        files(repo),
        repo.git("stash", "list"),
    )


def rev_at(repo: Repo, commit: str, lock: str = LOCK, name: str = "nixpkgs") -> str | None:
    return pins(parse_lock(repo.git("show", f"{commit}:{lock}") + "\n", "test", lock))[name].rev


# What an update is


def test_a_candidate_is_a_commit_that_changes_one_lock_and_touches_nothing_else(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    before = everything(repo)
    made = update(group)
    assert everything(repo) == before
    assert made.changed
    assert made.base == repo.git("rev-parse", "main")
    assert repo.git("rev-parse", candidate_ref(group)) == made.commit
    assert repo.git("diff-tree", "-r", "--name-only", made.base, made.commit) == LOCK
    assert repo.git("rev-parse", f"{made.commit}^") == made.base
    newest = fleet_repo.upstream.git("rev-parse", "main")
    assert [(change.input, change.new and change.new.rev) for change in made.changes] == [("nixpkgs", newest)]
    assert rev_at(repo, made.commit) == newest
    subject, _, body = repo.git("show", "--no-patch", "--format=%B", made.commit).partition("\n")
    assert subject == made.message
    assert subject.startswith("sbcs: nixpkgs ")
    assert newest in body
    assert not list((repo.path / ".git/flotilla/busy").iterdir())


def test_the_same_update_again_changes_nothing(fleet_repo: Fixture) -> None:
    group = group_of(fleet_repo.repo)
    first, second = update(group), update(group)
    assert (first.changed, second.changed) == (True, False)
    assert second.commit == first.commit
    assert second.changes == first.changes


def test_landing_moves_the_lock_and_no_other_file_and_again_does_nothing(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    before = files(repo)
    made = update(group)
    landing = land(group)
    after = files(repo)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {LOCK}
    assert landing.changed
    assert landing.commit == made.commit == repo.git("rev-parse", "main")
    assert not landing.merged
    assert repo.git("status", "--porcelain") == ""
    assert repo.git("for-each-ref", "refs/flotilla") == ""
    again = land(group)
    assert not again.changed
    assert again.commit == made.commit
    nothing = update(group)
    assert (nothing.changed, nothing.candidate, nothing.commit) == (False, None, made.commit)
    sh("nix", "flake", "lock", "--no-update-lock-file", f"git+file://{repo.path}?dir=hosts/sbcs")


def test_discarding_leaves_no_trace(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    before = repo.state()
    update(group)
    assert discard(RUNNER, group).changed
    assert not discard(RUNNER, group).changed
    assert repo.state() == before


def test_a_left_over_candidate_is_replaced_or_deleted(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    old = update(group)
    fleet_repo.release("3")
    new = update(group)
    assert new.previous == old.commit
    assert new.commit != old.commit
    land(group)
    repo.git("update-ref", candidate_ref(group), old.commit)
    nothing = update(group)
    assert nothing.changed
    # Hosts of a rollout that halted may run them.
    assert repo.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/flotilla") == f"{replaced_ref(group)} {old.commit}"


def test_uncommitted_work_stays_as_it_is_and_is_named(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    repo.write("README", "A fleet, being edited.\n")
    repo.write("staged", "staged\n")
    repo.git("add", "staged")
    repo.write("hosts/sbcs/untracked.nix", "{ }\n")
    before = everything(repo)
    made = update(group)
    assert everything(repo) == before
    assert all(name in made.warnings[0] for name in ("README", "staged", "hosts/sbcs/untracked.nix"))
    assert repo.git("diff-tree", "-r", "--name-only", made.base, made.commit) == LOCK
    land(group)
    left = {line.split()[-1] for line in repo.git("status", "--porcelain", "--untracked-files=all").splitlines()}
    assert left == {"README", "staged", "hosts/sbcs/untracked.nix"}
    assert repo.git("diff", "--cached", "--name-only") == "staged"


# Landing


def test_a_branch_that_moved_is_merged_and_the_candidate_stays_in_its_history(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    made = update(group)
    repo.write("hosts/servers/more.nix", "{ }\n")
    head = repo.commit()
    before = files(repo)
    landing = land(group)
    assert landing.merged
    assert repo.git("rev-parse", "main^1", "main^2").split() == [head, made.commit]
    assert {name for name, digest in files(repo).items() if before.get(name) != digest} == {LOCK}
    assert rev_at(repo, "main") == rev_at(repo, made.commit)
    assert repo.git("status", "--porcelain") == ""


def test_two_groups_get_one_answer_from_upstream_and_land_in_turn(fleet_repo: Fixture) -> None:
    repo, run = fleet_repo.repo, Run(owner())
    sbcs, servers = group_of(repo), group_of(repo, "servers")
    one = update(sbcs, run=run)
    answered = rev_at(repo, one.commit)
    fleet_repo.release("3")
    two = update(servers, run=run)
    assert one.base == two.base
    assert rev_at(repo, two.commit, "hosts/servers/flake.lock") == answered
    assert not land(sbcs).merged
    assert land(servers).merged
    assert rev_at(repo, "main") == rev_at(repo, "main", "hosts/servers/flake.lock") == answered
    assert repo.git("status", "--porcelain") == ""


def test_a_proven_candidate_lands_although_a_later_run_has_made_another(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    proven = update(group)
    fleet_repo.release("3")
    later = update(group)
    landing = land(group, commit=proven.commit)
    assert landing.commit == proven.commit == repo.git("rev-parse", "main")
    assert repo.git("rev-parse", candidate_ref(group)) == later.commit
    assert not land(group, commit=proven.commit).changed


def test_only_a_candidate_can_be_landed(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    repo.git("checkout", "--quiet", "-b", "side")
    repo.write("README", "Something else.\n")
    other = repo.commit()
    repo.git("checkout", "--quiet", "main")
    with pytest.raises(BadInput, match=f"changes more than {LOCK}"):
        land(group, commit=other)


def test_a_lock_edited_meanwhile_is_not_overwritten(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    made = update(group)
    repo.write(LOCK, (repo.path / LOCK).read_text() + "\n")
    before = everything(repo)
    with pytest.raises(BadInput, match="uncommitted changes, which landing would overwrite"):
        land(group)
    assert everything(repo) == before
    assert repo.git("rev-parse", candidate_ref(group)) == made.commit


def test_a_lock_that_moved_on_the_branch_to_something_else_is_a_conflict(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    made = update(group)
    fleet_repo.release("3")
    sh("nix", "flake", "update", "--flake", f"path:{repo.path}/hosts/sbcs")
    head = repo.commit()
    with pytest.raises(BadInput, match="cannot be merged"):
        land(group)
    assert repo.git("rev-parse", "main") == head
    assert repo.git("rev-parse", candidate_ref(group)) == made.commit


def test_inputs_that_flake_nix_gained_meanwhile_are_seen(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    update(group)
    text = (repo.path / "hosts/sbcs/flake.nix").read_text()
    repo.write("hosts/sbcs/flake.nix", text.replace("{\n", '{\n  inputs.extra.url = "path:../servers";\n', 1))
    repo.commit()
    with pytest.raises(CommandFailed, match=r"its flake\.nix has other inputs"):
        land(group)


def test_a_branch_that_is_not_checked_out_and_a_bare_repository(fleet_repo: Fixture, tmp_path: Path) -> None:
    repo = fleet_repo.repo
    repo.git("branch", "sbcs")
    group = group_of(repo, strategy="group_branches", flake="hosts/sbcs")
    before = files(repo)
    made = update(group)
    assert land(group).commit == made.commit == repo.git("rev-parse", "sbcs")
    assert repo.git("rev-parse", "main") == made.base
    assert files(repo) == before
    sh("git", "clone", "--quiet", "--bare", str(repo.path), str(tmp_path / "bare.git"))
    bare = Repo(tmp_path / "bare.git")
    identify(bare)
    group = group_of(bare, "servers", branch="main")
    made = update(group)
    assert land(group).commit == made.commit == bare.git("rev-parse", "main")


def test_a_linked_work_tree_that_has_the_branch_comes_along(fleet_repo: Fixture, tmp_path: Path) -> None:
    repo = fleet_repo.repo
    repo.git("branch", "field")
    repo.git("worktree", "add", "--quiet", str(tmp_path / "tree"), "field")
    group = group_of(repo, branch="field")
    update(group)
    land(group)
    assert Repo(tmp_path / "tree").git("status", "--porcelain") == ""
    assert rev_at(repo, "field") == fleet_repo.upstream.git("rev-parse", "main")


def test_pushing(fleet_repo: Fixture, tmp_path: Path) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    remote = tmp_path / "remote.git"
    sh("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(remote))
    repo.git("remote", "add", "origin", str(remote))
    repo.git("push", "--quiet", "origin", "main")
    made = update(group)
    landing = land(group, push=True)
    assert landing.pushed
    assert sh("git", "-C", str(remote), "rev-parse", "main") == made.commit
    # Someone else pushes: that is merged, and both arrive.
    sh("git", "clone", "--quiet", str(remote), str(tmp_path / "other"))
    other = Repo(tmp_path / "other")
    other.write("README", "Other.\n")
    other.commit()
    other.git("push", "--quiet", "origin", "main")
    servers = group_of(repo, "servers")
    made = update(servers)
    landing = land(servers, push=True)
    assert landing.merged
    assert (repo.path / "README").read_text() == "Other.\n"
    assert rev_at(repo, "main", "hosts/servers/flake.lock") == rev_at(repo, made.commit, "hosts/servers/flake.lock")
    assert sh("git", "-C", str(remote), "rev-parse", "main") == repo.git("rev-parse", "main") == landing.commit
    assert repo.git("status", "--porcelain") == ""


def test_a_branch_that_cannot_follow_its_push_is_told_where_the_commit_is(fleet_repo: Fixture, tmp_path: Path) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    remote = tmp_path / "remote.git"
    sh("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(remote))
    repo.git("remote", "add", "origin", str(remote))
    repo.git("push", "--quiet", "origin", "main")
    made, before = update(group), repo.git("rev-parse", "main")
    # What status does not show, so that git alone sees it, and only when it writes.
    text = (repo.path / group.lock).read_text()
    repo.git("update-index", "--assume-unchanged", group.lock)
    repo.write(group.lock, "mine")
    with pytest.raises(CommandFailed, match="origin has it already, in refs/heads/main") as caught:
        land(group, push=True)
    assert sh("git", "-C", str(remote), "rev-parse", "main") == made.commit
    assert (repo.git("rev-parse", "main"), (repo.path / group.lock).read_text()) == (before, "mine")
    repo.write(group.lock, text)
    repo.git("update-index", "--no-assume-unchanged", group.lock)
    sh(*caught.value.hint.partition("to it, too: ")[2].rstrip(".").split())
    assert repo.git("rev-parse", "main") == made.commit
    land(group, push=True)
    assert repo.git("for-each-ref", "refs/flotilla/candidate") == ""


# Which inputs move


def test_an_input_at_a_revision_stays_there_until_the_next_update(fleet_repo: Fixture) -> None:
    repo, group = fleet_repo.repo, group_of(fleet_repo.repo)
    two = fleet_repo.upstream.git("rev-parse", "main")
    fleet_repo.release("3")
    made = update(group, pins={"nixpkgs": two})
    assert rev_at(repo, made.commit) == two
    land(group)
    assert not update(group, pins={"nixpkgs": two}).changed
    made = update(group, "nixpkgs")
    assert rev_at(repo, made.commit) == fleet_repo.upstream.git("rev-parse", "main")
    fleet_repo.upstream.git("branch", "stable", two)
    made = update(group, pins={"nixpkgs": "stable"})
    assert made.candidate is None or rev_at(repo, made.commit) == two


LAYOUT = """{
  inputs.one.url = "git+file://UPSTREAM?ref=main";
  inputs.two.url = "git+file://UPSTREAM?ref=main";
  inputs.dep.url = "git+file://DEP?ref=main";
  inputs.dep.inputs.base.follows = "two";
  outputs = { self, ... }: { };
}
"""


@pytest.fixture
def shared(tmp_path: Path) -> Fixture:
    """One flake with an input for each group (one, two), and one with an input of its own, in one lock."""
    made = fixture(tmp_path)
    identify(made.repo)
    dep = new_repo(tmp_path / "dep")
    url = f"git+file://{made.upstream.path}?ref=main"
    dep.write("flake.nix", f'{{ inputs.base.url = "{url}"; inputs.own.url = "{url}"; outputs = _: {{ }}; }}\n')
    dep.commit()
    made.repo.write("flake.nix", LAYOUT.replace("UPSTREAM", str(made.upstream.path)).replace("DEP", str(dep.path)))
    made.repo.git("add", ".")
    sh("nix", "flake", "lock", f"path:{made.repo.path}")
    made.repo.commit()
    made.release("2")
    return made


def test_all_inputs_move_but_one_that_is_put_at_a_revision(shared: Fixture) -> None:
    old = shared.upstream.git("rev-parse", "main^")
    shared.release("3")
    made = update(group_of(shared.repo, "a", strategy="group_inputs"), "*", pins={"one": old})
    newest = shared.upstream.git("rev-parse", "main")
    assert {change.input: change.new and change.new.rev for change in made.changes} == {"two": newest, "dep/own": newest}


def test_a_revision_in_flake_nix_is_named_as_what_no_update_moves(shared: Fixture) -> None:
    text = (shared.repo.path / "flake.nix").read_text()
    rev = shared.upstream.git("rev-parse", "main^")
    shared.repo.write("flake.nix", text.replace("?ref=main", f"?ref=main&rev={rev}", 1))
    sh("nix", "flake", "lock", f"path:{shared.repo.path}")
    shared.repo.commit()
    made = update(group_of(shared.repo, "a", strategy="group_inputs"), "one")
    assert made.candidate is None
    assert made.warnings == ("a: flake.nix names a fixed revision of one, so no update moves it.",)


def test_groups_that_share_a_lock_move_their_own_inputs_only_and_both_land(shared: Fixture) -> None:
    repo = shared.repo
    a = group_of(repo, "a", strategy="group_inputs", inputs=["one"])
    b = group_of(repo, "b", strategy="group_inputs", inputs=["two", "dep"])
    old = json.loads((repo.path / "flake.lock").read_text())
    run = Run(owner())
    one, two = update(a, run=run), update(b, run=run)
    assert [change.input for change in one.changes] == ["one"]
    assert {change.input for change in two.changes} == {"two", "dep/own"}
    moved = json.loads(repo.git("show", f"{one.commit}:flake.lock"))
    assert {key for key in moved["nodes"] if moved["nodes"][key] != old["nodes"].get(key)} == {"one"}
    land(a)
    landing = land(b)
    assert landing.merged
    newest = shared.upstream.git("rev-parse", "main")
    assert rev_at(repo, "main", "flake.lock", "one") == rev_at(repo, "main", "flake.lock", "two") == newest
    sh("nix", "flake", "lock", "--no-update-lock-file", f"git+file://{repo.path}")
    assert not update(a).changed
    assert not update(b).changed


def test_groups_with_one_lock_and_one_input_get_one_commit(shared: Fixture) -> None:
    run = Run(owner())
    a, b = (group_of(shared.repo, name, strategy="channel_inputs", inputs=["one"]) for name in ("a", "b"))
    made = [update(group, run=run) for group in (a, b)]
    assert made[0].commit == made[1].commit
    assert [land(group).commit for group in (a, b)] == [made[0].commit] * 2
    assert shared.repo.git("for-each-ref", "refs/flotilla") == ""


@pytest.mark.parametrize(
    ("inputs", "pinned", "error"),
    [
        (["nosuch"], {}, r"flake\.nix has no input 'nosuch'\. Its inputs are dep, one, two"),
        ([], {"nosuch": "main"}, r"input nosuch is not locked yet|has no input 'nosuch'"),
        (["dep/base"], {}, r"input dep/base follows another .* Name two instead"),
        (["--flake"], {}, "is not the name of an input"),
        (["one; id"], {}, "is not the name of an input"),
        ([], {"one": "--impure"}, "is no revision of input one"),
        ([], {"one": "f" * 40}, "locking the inputs failed"),
    ],
)
def test_inputs_that_cannot_move(shared: Fixture, inputs: list[str], pinned: dict[str, str], error: str) -> None:
    before = shared.repo.state()
    with pytest.raises(FlotillaError, match=error):
        update(group_of(shared.repo, "a", strategy="group_inputs"), *inputs, pins=pinned)
    assert shared.repo.state() == before


def test_a_group_moves_no_input_of_others(shared: Fixture) -> None:
    group = group_of(shared.repo, "a", strategy="group_inputs", inputs=["one"])
    with pytest.raises(BadInput, match="input two is not one that this group may move"):
        update(group, "two")


def test_a_nested_input_moves_alone(shared: Fixture) -> None:
    made = update(group_of(shared.repo, "a", strategy="group_inputs"), "dep/own")
    assert [change.input for change in made.changes] == ["dep/own"]


def test_an_input_that_is_not_locked_yet_is_no_by_product(shared: Fixture) -> None:
    text = (shared.repo.path / "flake.nix").read_text()
    shared.repo.write("flake.nix", text.replace("inputs.one.url", 'inputs.new.url = "path:./sub";\n  inputs.one.url', 1))
    shared.repo.write("sub/flake.nix", "{ outputs = _: { }; }\n")
    shared.repo.commit()
    group = group_of(shared.repo, "a", strategy="group_inputs")
    with pytest.raises(BadInput, match="would change more than one: new"):
        update(group, "one")
    assert "new" in {change.input for change in update(group).changes}


# Layouts


def test_the_wrapper_layout(tmp_path: Path) -> None:
    made = fixture(tmp_path)
    identify(made.repo)
    url = f"git+file://{made.upstream.path}?ref=main"
    made.repo.write("flake.nix", f'{{ inputs.nixpkgs.url = "{url}"; outputs = _: {{ }}; }}\n')
    made.repo.write(
        "hosts/dev/flake.nix",
        f'{{ inputs.nixpkgs.url = "{url}"; inputs.all.url = "path:../.."; inputs.all.inputs.nixpkgs.follows = "nixpkgs";\n'
        "  outputs = _: { }; }\n",
    )
    made.repo.git("add", ".")
    sh("nix", "flake", "lock", str(made.repo.path))
    sh("nix", "flake", "lock", f"{made.repo.path}/hosts/dev")
    made.repo.commit()
    made.release("2")
    group = group_of(made.repo, "dev", strategy="stage_flakes")
    assert [change.input for change in update(group).changes] == ["nixpkgs"]
    land(group)
    assert not update(group).changed


def test_a_first_lock_and_locks_beside_the_flake(tmp_path: Path) -> None:
    made = fixture(tmp_path)
    identify(made.repo)
    made.repo.write("flake.nix", f'{{ inputs.nixpkgs.url = "git+file://{made.upstream.path}?ref=main"; outputs = _: {{ }}; }}\n')
    made.repo.commit()
    group = group_of(made.repo, "early", strategy="host_locks", lock="locks/{group}.lock")
    first = update(group)
    assert first.message == "early: lock the inputs"
    assert made.repo.git("diff-tree", "-r", "--name-only", first.base, first.commit) == "locks/early.lock"
    land(group)
    made.release("2")
    update(group)
    land(group)
    assert rev_at(made.repo, "main", "locks/early.lock") == made.upstream.git("rev-parse", "main")
    assert not (made.repo.path / "flake.lock").exists()


def test_a_flake_without_inputs_needs_no_lock(tmp_path: Path) -> None:
    made = fixture(tmp_path)
    identify(made.repo)
    made.repo.write("hosts/sbcs/flake.nix", "{ outputs = _: { }; }\n")
    head = made.repo.commit()
    nothing = update(group_of(made.repo))
    assert (nothing.changed, nothing.candidate, nothing.commit) == (False, None, head)


@pytest.mark.parametrize("name", ["sp ace", "q'uo\"te", "semi;colon", "$HOME", "uml\u00e4ut", "per%20cent", "#hash?query"])
def test_repositories_with_odd_names(tmp_path: Path, name: str) -> None:
    made = fixture(tmp_path, name=name)
    identify(made.repo)
    made.repo.write(
        "hosts/sbcs/flake.nix", f'{{ inputs.u.url = "git+file://{made.upstream.path}?ref=main"; outputs = _: {{ }}; }}\n'
    )
    made.repo.commit()
    group = group_of(made.repo)
    update(group)
    land(group)
    assert not update(group).changed


def test_a_shallow_clone_and_a_detached_head(fleet_repo: Fixture, tmp_path: Path) -> None:
    sh("git", "clone", "--quiet", "--depth", "1", f"file://{fleet_repo.repo.path}", str(tmp_path / "shallow"))
    repo = Repo(tmp_path / "shallow")
    identify(repo)
    update(group_of(repo))
    land(group_of(repo))
    repo.git("checkout", "--quiet", "--detach")
    made = update(group_of(repo, "servers"))
    assert any("detached" in warning for warning in made.warnings)
    with pytest.raises(BadInput, match="detached"):
        land(group_of(repo, "servers"))


# Bad input


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{\n<<<<<<< HEAD\n  "nodes": {}\n=======\n>>>>>>> other\n}\n', "has a merge conflict in it"),
        ("", "is empty"),
        ("\0GITCRYPT\0abc", "encrypted by git-crypt"),
        ("{", "it is not JSON"),
        ('{"version": 4}', "has version 4"),
    ],
)
def test_locks_that_cannot_be_read(fleet_repo: Fixture, text: str, error: str) -> None:
    fleet_repo.repo.write(LOCK, text)
    fleet_repo.repo.commit()
    before = fleet_repo.repo.state()
    with pytest.raises(BadInput, match=f"^sbcs: the lock {LOCK} .*{error}"):
        update(group_of(fleet_repo.repo))
    assert fleet_repo.repo.state() == before


def test_files_that_git_does_not_track(fleet_repo: Fixture) -> None:
    repo = fleet_repo.repo
    repo.write("hosts/new/flake.nix", "{ outputs = _: { }; }\n")
    with pytest.raises(BadInput, match=r"hosts/new/flake\.nix is not tracked .* Run: git add hosts/new/flake\.nix"):
        update(group_of(repo, "new"))
    with pytest.raises(BadInput, match=r"no hosts/nosuch/flake\.nix .*hosts/sbcs, hosts/servers"):
        update(group_of(repo, "nosuch"))
    repo.git("rm", "--quiet", "--cached", LOCK)
    repo.git("commit", "--quiet", "-m", "Forget the lock")
    with pytest.raises(BadInput, match=rf"{LOCK} is not tracked"):
        update(group_of(repo))
    repo.write(".gitignore", "flake.lock\n")
    repo.commit(".gitignore")
    with pytest.raises(BadInput, match=rf"{LOCK} is ignored .* git add --force"):
        update(group_of(repo))


def test_a_lock_with_uncommitted_changes_stops_an_update_unless_allowed(fleet_repo: Fixture) -> None:
    repo = fleet_repo.repo
    repo.write(LOCK, (repo.path / LOCK).read_text() + "\n")
    with pytest.raises(BadInput, match="has uncommitted changes"):
        update(group_of(repo))
    assert update(group_of(repo), allow_dirty=True).changed


def test_a_repository_of_another_user(fleet_repo: Fixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    shutil.chown(fleet_repo.repo.path, "nobody")
    shutil.chown(fleet_repo.repo.path / ".git", "nobody")
    with pytest.raises(BadInput, match=r"belongs to another user.*safe\.directory"):
        update(group_of(fleet_repo.repo))


def test_repositories_that_are_none(fleet_repo: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="is not a git repository"):
        update(update_group("sbcs", str(tmp_path / "nowhere")))
    empty = new_repo(tmp_path / "empty")
    identify(empty)
    with pytest.raises(BadInput, match="has no commit yet"):
        update(group_of(empty))
    with pytest.raises(BadInput, match="has no branch 'nosuch'"):
        update(group_of(fleet_repo.repo, branch="nosuch"))
    fleet_repo.repo.git("config", "--unset", "user.name")
    fleet_repo.repo.git("config", "--unset", "user.email")
    fleet_repo.repo.git("config", "user.useConfigOnly", "true")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    with pytest.raises(BadInput, match=r"in whose name to commit.*user\.email"):
        update(group_of(fleet_repo.repo))


def test_a_flake_that_is_wrong_is_named_with_its_line(fleet_repo: Fixture) -> None:
    fleet_repo.repo.write("hosts/sbcs/flake.nix", "{\n  outputs = _: {\n")
    fleet_repo.repo.commit()
    with pytest.raises(CommandFailed, match=r"^sbcs: locking the inputs failed at hosts/sbcs/flake\.nix:3: syntax error"):
        update(group_of(fleet_repo.repo))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_words: object) -> None: ...


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server for a folder, on a port of its own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_upstream_that_does_not_answer_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = fixture(tmp_path)
    identify(made.repo)
    bare = tmp_path / "web/upstream.git"
    sh("git", "clone", "--quiet", "--bare", str(made.upstream.path), str(bare))
    sh("git", "-C", str(bare), "update-server-info")
    group = group_of(made.repo)
    with served(tmp_path / "web") as url:
        made.repo.write("hosts/sbcs/flake.nix", f'{{ inputs.u.url = "git+{url}/upstream.git?ref=main"; outputs = _: {{ }}; }}\n')
        made.repo.commit()
        update(group)
        land(group)
    before = made.repo.state()
    with pytest.raises(CommandFailed, match="an input's upstream did not answer"):
        update(group)
    assert made.repo.state() == before


class OverAnsible:
    """Runs commands as ConnectionRunner has them run: by a shell, without a stdin of their own where none is given."""

    name = "builder.example.org"

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = QUICK,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_line: Callable[[str], None] | None = None,  # noqa: ARG002 - the interface
    ) -> RunResult:
        command = runners._remote_command(argv, timeout, env, cwd)
        done = RUNNER.run(["/bin/sh", "-c", command], stdin=stdin or "\n", timeout=timeout)
        return dataclasses.replace(done, argv=tuple(argv))


def test_a_builder_that_is_another_machine(fleet_repo: Fixture) -> None:
    repo, group, builder = fleet_repo.repo, group_of(fleet_repo.repo), OverAnsible()
    repo.write("notes with 'quotes'", "untracked\n")
    made = make_candidate(builder, group, Run(owner()), Wish(("nixpkgs",)))
    publish(made)
    assert "notes with 'quotes'" in made.warnings[0]
    repo.write("README", "Moved on.\n")
    repo.commit("README")
    assert accept(builder, group, Run(owner())).merged
    assert rev_at(repo, "main") == fleet_repo.upstream.git("rev-parse", "main")
    with pytest.raises(BadInput, match=r"on builder\.example\.org is not a git repository"):
        make_candidate(builder, update_group("sbcs", "/nowhere"), Run(owner()))


# Several runs at once


def test_runs_at_the_same_time(fleet_repo: Fixture) -> None:
    repo = fleet_repo.repo
    groups = [group_of(repo, name) for name in ("sbcs", "servers") * 4]

    def attempt(group: UpdateGroup) -> str:
        try:
            update(group)
        except CommandFailed as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        errors = [error for error in pool.map(attempt, groups) if error]
    assert all("another run has made a candidate" in error for error in errors)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(land, groups[:2]))
    newest = fleet_repo.upstream.git("rev-parse", "main")
    assert rev_at(repo, "main") == rev_at(repo, "main", "hosts/servers/flake.lock") == newest
    assert repo.git("status", "--porcelain") == ""
    assert not list((repo.path / ".git/flotilla/busy").iterdir())


def test_a_run_names_the_one_that_it_waits_for_and_takes_over_from_a_dead_one(tmp_path: Path) -> None:
    link = str(tmp_path / "deep/lock")
    node, now = os.uname().nodename, int(time.time())
    with (
        held(RUNNER, "sbcs", link, f"{node} {os.getpid()} {now} alice"),
        pytest.raises(BadInput, match=rf"process {os.getpid()} of alice on {node}"),
        held(RUNNER, "sbcs", link, f"{node} 1 {now} bob", patience=0),
    ):
        pass
    assert not os.path.lexists(link)
    for left in (f"{node} 4194305 {now} dead", f"elsewhere 1 {now - 9999} old"):
        os.symlink(left, link)
        with held(RUNNER, "sbcs", link, f"{node} {os.getpid()} {now} alice", patience=0):
            assert os.readlink(link).endswith("alice")
        assert not os.path.lexists(link)


def test_of_two_that_find_a_dead_runs_lock_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, node, now = tmp_path / "lock", os.uname().nodename, int(time.time())
    link.symlink_to(f"{node} 4194305 {now} dead")
    # Both have seen the dead one's link before either takes it away.
    slow = tmp_path / "bin/flock"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nsleep 0.5\nexec {shutil.which("flock")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    inside: list[str] = []
    most: list[int] = []

    def work(name: str) -> None:
        with held(RUNNER, "sbcs", str(link), f"{node} {os.getpid()} {now} {name}"):
            inside.append(name)
            time.sleep(1)
            most.append(len(inside))
            inside.remove(name)

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, ("alice", "bob")))
    assert most == [1, 1]


# The module


@pytest.fixture
def play(ansible: Ansible, tmp_path: Path) -> Any:
    """Runs tasks of flake_lock, each a mapping of its options and of task keywords (`_check_mode`); gives their results."""
    inventory = tmp_path / "localhost.json"
    inventory.write_text('{"all": {"hosts": {"localhost": {"ansible_connection": "local"}}}}')

    def run(*tasks: Mapping[str, Any], arguments: tuple[str, ...] = ()) -> tuple[Any, list[Mapping[str, Any]]]:
        written = [
            {
                "flotilla.nixos.flake_lock": {key: value for key, value in task.items() if not key.startswith("_")},
                "ignore_errors": True,
                **{key[1:]: value for key, value in task.items() if key.startswith("_")},
            }
            for task in tasks
        ]
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": written}]
        played = ansible.playbook(plays, *arguments, inventory=inventory)
        return played, [{**task.result, "failed": task.status == "failed"} for task in played.of("flake_lock")]

    return run


def test_check_mode_changes_nothing_and_diff_mode_shows_the_pins(fleet_repo: Fixture, play: Any) -> None:
    repo = fleet_repo.repo
    groups = [{"name": name, "repo": str(repo.path)} for name in ("sbcs", "servers")]
    before = repo.state()
    played, [planned] = play({"groups": groups}, arguments=("--check", "--diff"))
    assert planned["changed"]
    assert repo.state() == before
    newest = fleet_repo.upstream.git("rev-parse", "main")
    assert f"--- before: {repo.path}/{LOCK}" in played.text
    assert f"+nixpkgs: file://{fleet_repo.upstream.path} main {newest}" in played.text
    # The commit is there to be built, but nothing names it.
    assert repo.git("cat-file", "-t", planned["groups"]["sbcs"]["commit"]) == "commit"


def test_each_state_twice(fleet_repo: Fixture, play: Any) -> None:
    repo = fleet_repo.repo
    repo.write("notes", "untracked\n")
    groups = [{"name": name, "repo": str(repo.path)} for name in ("sbcs", "servers")]
    base = repo.git("rev-parse", "main")
    update, accepted = {"groups": groups}, {"groups": groups, "state": "accepted"}
    dropped, check = {"groups": groups, "state": "discarded"}, {"_check_mode": True}
    played, results = play(
        update, update, dropped | check, dropped, dropped, update, accepted | check, accepted, accepted, dropped, update
    )
    assert [result["changed"] for result in results] == [
        *(True, False, True, True, False, True, True, True, False, False, False),
    ]
    newest = fleet_repo.upstream.git("rev-parse", "main")
    first = results[0]["groups"]["sbcs"]
    assert first["commit"] == first["candidate"]
    assert (first["base"], first["branch"], first["lock"], first["failed"]) == (base, "main", LOCK, False)
    assert [(change["input"], change["new"]["rev"]) for change in first["changes"]] == [("nixpkgs", newest)]
    assert results[7]["groups"]["servers"]["merged"]
    assert results[10]["groups"]["sbcs"]["commit"] == repo.git("rev-parse", "main")
    assert "diff" not in results[0]
    assert first["warnings"] == ["sbcs: not committed, so not part of the update: notes"]
    assert "not committed, so not part of the update: notes" in " ".join(played.text.split())


@pytest.mark.parametrize("more", [{}, {"continue_on_error": True}])
def test_all_candidates_or_none_unless_told(fleet_repo: Fixture, play: Any, more: dict[str, bool]) -> None:
    repo = fleet_repo.repo
    groups = [{"name": name, "repo": str(repo.path)} for name in ("sbcs", "nosuch")]
    before = repo.state()
    _played, [result] = play({"groups": groups, **more})
    message = "nosuch: there is no hosts/nosuch/flake.nix"
    if not more:
        assert result["failed"]
        assert result["msg"].startswith(message)
        assert repo.state() == before
        return
    assert not result["failed"]
    assert result["groups"]["nosuch"]["msg"].startswith(message)
    assert result["groups"]["sbcs"]["candidate"]


def test_odd_names_are_refused_before_anything_runs(fleet_repo: Fixture, play: Any) -> None:
    before = fleet_repo.repo.state()
    repo = str(fleet_repo.repo.path)
    names = ["sp ace", "quo'te", "semi;colon", "../up", "-dash", "a/b"]
    _played, results = play(
        *({"groups": [{"name": name, "repo": repo}]} for name in names),
        {"groups": [{"name": "sbcs", "repo": "fleet"}]},
        {"groups": [{"name": "sbcs", "repo": repo}], "pins": {"nixpkgs": 1e10}},
    )
    said = [result["msg"] for result in results]
    assert all("this name cannot be used" in message for message in said[: len(names)])
    assert "Put it into quotes" in said[-1]
    assert all(result["failed"] for result in results)
    assert fleet_repo.repo.state() == before
