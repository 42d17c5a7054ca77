# SPDX-License-Identifier: GPL-3.0-or-later
"""git's command lines, and what is made of its answers."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed
from fakes import FakeRunner, Step

C = ["git", "-C", "/srv/fleet"]
FACTS = ["rev-parse", "--is-bare-repository", "--is-shallow-repository", "--path-format=absolute", "--git-common-dir"]
A, B = "a" * 40, "b" * 40


def repository(*steps: Step | list[str] | tuple[list[str], str], bare: bool = False) -> git.Repository:
    return git.Repository(FakeRunner(*steps), "sbcs", "/srv/fleet", "/srv/fleet/.git", bare, shallow=False)


def finish(repo: git.Repository) -> None:
    assert isinstance(repo.runner, FakeRunner)
    repo.runner.done()


@pytest.mark.parametrize(
    ("stdout", "status", "error"),
    [
        ("git version 2.39.5\n", 0, ""),
        ("git version 2.47.1.windows.1\n", 0, ""),
        ("git version 3.0.0\n", 0, ""),
        ("git version 2.34.1\n", 0, "builder: its git is too old: it says 'git version 2.34.1', and 2.38 is the oldest"),
        ("", 127, "builder: there is no git"),
    ],
)
def test_the_version(stdout: str, status: int, error: str) -> None:
    runner = FakeRunner(Step(["git", "--version"], stdout, status=status))
    if not error:
        git.require_git(runner)
        return
    with pytest.raises(BadInput) as caught:
        git.require_git(runner)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("steps", "repo"),
    [
        (
            [(C + FACTS, "false\nfalse\n/srv/fleet/.git\n"), ([*C, "rev-parse", "--show-toplevel"], "/srv/fleet\n")],
            ("/srv/fleet", "/srv/fleet/.git", False, False),
        ),
        ([(C + FACTS, "true\ntrue\n/srv/fleet\n")], ("/srv/fleet", "/srv/fleet", True, True)),
    ],
)
def test_opening(steps: list[tuple[list[str], str]], repo: tuple[str, str, bool, bool]) -> None:
    runner = FakeRunner(*steps)
    found = git.open_repository(runner, "/srv/fleet", "sbcs")
    assert (found.path, found.git_dir, found.bare, found.shallow) == repo
    runner.done()


@pytest.mark.parametrize(
    ("status", "stderr", "error"),
    [
        (127, "git: not found", "there is no git on builder"),
        (
            128,
            "fatal: detected dubious ownership in repository at '/srv/fleet'",
            "git config --global --add safe.directory /srv/fleet",
        ),
        (128, "fatal: not a git repository (or any of the parent directories): .git", "is not a git repository"),
        (128, "fatal: cannot change to '/srv/fleet': No such file or directory", "is not a git repository"),
    ],
)
def test_what_cannot_be_opened(status: int, stderr: str, error: str) -> None:
    with pytest.raises(BadInput) as caught:
        git.open_repository(FakeRunner(Step(C + FACTS, stderr=stderr, status=status)), "/srv/fleet", "sbcs")
    assert error in str(caught.value)


SIGNING = [*C, "config", "--type=bool", "--get", "commit.gpgSign"]


@pytest.mark.parametrize(("signing", "sign"), [("", []), ("false\n", []), ("true\n", ["-S"])])
def test_a_file_is_replaced_through_an_index_of_its_own(signing: str, sign: list[str]) -> None:
    env = {"GIT_INDEX_FILE": "/tmp/s/index"}
    repo = repository(
        Step([*C, "hash-object", "-w", "--stdin"], "blob1\n", stdin="{}\n"),
        Step([*C, "read-tree", A], env=env),
        Step([*C, "update-index", "--index-info"], env=env, stdin="100644 blob1\thosts/sbcs/flake.lock\n"),
        Step([*C, "write-tree"], "tree1\n", env=env),
        (SIGNING, signing),
        Step([*C, "commit-tree", "tree1", "-p", A, "-p", B, *sign, "-F", "-"], "commit1\n", stdin="subject\n"),
    )
    tree = git.tree_with_files(repo, A, {"hosts/sbcs/flake.lock": "{}\n"}, "/tmp/s")
    assert git.commit_tree(repo, tree, (A, B), "subject\n") == "commit1"
    finish(repo)


def test_files_with_one_text_are_stored_once() -> None:
    env = {"GIT_INDEX_FILE": "/tmp/s/index"}
    listed = "100644 blob1\tlocks/a.lock\n100644 blob2\tlocks/b.lock\n100644 blob1\tlocks/c.lock\n"
    repo = repository(
        Step([*C, "hash-object", "-w", "--stdin"], "blob1\n", stdin="1\n"),
        Step([*C, "hash-object", "-w", "--stdin"], "blob2\n", stdin="2\n"),
        Step([*C, "read-tree", A], env=env),
        Step([*C, "update-index", "--index-info"], env=env, stdin=listed),
        Step([*C, "write-tree"], "tree1\n", env=env),
    )
    files = {"locks/a.lock": "1\n", "locks/b.lock": "2\n", "locks/c.lock": "1\n"}
    assert git.tree_with_files(repo, A, files, "/tmp/s") == "tree1"
    finish(repo)


def test_the_states_of_files() -> None:
    words = ["status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames"]
    listed = "?? new\n\0 M a b\0A  added\0UU both\0AA both2\0!! ignored\0"
    repo = repository(([*C, *words, "--"], listed), (["git", "-C", "/tree", *words, "--ignored=matching", "--", "x"], ""))
    found = {file.path: file.state for file in git.dirty_files(repo)}
    assert found == {
        "new\n": "untracked",
        "a b": "changed",
        "added": "changed",
        "both": "conflicted",
        "both2": "conflicted",
        "ignored": "ignored",
    }
    assert git.dirty_files(repo, ["x"], worktree="/tree", ignored=True) == ()
    finish(repo)


@pytest.mark.parametrize(
    ("old", "expected", "stderr", "moved"),
    [
        (B, B, "", True),
        (None, "0" * 40, "", True),
        (B, B, f"fatal: update_ref failed for ref 'refs/x': cannot lock ref 'refs/x': is at {A} but expected {B}", False),
        (None, "0" * 40, "fatal: cannot lock ref 'refs/x': reference already exists", False),
    ],
)
def test_compare_and_swap(old: str | None, expected: str, stderr: str, moved: bool) -> None:
    repo = repository(Step([*C, "update-ref", "-m", "why", "refs/x", A, expected], stderr=stderr, status=128 if stderr else 0))
    assert git.update_ref(repo, "refs/x", A, old, "why") is moved
    finish(repo)


def test_a_ref_that_cannot_be_written_is_an_error() -> None:
    repo = repository(Step([*C, "update-ref", "-m", "why", "refs/x", A, B], stderr="fatal: Permission denied", status=128))
    with pytest.raises(CommandFailed, match="sbcs: writing refs/x failed: fatal: Permission denied"):
        git.update_ref(repo, "refs/x", A, B, "why")


def test_merging_without_a_work_tree() -> None:
    words = [*C, "merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", A, B]
    assert git.merge_tree(repository((words, "tree1\0")), A, B) == git.Merge("tree1", ())
    conflict = repository(Step(words, "tree1\0a/flake.lock\0", status=1))
    assert git.merge_tree(conflict, A, B) == git.Merge("tree1", ("a/flake.lock",))
    with pytest.raises(CommandFailed):
        git.merge_tree(repository(Step(words, stderr="fatal: bad object", status=128)), A, B)


def test_the_work_tree_of_a_branch() -> None:
    listed = f"worktree /srv/fleet\0HEAD {A}\0branch refs/heads/main\0\0worktree /srv/two\0HEAD {B}\0branch refs/heads/field\0\0"
    listed += f"worktree /gone\0HEAD {B}\0branch refs/heads/gone\0prunable gitdir file points to non-existent location\0\0"
    words = [*C, "worktree", "list", "--porcelain", "-z"]
    assert git.worktree_of(repository((words, listed)), "gone") is None
    assert git.worktree_of(repository((words, listed)), "field") == "/srv/two"
    assert git.worktree_of(repository((words, listed)), "other") is None
    assert git.worktree_of(repository(), None) == "/srv/fleet"
    bare = "worktree /srv/fleet\0bare\0\0"
    assert git.worktree_of(repository((words, bare), bare=True), "main") is None


@pytest.mark.parametrize(
    ("config", "target"),
    [
        ({}, ("origin", "refs/heads/main")),
        ({"branch.main.remote": "up", "branch.main.merge": "refs/heads/trunk"}, ("up", "refs/heads/trunk")),
        (
            {"branch.main.remote": "up", "branch.main.merge": "refs/heads/trunk", "remote.pushDefault": "fork"},
            ("fork", "refs/heads/main"),
        ),
    ],
)
def test_where_a_branch_is_pushed(config: dict[str, str], target: tuple[str, str]) -> None:
    keys = ["branch.main.remote", "branch.main.pushRemote"]
    keys += [] if config.get("branch.main.pushRemote") else ["remote.pushDefault"]
    steps = [
        Step([*C, "config", "--get", key], f"{config[key]}\n" if key in config else "", status=int(key not in config))
        for key in keys
    ]
    merge = "branch.main.merge"
    steps.append(Step([*C, "config", "--get", merge], f"{config[merge]}\n" if merge in config else ""))
    repo = repository(*steps)
    assert git.push_target(repo, "main") == target
    finish(repo)


def test_a_branch_that_is_not_there_names_those_that_are() -> None:
    words = [*C, "rev-parse", "--verify", "--quiet", "--end-of-options", "refs/heads/nosuch^{commit}"]
    repo = repository(Step(words, status=1), ([*C, "for-each-ref", "--format=%(refname:short)", "refs/heads"], "main\nfield\n"))
    with pytest.raises(BadInput, match=r"no branch 'nosuch'\. It has main, field\."):
        git.branch_head(repo, "nosuch")
