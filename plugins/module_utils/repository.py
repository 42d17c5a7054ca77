# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what a group's repository holds at a commit, and what of it nix can see. Nothing is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import nix
from .errors import BadInput
from .evaluation import FlakeSource
from .nix_messages import explained
from .runner import Runner, RunResult
from .update_group import UpdateGroup

_OWN_LOCK = "flake.lock"


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository on the builder. top: its work tree, or itself where it is bare; common: its git directory."""

    top: str
    common: str
    bare: bool
    shallow: bool


def git(runner: Runner, repo: str, *words: str) -> RunResult:
    """A reading git command in the repository. Takes no lock for refreshing the index on the way."""
    return runner.run(["git", "--no-optional-locks", "-C", repo, *words])


def open_repository(runner: Runner, subject: str, repo: str) -> Repository:
    """Find the repository that the path is in or is; BadInput with the fix if there is none that can be used."""
    result = git(
        runner, repo, "rev-parse", "--path-format=absolute", "--is-bare-repository", "--is-shallow-repository", "--git-common-dir"
    )
    if result.status == 127:
        raise BadInput(runner.name, "there is no git on the PATH that commands get there", "Install git.", result=result)
    if result.status != 0:
        if "not a git repository" in result.stderr or "cannot change to" in result.stderr:
            raise BadInput(subject, f"{repo} on {runner.name} is no git repository", "Name the repository in flotilla_repo.")
        raise explained(result, subject, f"git cannot use {repo}")
    bare, shallow, common = result.stdout.splitlines()
    top = common if bare == "true" else git(runner, repo, "rev-parse", "--show-toplevel").stdout.rstrip("\n")
    return Repository(top or repo, common, bare == "true", shallow == "true")


def resolve_commit(runner: Runner, group: UpdateGroup, commit: str | None = None) -> str:
    """The full id of the given commit, or of the head of the group's branch."""
    name = commit or (f"refs/heads/{group.branch}" if group.branch else "HEAD")
    result = git(runner, group.repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if result.status == 0:
        return result.stdout.strip()
    if commit is None and group.branch:
        raise BadInput(
            group.name, f"{group.repo} has no branch {group.branch!r}", "Create it, or name another in flotilla_branch."
        )
    if commit is None:
        raise BadInput(group.name, f"{group.repo} has no commit yet", "Commit the flake first.")
    raise BadInput(group.name, f"{group.repo} has no commit {commit!r}", "Give one that `git log` shows there.")


def has_file(runner: Runner, repo: str, commit: str, path: str) -> bool:
    """Whether the commit has the file."""
    return git(runner, repo, "cat-file", "-e", f"{commit}:{path}").status == 0


@dataclass(frozen=True, slots=True)
class WorkTree:
    """Paths in which a work tree differs from its commit: tracked ones that were changed, and untracked ones."""

    changed: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()


def work_tree(runner: Runner, group: UpdateGroup, repository: Repository, commit: str) -> WorkTree:
    """How the work tree differs from the commit; not at all where something else is checked out, or nothing."""
    if repository.bare or resolve_commit(runner, replace(group, branch=None)) != commit:
        return WorkTree()
    status = git(runner, repository.top, "status", "--porcelain", "-z", "--untracked-files=normal", "--no-renames")
    entries = [(entry[:2], entry[3:]) for entry in status.stdout.split("\0") if entry]
    return WorkTree(
        tuple(path for state, path in entries if state != "??"), tuple(path for state, path in entries if state == "??")
    )


@contextlib.contextmanager
def flake_source(runner: Runner, group: UpdateGroup, repository: Repository, commit: str | None) -> Iterator[FlakeSource]:
    """The group's flake at a commit for nix; commit None: the work tree's tracked files as they are.

    A lock that is not the flake's own is put into a temporary file for as long as the context lasts.
    """
    require_flake(runner, group, repository, commit)
    ref = nix.flake_ref(repository.top, group.flake, commit, shallow=repository.shallow)
    with _reference_lock(runner, group, repository, commit) as lock:
        yield FlakeSource(group.name, group.flake, ref, commit or "", lock)


def require_flake(runner: Runner, group: UpdateGroup, repository: Repository, commit: str | None) -> None:
    """BadInput with the fix if nix would not find the group's flake.nix there, or not its lock."""
    files = {"flake": _inside(group.flake, "flake.nix"), "lock": group.lock}
    for what, path in files.items():
        present = (
            has_file(runner, repository.top, commit, path)
            if commit
            else git(runner, repository.top, "ls-files", "--error-unmatch", "--", path).status == 0
        )
        # A flake without inputs needs no lock of its own: nix says if this one does.
        optional = what == "lock" and path == _inside(group.flake, _OWN_LOCK)
        if not present:
            _explain_absence(runner, group, repository, commit, path, optional)


def _explain_absence(
    runner: Runner, group: UpdateGroup, repository: Repository, commit: str | None, path: str, optional: bool
) -> None:
    at = f"commit {commit[:12]}" if commit else "the index"
    status = git(runner, repository.top, "status", "--porcelain", "--ignored", "--", path).stdout if not repository.bare else ""
    match status[:2]:
        case "??":
            raise BadInput(
                group.name, f"{path} is not tracked by git, so nix does not see it", f"Run: git add {path} && git commit"
            )
        case "!!":
            raise BadInput(
                group.name, f"{path} is ignored by git, so nix does not see it", f"Run: git add --force {path} && git commit"
            )
        case "A " | "AM" | " A" if commit:
            raise BadInput(group.name, f"{path} is added but not committed, and {at} is what counts", "Commit it.")
    if optional:
        return
    field = "flotilla_flake" if path.endswith(".nix") else "flotilla_lock"
    others = _flakes(runner, repository, commit) if path.endswith(".nix") else ()
    has = f" It has flakes in: {', '.join(others)}." if others else ""
    raise BadInput(group.name, f"there is no {path} in {at} of {repository.top}", f"Name the right one in {field}.{has}")


def _flakes(runner: Runner, repository: Repository, commit: str | None) -> tuple[str, ...]:
    """The directories with a flake.nix; "." is the top."""
    words = ("ls-tree", "-r", "--name-only", "-z", "--full-tree", commit) if commit else ("ls-files", "-z", "--full-name")
    files = git(runner, repository.top, *words).stdout.split("\0")
    return tuple(f.removesuffix("flake.nix").rstrip("/") or "." for f in files if f == "flake.nix" or f.endswith("/flake.nix"))


def _inside(directory: str, name: str) -> str:
    return name if directory == "." else f"{directory}/{name}"


#: Puts a lock into a file of its own and prints that file's name: from a commit, or from the work tree.
_EXTRACT = """
file=$(mktemp "${TMPDIR:-/tmp}/flotilla-lock.XXXXXX")
if [ -n "$2" ]; then git -C "$1" show "$2:$3" >"$file"; else cat -- "$1/$3" >"$file"; fi
printf '%s\\n' "$file"
"""


@contextlib.contextmanager
def _reference_lock(runner: Runner, group: UpdateGroup, repository: Repository, commit: str | None) -> Iterator[str | None]:
    if group.lock == _inside(group.flake, _OWN_LOCK):
        yield None
        return
    result = runner.run(["sh", "-euc", _EXTRACT, "sh", repository.top, commit or "", group.lock])
    if result.status != 0:
        raise explained(result, group.name, f"{group.lock} could not be read from {repository.top}")
    file = result.stdout.strip()
    try:
        yield file
    finally:
        runner.run(["rm", "-f", "--", file])
