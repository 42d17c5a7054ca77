# SPDX-License-Identifier: GPL-3.0-or-later
"""Git repositories in odd states, for every way of keeping locks: it works, or one sentence has the fix and nothing changes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import (
    Candidate,
    Run,
    candidate_ref,
    make_candidate,
    publish,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed
from ansible_collections.flotilla.nixos.plugins.module_utils.group_build import BuildSettings, build_groups
from ansible_collections.flotilla.nixos.plugins.module_utils.landing import Landing, accept
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import parse_lock, pins
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES, Member, UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Fixture, Repo, fixture, new_repo, sh
from testbed.playbooks import Ansible, Played

RUNNER = LocalRunner()
FLAKES = {"group_flakes": "hosts/sbcs", "stage_flakes": "hosts/sbcs"}


@dataclass(frozen=True)
class Site:
    """A repository with one update group, whose upstream has moved on."""

    repo: Repo
    group: UpdateGroup

    @property
    def branch(self) -> str:
        return self.group.branch or "main"

    @property
    def lock(self) -> str:
        return self.group.locks[0]

    def update(self) -> Candidate:
        made = make_candidate(RUNNER, self.group, Run(owner()), Wish(None))
        publish(made)
        return made

    def land(self, *, push: bool = False) -> Landing:
        return accept(RUNNER, self.group, Run(owner()), push=push)

    def at(self, path: Path) -> Site:
        """The same group in another repository."""
        return Site(Repo(path), replace(self.group, repo=str(path)))

    def head(self) -> str:
        return self.repo.git("rev-parse", self.branch)

    def refused(self, says: str) -> None:
        """An update says this and changes nothing."""
        before = self.repo.state()
        with pytest.raises(BadInput) as caught:
            self.update()
        assert str(caught.value).startswith(f"sbcs: {says}"), caught.value
        assert caught.value.hint
        assert self.repo.state() == before


def owner() -> str:
    return f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester"


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


def _made(folder: Path, strategy: str) -> Fixture:
    made = fixture(folder)
    made.repo.git("config", "user.name", "Op Erator")
    made.repo.git("config", "user.email", "op@example.org")
    if strategy == "group_branches":
        made.repo.git("checkout", "--quiet", "-b", "sbcs")
    made.group("sbcs", {"pi-1": 'lib.host { name = "pi-1"; }'}, flake=FLAKES.get(strategy, "."))
    if strategy == "host_locks":
        made.repo.write("locks/pi-1.lock", (made.repo.path / "flake.lock").read_text())
        (made.repo.path / "flake.lock").unlink()
        made.repo.commit()
    made.release("2")
    return made


@pytest.fixture(scope="module")
def templates() -> dict[str, Fixture]:
    """Repositories that were made before, by strategy."""
    return {}


@pytest.fixture(params=STRATEGIES)
def site(
    request: pytest.FixtureRequest,
    templates: dict[str, Fixture],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    monkeypatch.setenv("GIT_EDITOR", "true")
    strategy = request.param
    if strategy not in templates:
        templates[strategy] = _made(tmp_path_factory.mktemp(strategy), strategy)
    shutil.copytree(templates[strategy].repo.path, tmp_path / "fleet", symlinks=True)
    inputs = ["nixpkgs"] if strategy.endswith("_inputs") else None
    group = update_group("sbcs", str(tmp_path / "fleet"), strategy=strategy, inputs=inputs, members=[Member("pi-1", "pi-1")])
    return Site(Repo(tmp_path / "fleet"), group)


def fork(site: Site, name: str) -> None:
    """A branch `other` that has the file otherwise than the group's branch has it now."""
    site.repo.git("checkout", "--quiet", "-b", "other")
    site.repo.write(name, "theirs\n")
    site.repo.commit()
    site.repo.git("checkout", "--quiet", site.branch)
    site.repo.write(name, "ours\n")
    site.repo.commit()


def fails(site: Site, *words: str) -> None:
    """A git command that is to stop in the middle."""
    done = RUNNER.run(["git", "-C", str(site.repo.path), *words], env={"LC_ALL": "C"})
    assert done.status != 0


@pytest.mark.parametrize("verb", ["merge", "cherry-pick", "rebase"])
def test_what_is_under_way_has_to_be_finished_first(site: Site, verb: str) -> None:
    fork(site, "README")
    fails(site, verb, "other")
    site.refused(f"a {verb} is under way in {site.repo.path}, which nobody has finished. Finish it there (git {verb} --continue)")
    if verb == "rebase" and not site.group.branch:
        # HEAD is what nobody has meant yet.
        builds = build_groups(RUNNER, [(site.group, None)], BuildSettings(dry=True))
        assert "a rebase is under way" in builds.groups["sbcs"].error
    site.repo.git(verb, "--abort")
    assert site.update().changed


def test_a_merge_that_is_begun_after_the_update_keeps_it_from_landing(site: Site) -> None:
    made = site.update()
    fork(site, "README")
    fails(site, "merge", "other")
    before = site.repo.state()
    with pytest.raises(BadInput, match="a merge is under way"):
        site.land()
    assert site.repo.state() == before
    site.repo.git("merge", "--abort")
    assert site.land().merged
    assert site.repo.git("merge-base", "--is-ancestor", made.commit, site.branch) == ""


def test_a_detached_head(site: Site) -> None:
    site.repo.git("checkout", "--quiet", "--detach")
    before = site.head()
    made = site.update()
    if site.group.branch:
        assert site.land().commit == made.commit == site.head()
        return
    assert any("HEAD of" in warning and "name the branch in flotilla_branch" in warning for warning in made.warnings)
    with pytest.raises(BadInput, match=r"is detached, so there is no branch to land on\. Set flotilla_branch"):
        site.land()
    assert site.head() == before


def test_staged_changes_to_the_same_lock(site: Site) -> None:
    site.repo.write(site.lock, (site.repo.path / site.lock).read_text() + "\n")
    site.repo.git("add", site.lock)
    site.refused(
        f"the lock {site.lock} has uncommitted changes, and an update starts from the commit. Commit them, or drop them: git"
    )


def test_a_lock_that_is_a_symbolic_link(site: Site) -> None:
    path = site.repo.path / site.lock
    path.rename(path.parent / "real.lock")
    path.symlink_to("real.lock")
    site.repo.commit()
    site.refused(f"the lock {site.lock} is a symbolic link")
    builds = build_groups(RUNNER, [(site.group, None)], BuildSettings(dry=True))
    errors = {builds.groups["sbcs"].error, *(host.error for host in builds.groups["sbcs"].hosts)}
    assert any(f"the lock {site.lock} is a symbolic link" in error for error in errors), errors


def test_a_committed_conflict(site: Site) -> None:
    site.repo.write(site.lock, '{\n<<<<<<< HEAD\n  "nodes": {}\n=======\n>>>>>>> other\n}\n')
    site.repo.commit()
    site.refused(f"the lock {site.lock} has a merge conflict in it")


def test_a_shallow_clone_lands_also_when_its_remote_has_moved(site: Site, tmp_path: Path) -> None:
    sh("git", "clone", "--quiet", "--bare", str(site.repo.path), str(tmp_path / "remote.git"))
    words = ("clone", "--quiet", "--depth", "1", "--branch", site.branch, f"file://{tmp_path}/remote.git")
    for name in ("shallow", "other"):
        sh("git", *words, str(tmp_path / name))
    shallow, other = site.at(tmp_path / "shallow"), Repo(tmp_path / "other")
    for key, value in (("user.name", "Op Erator"), ("user.email", "op@example.org")):
        shallow.repo.git("config", key, value)
    made = shallow.update()
    other.write("README", "Moved on.\n")
    other.commit()
    other.git("push", "--quiet", "origin", site.branch)
    landing = shallow.land(push=True)
    assert (landing.merged, landing.pushed) == (True, True)
    assert (shallow.repo.path / "README").read_text() == "Moved on.\n"
    there = Repo(tmp_path / "remote.git")
    assert there.git("rev-parse", site.branch) == shallow.head()
    assert there.git("merge-base", "--is-ancestor", made.commit, site.branch) == ""


def test_a_bare_repository(site: Site, tmp_path: Path) -> None:
    sh("git", "clone", "--quiet", "--bare", str(site.repo.path), str(tmp_path / "bare.git"))
    bare = site.at(tmp_path / "bare.git")
    for key, value in (("user.name", "Op Erator"), ("user.email", "op@example.org")):
        bare.repo.git("config", key, value)
    made = bare.update()
    assert bare.land().commit == made.commit == bare.head()


def test_a_branch_that_another_work_tree_has_with_changes(site: Site, tmp_path: Path) -> None:
    site.repo.git("checkout", "--quiet", "-b", "elsewhere")
    site.repo.git("worktree", "add", "--quiet", str(tmp_path / "tree"), site.branch)
    tree = Repo(tmp_path / "tree")
    group = replace(site.group, branch=site.branch)
    moved = Site(site.repo, group)
    tree.write(site.lock, (tree.path / site.lock).read_text() + "\n")
    moved.refused(f"the lock {site.lock} has uncommitted changes")
    tree.git("checkout", "--quiet", site.lock)
    tree.write("README", "Being edited.\n")
    made = moved.update()
    assert any("README" in warning for warning in made.warnings)
    moved.land()
    assert tree.git("status", "--porcelain").split() == ["M", "README"]
    assert tree.git("rev-parse", "HEAD") == made.commit
    assert site.repo.git("status", "--porcelain") == ""


def test_a_branch_that_is_rebased_in_another_work_tree(site: Site, tmp_path: Path) -> None:
    fork(site, "README")
    site.repo.git("checkout", "--quiet", "-b", "elsewhere")
    site.repo.git("worktree", "add", "--quiet", str(tmp_path / "tree"), site.branch)
    tree = Site(Repo(tmp_path / "tree"), site.group)
    fails(tree, "rebase", "other")
    Site(site.repo, replace(site.group, branch=site.branch)).refused(f"a rebase is under way in {tmp_path}/tree")


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_what_a_hook_has_in_its_environment(site: Site, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = fixture(tmp_path / "other").repo
    before = other.state()
    values = {"GIT_DIR": other.path / ".git", "GIT_WORK_TREE": other.path, "GIT_INDEX_FILE": other.path / ".git/index"}
    monkeypatch.setenv(name, str(values[name]))
    made = site.update()
    assert site.land().commit == made.commit
    monkeypatch.delenv(name)
    assert other.state() == before
    assert site.head() == made.commit


def test_a_branch_that_moved_meanwhile(site: Site) -> None:
    made = site.update()
    site.repo.write("README", "Moved on.\n")
    head = site.repo.commit()
    landing = site.land()
    assert landing.merged
    assert site.repo.git("rev-parse", f"{site.branch}^1", f"{site.branch}^2").split() == [head, made.commit]
    assert site.repo.git("diff", "--name-only", made.commit, site.branch) == "README"


@pytest.mark.parametrize("hook", ["pre-receive", "update"])
def test_a_push_that_is_refused_leaves_everything_as_it_was(site: Site, tmp_path: Path, hook: str) -> None:
    remote = tmp_path / "remote.git"
    sh("git", "clone", "--quiet", "--bare", str(site.repo.path), str(remote))
    site.repo.git("remote", "add", "origin", str(remote))
    (remote / "hooks" / hook).write_text("#!/bin/sh\necho No landing on a Friday. >&2\nexit 1\n")
    (remote / "hooks" / hook).chmod(0o755)
    made = site.update()
    before, there = site.repo.state(), sh("git", "-C", str(remote), "for-each-ref")
    with pytest.raises(CommandFailed) as caught:
        site.land(push=True)
    assert "origin refused the push to refs/heads/" in str(caught.value)
    assert "(No landing on a Friday.)" in str(caught.value)
    assert site.repo.state() == before
    assert sh("git", "-C", str(remote), "for-each-ref") == there
    assert site.repo.git("rev-parse", candidate_ref(site.group)) == made.commit
    # What the sentence says to run works, once it is mended; and then there is nothing left to push.
    (remote / "hooks" / hook).unlink()
    sh("sh", "-c", caught.value.hint.partition("and then run: ")[2])
    assert site.land(push=True).commit == made.commit == site.head()


def test_a_conflict_with_what_somebody_has_pushed(site: Site, tmp_path: Path) -> None:
    sh("git", "clone", "--quiet", "--bare", str(site.repo.path), str(tmp_path / "remote.git"))
    site.repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    site.update()
    sh("git", "clone", "--quiet", "--branch", site.branch, str(tmp_path / "remote.git"), str(tmp_path / "other"))
    other = Repo(tmp_path / "other")
    other.write(site.lock, (other.path / site.lock).read_text().replace('"lastModified": ', '"lastModified": 1'))
    other.commit()
    other.git("push", "--quiet", "origin", site.branch)
    before = site.repo.state()
    with pytest.raises(BadInput, match=r"has moved, and its .* cannot be merged with the candidate's; the candidate was kept"):
        site.land(push=True)
    assert site.repo.state() == before


def with_submodule(site: Site, tmp_path: Path) -> None:
    """What the flake imports is in a submodule."""
    other = new_repo(tmp_path / "common")
    other.write("host.nix", '{ name = "pi-1"; }\n')
    other.write("flake.nix", "{ outputs = _: { }; }\n")
    other.commit()
    site.repo.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(other.path), "modules/common")
    flake = site.repo.path / site.group.flake / "flake.nix"
    up = "./" if site.group.flake == "." else "../../"
    flake.write_text(flake.read_text().replace('{ name = "pi-1"; }', f"(import {up}modules/common/host.nix)"))
    site.repo.commit()


def test_a_module_in_a_submodule(site: Site, tmp_path: Path) -> None:
    with_submodule(site, tmp_path)
    before = site.repo.state()
    builds = build_groups(RUNNER, [(site.group, None)], BuildSettings(dry=True))
    (host,) = builds.groups["sbcs"].hosts
    assert host.error.endswith(
        "modules/common is a git submodule, and nix leaves these out. Make it an input of the flake, or (nix 2.27 and newer) "
        "set inputs.self.submodules = true in flake.nix."
    ), host.error
    assert site.repo.state() == before


def test_a_flake_in_a_submodule(site: Site, tmp_path: Path) -> None:
    with_submodule(site, tmp_path)
    group = replace(site.group, flake="modules/common", lock="modules/common/flake.lock")
    Site(site.repo, group).refused(
        "modules/common/flake.nix is in the git submodule modules/common, which has a history of its own"
    )


# Two controllers, and two runs in one repository

SHARED = """{
  inputs.canary.url = "git+file://UPSTREAM?ref=main";
  inputs.stable.url = "git+file://UPSTREAM?ref=main";
  outputs = { self, canary, stable }: { };
}
"""


@pytest.fixture
def shared(tmp_path: Path) -> Fixture:
    """One flake and one lock, in which two groups have an input each; upstream has moved on."""
    made = fixture(tmp_path)
    made.repo.git("config", "user.name", "Op Erator")
    made.repo.git("config", "user.email", "op@example.org")
    made.repo.write("flake.nix", SHARED.replace("UPSTREAM", str(made.upstream.path)))
    made.nix_lock(".")
    made.repo.commit()
    made.release("2")
    return made


def group(name: str, repo: str) -> dict[str, object]:
    return {"name": name, "repo": repo, "strategy": "group_inputs", "branch": "main", "inputs": [name]}


def update_and_land(ansible: Ansible, name: str, repo: str, **more: object) -> Played:
    """Ansible in a process of its own, which updates one group and lands that."""
    one = {**group(name, repo), **more}
    tasks: list[dict[str, object]] = [{"flotilla.nixos.flake_clone": {"groups": [one]}}] if more else []
    tasks += [{"flotilla.nixos.flake_lock": {"groups": [one], "state": state}} for state in ("updated", "accepted")]
    play: list[dict[str, object]] = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": tasks}]
    identity = {f"GIT_{who}_{what}": f"{name}@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return ansible.playbook(play, inventory="localhost,", env=identity)


def pinned(repo: Repo) -> dict[str, str | None]:
    text = repo.git("show", "main:flake.lock") + "\n"
    return {name: pin.rev for name, pin in pins(parse_lock(text, "test", "flake.lock")).items()}


def test_two_controllers_update_two_groups_of_one_lock_at_once(shared: Fixture, ansible: Ansible, tmp_path: Path) -> None:
    remote = Repo(tmp_path / "remote.git")
    sh("git", "clone", "--quiet", "--bare", str(shared.repo.path), str(remote.path))
    url = f"file://{remote.path}"
    newest = shared.upstream.git("rev-parse", "main")
    assert newest not in pinned(remote).values()

    def controller(name: str) -> Played:
        return update_and_land(ansible, name, str(tmp_path / name / "clone.git"), remote=url)

    with ThreadPoolExecutor(2) as pool:
        played = list(pool.map(controller, ("canary", "stable")))
    results = [run.of("flake_lock")[-1].result["groups"] for run in played]
    assert all(result["pushed"] for found in results for result in found.values())
    assert pinned(remote) == {"canary": newest, "stable": newest}
    subjects = remote.git("log", "--format=%s", "main").splitlines()
    assert {subject.partition(":")[0] for subject in subjects} >= {"canary", "stable"}
    # Both start from the same commit, unless one was a whole run ahead of the other.
    assert any(result["merged"] for found in results for result in found.values()) or len(subjects) >= 4
    sh("nix", "flake", "lock", "--no-update-lock-file", f"git+file://{remote.path}?ref=main")


def test_a_second_controller_is_merged_when_the_first_was_faster(shared: Fixture, ansible: Ansible, tmp_path: Path) -> None:
    remote = Repo(tmp_path / "remote.git")
    sh("git", "clone", "--quiet", "--bare", str(shared.repo.path), str(remote.path))
    newest = shared.upstream.git("rev-parse", "main")
    fields = {"remote": f"file://{remote.path}"}
    one = {**group("canary", str(tmp_path / "one/clone.git")), **fields}
    # The first has its candidate before the second begins, and lands it afterwards.
    identity = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def first(*tasks: dict[str, object]) -> Played:
        plays = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": list(tasks)}]
        return ansible.playbook(plays, inventory="localhost,", env=identity)

    first({"flotilla.nixos.flake_clone": {"groups": [one]}}, {"flotilla.nixos.flake_lock": {"groups": [one]}})
    update_and_land(ansible, "stable", str(tmp_path / "two/clone.git"), **fields)
    landed = first({"flotilla.nixos.flake_lock": {"groups": [one], "state": "accepted"}}).of("flake_lock")[0].result
    assert (landed["groups"]["canary"]["merged"], landed["groups"]["canary"]["pushed"]) == (True, True)
    assert pinned(remote) == {"canary": newest, "stable": newest}


def test_two_runs_at_once_in_one_repository_with_one_lock(shared: Fixture, ansible: Ansible) -> None:
    newest = shared.upstream.git("rev-parse", "main")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: update_and_land(ansible, name, str(shared.repo.path)), ("canary", "stable")))
    assert pinned(shared.repo) == {"canary": newest, "stable": newest}
    assert shared.repo.git("status", "--porcelain") == ""
    assert "flake.lock" in os.listdir(shared.repo.path)
    assert pins(parse_lock((shared.repo.path / "flake.lock").read_text(), "test", "flake.lock"))["canary"].rev == newest
