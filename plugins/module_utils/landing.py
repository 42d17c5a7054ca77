# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what becomes of a candidate: the branch is brought to it, or it is dropped."""

from __future__ import annotations

from dataclasses import dataclass

from . import git
from .builder_files import held, scratch_dir
from .candidate import Run, candidate_ref, locks_held
from .errors import BadInput, CommandFailed
from .lockfile import Lock, merged, parse_lock
from .locking import Locking
from .runner import Runner, RunResult
from .update_group import UpdateGroup

#: How often landing starts again because the branch moved, or git was busy in the work tree.
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Landing:
    """What became of a candidate. commit: head of the branch now; base: before. merged: the branch had moved."""

    branch: str | None
    base: str
    commit: str
    candidate: str | None
    message: str
    changed: bool
    merged: bool = False
    pushed: bool = False


def discard(runner: Runner, group: UpdateGroup, *, commit: str | None = None, check: bool = False) -> Landing:
    """Drop the group's candidate (only the one named by `commit`, if given). The branch never knew."""
    repo = git.open_repository(runner, group.repo, group.name)
    branch = group.branch or git.current_branch(repo)
    head = git.branch_head(repo, branch)
    named = git.commit_of(repo, candidate_ref(group))
    if named is None or (commit and git.commit_of(repo, commit) != named):
        return Landing(branch, head, head, None, "", changed=False)
    if not check:
        git.delete_ref(repo, candidate_ref(group), named)
    return Landing(branch, head, head, named, git.subject_of(repo, named), changed=True)


def accept(
    runner: Runner, group: UpdateGroup, run: Run, *, commit: str | None = None, push: bool = False, check: bool = False
) -> Landing:
    """Bring the group's branch to its candidate, by fast-forward or merge, and drop the candidate's ref.

    commit: the candidate that was proven, landed even if a later run has made another one since. push: to the branch's remote
    first, so that a refused push leaves the branch as it was. check: only say. On failure the candidate stays.
    """
    repo = git.open_repository(runner, group.repo, group.name)
    branch = group.branch or git.current_branch(repo)
    head = git.branch_head(repo, branch)
    named = git.commit_of(repo, candidate_ref(group))
    wanted = _wanted(repo, group, commit, head) if commit else named
    if wanted is None or (wanted != named and git.is_ancestor(repo, wanted, head)):
        return Landing(branch, head, head, None, "", changed=False)
    if branch is None:
        raise BadInput(group.name, f"HEAD of {repo.path} is detached, so there is no branch to land on", "Set flotilla_branch.")
    git.require_identity(repo)
    locks = _locks(repo, group, wanted)
    with (
        locks_held(repo, locks, run.owner),
        # git's fast-forward writes the work tree before it moves the branch: two at once leave one's files without its commit.
        held(runner, group.name, f"{repo.git_dir}/flotilla/landing", run.owner),
        scratch_dir(runner, group.name) as scratch,
    ):
        landing = _Lander(repo, group, locks, branch, wanted, scratch, push, check).land()
    if not check and wanted == named:
        git.delete_ref(repo, candidate_ref(group), wanted)
    return landing


def _wanted(repo: git.Repository, group: UpdateGroup, commit: str, head: str) -> str:
    """The commit if it is a candidate of this group: one that changes its lock alone."""
    found = git.commit_of(repo, commit)
    if found is None:
        raise BadInput(group.name, f"the repository {repo.path} has no commit {commit}", "Make the candidate again.")
    if git.is_ancestor(repo, found, head):
        return found
    parents = git.parents_of(repo, found)
    changed = git.changed_paths(repo, parents[0], found) if len(parents) == 1 else ()
    if not changed or not all(map(group.owns, changed)):
        raise BadInput(
            group.name, f"commit {commit} is no candidate: it changes more than {group.lock}", "Merge it by hand if you want it."
        )
    return found


def _locks(repo: git.Repository, group: UpdateGroup, candidate: str) -> tuple[str, ...]:
    """The lock files of the group that a candidate changes: not those of all its hosts, where each has its own."""
    if not group.per_host:
        return (group.lock,)
    parents = git.parents_of(repo, candidate)
    return tuple(filter(group.owns, git.changed_paths(repo, parents[0], candidate))) if parents else ()


@dataclass(frozen=True, slots=True)
class _Lander:
    """One candidate on its way to one branch."""

    repo: git.Repository
    group: UpdateGroup
    locks: tuple[str, ...]
    branch: str
    candidate: str
    scratch: str
    push: bool
    check: bool

    def land(self) -> Landing:
        """Compare and swap, again while others move the branch."""
        for _attempt in range(_ATTEMPTS):
            head = git.branch_head(self.repo, self.branch)
            worktree = git.worktree_of(self.repo, self.branch)
            if worktree:
                self._require_clean_lock(worktree)
            moved = not git.is_ancestor(self.repo, head, self.candidate)
            target = self._merged(head) if moved else self.candidate
            if not self.check:
                if self.push:
                    self._push(target)
                if not self._move(worktree, head, target):
                    continue
            message = git.subject_of(self.repo, self.candidate)
            pushed = self.push and not self.check
            merge = moved and target != head
            return Landing(self.branch, head, target, self.candidate, message, changed=True, merged=merge, pushed=pushed)
        raise CommandFailed(
            self.group.name, f"branch {self.branch} kept moving while the candidate was landing; it was kept", "Try again."
        )

    def _require_clean_lock(self, worktree: str) -> None:
        for file in git.dirty_files(self.repo, self.locks, worktree=worktree, ignored=True):
            raise BadInput(
                self.group.name,
                f"{file.path} in {worktree} has uncommitted changes, which landing would overwrite; the candidate was kept",
                f"Commit them, or drop them (git restore --staged --worktree {file.path}), and accept the candidate again.",
            )

    def _move(self, worktree: str | None, head: str, target: str) -> bool:
        """Move the branch from head to target; False to try again."""
        if target == head:
            return True
        if worktree is None:
            return git.update_ref(self.repo, f"refs/heads/{self.branch}", target, head, "flotilla: accept a candidate")
        result = git.fast_forward(self.repo, worktree, target)
        if result.status == 0:
            return True
        if git.branch_head(self.repo, self.branch) != head or _busy(self.repo, result):
            return False
        raise CommandFailed(
            self.group.name,
            f"branch {self.branch} could not be brought to the candidate in {worktree}: {result.stderr.strip()[-1000:]}",
            "Clear what git names and accept the candidate again; it was kept.",
            result=result,
        )

    def _merged(self, head: str) -> str:
        """A commit that merges the candidate into the branch's head, or the head if it has the candidate already."""
        if git.is_ancestor(self.repo, self.candidate, head):
            return head
        base = git.merge_base(self.repo, head, self.candidate)
        merge = git.merge_tree(self.repo, head, self.candidate)
        if others := [path for path in merge.conflicts if path not in self.locks]:
            raise self._conflict(", ".join(others))
        files = {path: text for path in self.locks if (text := self._merged_lock(path, base, head)) is not None}
        tree = git.tree_with_files(self.repo, merge.tree, files, self.scratch) if files else merge.tree
        message = f"Merge {git.subject_of(self.repo, self.candidate)}\n"
        commit = git.commit_tree(self.repo, tree, (head, self.candidate), message)
        for path in self.locks:
            self._require_complete(path, commit)
        return commit

    def _merged_lock(self, path: str, base: str, head: str) -> str | None:
        """The text of a lock that both sides may have changed; None if the branch has left it as it was."""
        locks = [self._lock(path, commit) for commit in (base, head, self.candidate)]
        if locks[0] == locks[1]:
            return None
        # Lines of a lock merge to nonsense, or to a conflict where there is none: two inputs next to each other.
        lock = merged(*locks)
        if lock is None:
            raise self._conflict(path)
        return self._locking(path, head).as_written_by_nix(lock).to_text()

    def _require_complete(self, path: str, commit: str) -> None:
        if (landed := self._lock(path, commit)) is None:
            return
        self._locking(path, commit).require_complete(
            landed,
            f"branch {self.branch} has moved, and its flake.nix has other inputs than the candidate's lock; it was kept",
            "Discard the candidate and update again.",
        )

    def _lock(self, path: str, commit: str) -> Lock | None:
        entry = git.entries(self.repo, commit, [path]).get(path)
        return parse_lock(git.show(self.repo, entry.blob), self.group.name, path) if entry else None

    def _locking(self, path: str, commit: str) -> Locking:
        return Locking(self.repo, self.group.with_lock(path), commit, self.scratch, {})

    def _conflict(self, what: str) -> BadInput:
        return BadInput(
            self.group.name,
            f"branch {self.branch} has moved, and its {what} cannot be merged with the candidate's; the candidate was kept",
            "Discard it and update again.",
        )

    def _push(self, commit: str) -> None:
        remote, ref = git.push_target(self.repo, self.branch)
        result = git.push(self.repo, remote, commit, ref)
        if result.status == 0:
            return
        behind = "[rejected]" in result.stderr
        why = "it has commits that this repository has not" if behind else result.stderr.strip()[-1000:]
        raise CommandFailed(
            self.group.name,
            f"{remote} refused the push to {ref}: {why}. Branch {self.branch} was left as it was, and the candidate was kept",
            "Run git pull, and accept the candidate again." if behind else "Mend that, and accept the candidate again.",
            result=result,
        )


def _busy(repo: git.Repository, result: RunResult) -> bool:
    """Whether git only found another git at work; waits a little then."""
    if "index.lock" not in result.stderr:
        return False
    repo.runner.run(["sleep", "0.3"])
    return True
