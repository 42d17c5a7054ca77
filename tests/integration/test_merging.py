# SPDX-License-Identifier: GPL-3.0-or-later
"""Promotion between branches, which is a merge, with real nix and git: what comes along, what stays, and what is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Candidate, Run, candidate_ref, publish
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.holding import Holding
from ansible_collections.flotilla.nixos.plugins.module_utils.holds import parse_holds
from ansible_collections.flotilla.nixos.plugins.module_utils.landing import Landing, accept
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import parse_lock, pins
from ansible_collections.flotilla.nixos.plugins.module_utils.merging import promote_or_merge
from ansible_collections.flotilla.nixos.plugins.module_utils.pairing import Choice
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import new_repo, sh

RUNNER = LocalRunner()
FLAKE = """{
  # Top
  inputs.nixpkgs.url = "git+file://UPSTREAM?ref=main";
  inputs.other.url = "git+file://UPSTREAM?ref=main";
MORE
  outputs = { self, ... }: { };
  # Bottom
}
"""
EXTRA = '  inputs.extra.url = "git+file://UPSTREAM?ref=main";'


class Rings:
    """A repository with the branches main, canary and early, all at version 1; main is checked out."""

    def __init__(self, folder: Path) -> None:
        self.repo, self.upstream = new_repo(folder / "fleet"), new_repo(folder / "upstream")
        self.repo.git("config", "user.name", "Op Erator")
        self.repo.git("config", "user.email", "op@example.org")
        self.release("1")
        self.write("# Top", "")
        self.lock("lock")
        for ring in ("canary", "early"):
            self.repo.git("branch", ring)

    def release(self, version: str) -> None:
        self.upstream.write("flake.nix", f"{{ outputs = _: {{ version = {version}; }}; }}\n")
        self.upstream.commit()

    def write(self, top: str, more: str) -> None:
        """The flake, with another comment at its top, and inputs more."""
        text = FLAKE.replace("# Top", top).replace("MORE", more).replace("UPSTREAM", str(self.upstream.path))
        self.repo.write("flake.nix", text)
        self.repo.git("add", ".")

    def lock(self, verb: str = "update", *words: str) -> str:
        flake = f"path:{self.repo.path}"
        sh("nix", "flake", verb, *words, *(["--flake"] if verb == "update" else []), flake)
        return self.repo.commit()

    def on(self, branch: str) -> None:
        self.repo.git("checkout", "--quiet", branch)

    def ring(self, name: str, **more: Any) -> UpdateGroup:
        return update_group(name, str(self.repo.path), strategy="group_branches", **more)

    def pins(self, commit: str) -> dict[str, str | None]:
        lock = parse_lock(self.repo.git("show", f"{commit}:flake.lock") + "\n", "test", "flake.lock")
        return {name: pin.rev for name, pin in pins(lock).items()}

    def merged(self, source: str = "canary", target: str = "early", **more: Any) -> Candidate:
        """The candidate, under its name."""
        choice = Choice(more.pop("inputs", None), more.pop("mapping", {}))
        group = more.pop("group", self.ring(target))
        made = promote_or_merge(RUNNER, group, run(), self.ring(source), choice, **more)
        publish(made)
        return made

    def accepted(self, made: Candidate) -> Landing:
        return accept(RUNNER, made.group, run(), commit=made.commit)

    def refuses(self, expected: str, **more: Any) -> None:
        """A BadInput, and nothing changed."""
        before = self.repo.state()
        with pytest.raises(BadInput, match=expected):
            self.merged(**more)
        assert self.repo.state() == before


def run() -> Run:
    return Run(f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester")


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


@pytest.fixture
def rings(tmp_path: Path) -> Rings:
    return Rings(tmp_path)


@pytest.fixture
def ahead(rings: Rings) -> Rings:
    """Canary has another comment in its flake, and is locked to version 2; main is checked out."""
    rings.release("2")
    rings.on("canary")
    rings.write("# Canary was here", "")
    rings.lock()
    rings.on("main")
    return rings


def diverged(rings: Rings, *, more: str = "", top: str = "# Top", update: bool = True) -> None:
    """Early has a commit of its own: another README, perhaps inputs more and version 3 in its lock."""
    rings.release("3")
    rings.on("early")
    rings.repo.write("README", "Early\n")
    rings.write(top, more)
    rings.lock(*(("update",) if update else ("lock",)))
    rings.on("main")


def test_a_branch_that_is_behind_gets_the_very_commit(ahead: Rings) -> None:
    canary, tree = ahead.repo.git("rev-parse", "canary"), ahead.repo.git("status", "--porcelain")
    made = ahead.merged()
    assert (made.commit, made.branch, made.base) == (canary, "early", ahead.repo.git("rev-parse", "main"))
    assert {change.input for change in made.changes} == {"nixpkgs", "other"}
    assert ahead.repo.git("rev-parse", "early") == made.base, "nobody has proven it yet"
    landing = ahead.accepted(made)
    assert (landing.commit, landing.merged, ahead.repo.git("rev-parse", "early")) == (canary, False, canary)
    assert (ahead.repo.git("branch", "--show-current"), ahead.repo.git("status", "--porcelain")) == ("main", tree)
    again = ahead.merged()
    assert (again.candidate, again.commit, again.changed) == (None, canary, False)


def test_both_histories_are_kept_and_the_lock_is_the_sources(ahead: Rings) -> None:
    diverged(ahead)
    made = ahead.merged()
    assert ahead.repo.git("rev-parse", f"{made.commit}^1", f"{made.commit}^2") == ahead.repo.git("rev-parse", "early", "canary")
    assert ahead.repo.git("show", f"{made.commit}:flake.lock") == ahead.repo.git("show", "canary:flake.lock")
    assert ahead.repo.git("show", f"{made.commit}:README") == "Early"
    assert "# Canary was here" in ahead.repo.git("show", f"{made.commit}:flake.nix")
    assert made.message.endswith("(from canary)")
    body = ahead.repo.git("show", "--no-patch", "--format=%b", made.commit)
    assert f"Merges commit {ahead.repo.git('rev-parse', 'canary')} of canary." in body
    assert f"commit {ahead.repo.git('log', '-1', '--format=%h %s', 'canary')}" in made.after
    assert ahead.merged().commit == made.commit, "made once"
    assert ahead.accepted(made).commit == made.commit
    assert ahead.merged().candidate is None


def test_without_any_upstream(ahead: Rings) -> None:
    diverged(ahead)
    ahead.upstream.path.rename(ahead.upstream.path.with_name("gone"))
    assert ahead.pins(ahead.merged().commit) == ahead.pins("canary")


def test_an_input_that_only_the_group_has_keeps_its_pin(ahead: Rings) -> None:
    diverged(ahead, more=EXTRA)
    made = ahead.merged()
    assert ahead.pins(made.commit) == {**ahead.pins("canary"), "extra": ahead.pins("early")["extra"]}
    sh("nix", "flake", "lock", "--no-update-lock-file", f"git+file://{ahead.repo.path}?rev={made.commit}")


def test_a_held_input_stays_and_the_rest_comes(ahead: Rings) -> None:
    diverged(ahead, update=False)
    holds = parse_holds("early", [{"input": "other", "reason": "ours", "until": "2999-01-01"}])
    group = ahead.ring("early", holds=holds)
    made = ahead.merged(group=group, holding=Holding(group, now=time.time()))
    assert ahead.pins(made.commit) == {"nixpkgs": ahead.pins("canary")["nixpkgs"], "other": ahead.pins("early")["other"]}
    assert "# Canary was here" in ahead.repo.git("show", f"{made.commit}:flake.nix")
    assert any("other is held" in warning for warning in made.warnings)


def test_a_conflict_outside_the_lock_names_files_and_both_sides(ahead: Rings) -> None:
    diverged(ahead, top="# Early was here")
    canary = ahead.repo.git("rev-parse", "--short=12", "canary")
    ahead.refuses(rf"^early: flake\.nix on branch early cannot be merged with commit {canary} of canary: both have changed it\.")


def test_what_the_branch_has_already_brings_only_pins(ahead: Rings) -> None:
    ahead.accepted(ahead.merged())
    ahead.release("3")
    ahead.on("early")
    head = ahead.lock()
    ahead.on("main")
    made = ahead.merged()
    assert ahead.repo.git("rev-parse", f"{made.commit}^@") == head
    assert ahead.pins(made.commit) == ahead.pins("canary")


def test_some_inputs_alone_bring_no_configuration(ahead: Rings) -> None:
    made = ahead.merged(inputs=("nixpkgs",))
    assert ahead.repo.git("diff", "--name-only", made.base, made.commit) == "flake.lock"
    assert ahead.pins(made.commit)["other"] == ahead.pins("early")["other"]


def test_a_commit_that_is_not_the_head(ahead: Rings) -> None:
    proven = ahead.repo.git("rev-parse", "canary")
    ahead.on("canary")
    ahead.repo.write("README", "Newer\n")
    ahead.repo.commit()
    ahead.on("main")
    assert ahead.merged(commit=proven).commit == proven


def test_a_branch_that_has_moved_is_merged_again_or_refused(ahead: Rings) -> None:
    made = ahead.merged()
    ahead.on("early")
    ahead.repo.write("README", "Meanwhile\n")
    meanwhile = ahead.repo.commit()
    ahead.on("main")
    landing = ahead.accepted(made)
    assert (landing.merged, landing.base) == (True, meanwhile)
    assert ahead.repo.git("merge-base", "--is-ancestor", made.commit, "early") == ""
    assert ahead.repo.git("show", "early:README") == "Meanwhile"
    assert ahead.pins("early") == ahead.pins("canary")


def test_a_branch_that_has_moved_into_a_conflict_stays_and_so_does_the_candidate(ahead: Rings) -> None:
    made = ahead.merged()
    ahead.on("early")
    ahead.write("# Meanwhile", "")
    meanwhile = ahead.repo.commit()
    ahead.on("main")
    with pytest.raises(BadInput, match=r"early: branch early has moved, and its flake\.nix cannot be merged"):
        ahead.accepted(made)
    assert ahead.repo.git("rev-parse", "early", candidate_ref(made.group)) == f"{meanwhile}\n{made.commit}"


def test_only_a_merge_that_was_made_for_the_group_lands(ahead: Rings) -> None:
    before = ahead.repo.git("rev-parse", "early")
    with pytest.raises(BadInput, match="is no candidate: it changes more than"):
        accept(RUNNER, ahead.ring("early"), run(), commit=ahead.repo.git("rev-parse", "canary"))
    assert ahead.repo.git("rev-parse", "early") == before
    made = ahead.merged()
    # A later run has another one; the first was proven.
    ahead.on("canary")
    ahead.repo.write("README", "Later\n")
    ahead.repo.commit()
    ahead.on("main")
    later = ahead.merged()
    assert ahead.accepted(made).commit == made.commit
    assert ahead.repo.git("rev-parse", candidate_ref(later.group)) == later.commit


def test_a_change_of_the_lock_alone_does_not_bring_another_branchs_commits_along(ahead: Rings) -> None:
    before = ahead.repo.git("rev-parse", "early")
    ahead.on("canary")
    ahead.repo.write("flake.lock", ahead.repo.git("show", "canary:flake.lock") + "\n\n")
    commit = ahead.repo.commit()
    ahead.on("main")
    with pytest.raises(BadInput, match=r"is no candidate: its parent [0-9a-f]{12} is not on the branch, and would come along"):
        accept(RUNNER, ahead.ring("early"), run(), commit=commit)
    assert ahead.repo.git("rev-parse", "early") == before
    assert accept(RUNNER, ahead.ring("canary"), run(), commit=commit).commit == commit


def test_where_the_branch_is_checked_out_its_files_come_along(ahead: Rings, tmp_path: Path) -> None:
    ahead.repo.git("worktree", "add", "--quiet", str(tmp_path / "early"), "early")
    (tmp_path / "early/notes").write_text("mine\n")
    ahead.accepted(ahead.merged())
    assert "# Canary was here" in (tmp_path / "early/flake.nix").read_text()
    assert (tmp_path / "early/notes").read_text() == "mine\n"


@pytest.mark.parametrize("file", ["README", "flake.nix"])
def test_what_is_not_committed_there_is_not_overwritten(ahead: Rings, tmp_path: Path, file: str) -> None:
    ahead.on("canary")
    ahead.repo.write("README", "Canary\n")
    ahead.repo.commit()
    ahead.on("main")
    ahead.repo.git("worktree", "add", "--quiet", str(tmp_path / "early"), "early")
    (tmp_path / "early" / file).write_text("mine\n")
    ahead.refuses(rf"^early: {file} in {tmp_path}/early is not committed, and landing on early would overwrite it\. Commit")
    assert (tmp_path / "early" / file).read_text() == "mine\n"


def test_a_source_whose_lock_lags_behind_its_flake(ahead: Rings) -> None:
    ahead.on("canary")
    ahead.write("# Canary was here", EXTRA)
    ahead.repo.commit()
    ahead.on("main")
    ahead.refuses(r"the lock flake\.lock of commit [0-9a-f]{12} of canary is not complete for its flake\.nix\. Lock what")


def test_histories_that_have_nothing_in_common(ahead: Rings) -> None:
    ahead.repo.git("checkout", "--quiet", "--orphan", "lone")
    ahead.repo.write("README", "Alone\n")
    ahead.repo.commit()
    ahead.on("main")
    ahead.refuses("early: branch early and commit .* of lone have no history in common", source="lone")
