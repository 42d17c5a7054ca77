# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a group's flake as nix gets it: at a commit or as the work tree is, with the group's lock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import git, nix
from .errors import BadInput, FlotillaError
from .evaluation import FlakeSource
from .lock_message import named
from .lockfile import Lock, parse_lock
from .nix_messages import LockIncomplete
from .runner import Runner, checked
from .update_group import UpdateGroup

#: Puts stdin into a file of its own and prints that file's name.
_SAVE = 'file=$(mktemp "${TMPDIR:-/tmp}/flotilla-lock.XXXXXX"); cat >"$file"; printf "%s\\n" "$file"'


class NotCommitted(BadInput):
    """The work tree has a file, but nix does not see it: it is untracked, ignored, or only added."""


@dataclass(frozen=True, slots=True)
class WorkTree:
    """Paths in which a work tree differs from its commit: tracked ones that were changed, and untracked ones."""

    changed: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()


def inside(directory: str, name: str) -> str:
    """The path of a file in a directory of the repository."""
    return name if directory == "." else f"{directory}/{name}"


def own_lock(group: UpdateGroup) -> bool:
    """Whether the group's lock is the one that nix finds beside the flake.nix."""
    return group.lock == inside(group.flake, "flake.lock")


def commit_to_use(repo: git.Repository, group: UpdateGroup, wanted: str | None) -> str:
    """The full id of the wanted commit, or of the head of the group's branch; BadInput if there is none."""
    if not repo.path.startswith("/"):
        raise BadInput(
            group.name, f"the repository's path {repo.path!r} is not absolute", "Give the whole path in flotilla_repo."
        )
    if wanted is None:
        if group.branch is None and git.current_branch(repo) is None:
            # In the middle of a rebase HEAD is what nobody has meant yet.
            git.require_settled(repo, None)
        return git.branch_head(repo, group.branch)
    if commit := git.commit_of(repo, wanted):
        return commit
    raise BadInput(group.name, f"the repository {repo.path} has no commit {wanted!r}", "Give one that `git log` shows there.")


def work_tree(repo: git.Repository, group: UpdateGroup) -> WorkTree:
    """How the work tree differs from the head of the group's branch; not at all where another branch is checked out."""
    if repo.bare or (group.branch is not None and git.current_branch(repo) != group.branch):
        return WorkTree()
    files = git.dirty_files(repo)
    return WorkTree(
        tuple(file.path for file in files if file.state != "untracked"),
        tuple(file.path for file in files if file.state == "untracked"),
    )


@dataclass(frozen=True, slots=True)
class Alike:
    """Hosts of a group that have the same pins. group: as if they were all, and the lock of one of them was theirs.

    own: the paths of their own locks, which have the same text, by attribute. error: why the lock cannot be used.
    """

    group: UpdateGroup
    own: Mapping[str, str] = field(default_factory=dict)
    error: FlotillaError | None = None


def alike(repo: git.Repository, group: UpdateGroup, commit: str, *, dirty: bool = False) -> list[Alike]:
    """The group's hosts by what is in their locks. One evaluator knows but one lock, so that each of these needs its own."""
    parts = group.parts()
    if not group.per_host:
        return [Alike(group)]
    there = {} if dirty else git.entries(repo, commit, [part.lock for part in parts])
    found: dict[str, list[UpdateGroup]] = {}
    failed: list[Alike] = []
    for part in parts:
        try:
            entry = there.get(part.lock)
            text = entry.mode + entry.blob if entry else lock_text(repo, part, commit, dirty=dirty) or ""
        except BadInput as error:
            failed.append(Alike(part, error=error))
        else:
            found.setdefault(text, []).append(part)
    return [_together(some) for some in found.values()] + failed


def _together(parts: Sequence[UpdateGroup]) -> Alike:
    members = [(member, part.lock) for part in parts for member in part.members]
    first = parts[0].with_lock(parts[0].lock, [member for member, _lock in members])
    return Alike(first, {member.attribute: lock for member, lock in members})


@contextlib.contextmanager
def flake_source(
    repo: git.Repository, group: UpdateGroup, commit: str, *, dirty: bool = False, own: Mapping[str, str] | None = None
) -> Iterator[FlakeSource]:
    """The flake at a commit of a group that has one lock; dirty: the work tree's tracked files as they are.

    A lock that is not the flake's own is put into a temporary file for as long as the context lasts. own: see Alike.
    """
    require_flake(repo, group, commit, dirty=dirty)
    text = lock_text(repo, group, commit, dirty=dirty)
    if text is not None:
        parse_lock(text, group.name, group.lock)
    ref = nix.flake_ref(repo.path, group.flake, None if dirty else commit, shallow=repo.shallow)
    with _reference_lock(repo.runner, group, text) as lock:
        source = FlakeSource(
            group.name,
            group.flake,
            ref,
            "" if dirty else commit,
            lock,
            lock and f"{repo.path}/{group.lock}",
            {attribute: f"{repo.path}/{path}" for attribute, path in (own or {}).items()},
        )
        try:
            yield source
        except LockIncomplete as error:
            why = "inputs were added or changed since it was written"
            same = [path for path in (own or {}).values() if path != group.lock]
            also = f" (and {named(same)}, which is the same)" if same else ""
            what = f"there is no {group.lock}" if text is None else f"{group.lock}{also} is not complete for its flake.nix: {why}"
            raise LockIncomplete(group.name, what, error.hint, result=error.result) from error


_OWN_REPOSITORY = "Name that repository in flotilla_repo, or move the flake out of it."
_SUBMODULE = "Make it an input of the flake, or (nix 2.27 and newer) set inputs.self.submodules = true in flake.nix."


def in_submodule(repo: git.Repository, commit: str, error: FlotillaError) -> FlotillaError:
    """The error in better words, if it is that nix does not see what is in a submodule."""
    if "does not exist" not in error.what:
        return error
    module = next((m for m in git.submodules(repo, commit) if f"/{m}/" in error.what or f"/{m}'" in error.what), None)
    if module is None:
        return error
    head = error.what.partition(":")[0]
    return FlotillaError(error.subject, f"{head}: {module} is a git submodule, and nix leaves these out", _SUBMODULE)


def require_flake(repo: git.Repository, group: UpdateGroup, commit: str, *, dirty: bool = False) -> None:
    """BadInput with the fix if nix would not find the group's flake.nix there."""
    path = inside(group.flake, "flake.nix")
    if _present(repo, commit, path, dirty):
        return
    _raise_if_unseen(repo, group, path, dirty)
    if module := next((m for m in git.submodules(repo, commit) if path.startswith(f"{m}/")), None):
        raise BadInput(group.name, f"{path} is in the git submodule {module}, which has a history of its own", _OWN_REPOSITORY)
    others = git.flake_dirs(repo, commit)
    has = f" It has flakes in: {', '.join(others)}." if others else ""
    raise BadInput(
        group.name, f"there is no {path} at commit {commit[:12]} of {repo.path}", f"Name its directory in flotilla_flake.{has}"
    )


def lock_text(repo: git.Repository, group: UpdateGroup, commit: str, *, dirty: bool = False) -> str | None:
    """The text of the group's lock there; None for a flake without one, which may be right if it has no inputs.

    BadInput with the fix if nix would not see a lock that the work tree has, or if there is no lock where the group's
    lock is not the flake's own.
    """
    if dirty and _present(repo, commit, group.lock, dirty):
        result = repo.runner.run(["cat", "--", f"{repo.path}/{group.lock}"])
        return checked(result, group.name, f"{group.lock} cannot be read").stdout
    if not dirty and (entry := git.entries(repo, commit, [group.lock]).get(group.lock)):
        require_regular(group, entry)
        return git.show(repo, entry.blob)
    _raise_if_unseen(repo, group, group.lock, dirty)
    if own_lock(group):
        return None
    raise BadInput(
        group.name,
        f"there is no lock {group.lock} at commit {commit[:12]} of {repo.path}",
        "Make it (flotilla_update=true) and commit it, or name the right one in flotilla_lock.",
    )


def require_regular(group: UpdateGroup, entry: git.Entry) -> None:
    """BadInput with the fix if the group's lock is no file of its own."""
    if entry.mode == "120000":
        raise BadInput(group.name, f"the lock {group.lock} is a symbolic link", "Name the file it leads to in flotilla_lock.")


def parsed_lock(repo: git.Repository, group: UpdateGroup, commit: str) -> Lock | None:
    """The group's lock at a commit; None for a flake without one."""
    text = lock_text(repo, group, commit)
    return None if text is None else parse_lock(text, group.name, group.lock)


def _present(repo: git.Repository, commit: str, path: str, dirty: bool) -> bool:
    if dirty:
        return git.is_tracked(repo, path)
    return path in git.entries(repo, commit, [path])


def _raise_if_unseen(repo: git.Repository, group: UpdateGroup, path: str, dirty: bool) -> None:
    """NotCommitted if the work tree has the file, but not where nix looks."""
    if repo.bare:
        return
    state = git.status_of(repo, path)
    if state == "??":
        raise NotCommitted(
            group.name, f"{path} is not tracked by git, so nix does not see it", f"Run: git add {path} && git commit"
        )
    if state == "!!":
        what = f"{path} is ignored by git, so nix does not see it"
        raise NotCommitted(group.name, what, f"Run: git add --force {path} && git commit")
    if "A" in state and not dirty:
        what = f"{path} is added but not committed, and only what is committed is deployed"
        raise NotCommitted(group.name, what, f"Run: git commit {path}")


@contextlib.contextmanager
def _reference_lock(runner: Runner, group: UpdateGroup, text: str | None) -> Iterator[str | None]:
    if own_lock(group) or text is None:
        yield None
        return
    result = runner.run(["sh", "-euc", _SAVE], stdin=text)
    file = checked(result, group.name, f"a copy of {group.lock} could not be made").stdout.strip()
    try:
        yield file
    finally:
        runner.run(["rm", "-f", "--", file])
