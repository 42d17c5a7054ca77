# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what becomes of a candidate: the branch is brought to it, or it is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import git, git_remote
from .builder_files import held, scratch_dir
from .candidate import Run, candidate_ref, locks_held, replaced_ref
from .clones import is_clone
from .errors import BadInput, CommandFailed
from .git_branches import named_before
from .lockfile import Lock, merged, parse_lock
from .locking import Locking
from .runner import Runner, RunResult
from .update_group import UpdateGroup

#: How often landing starts again because the branch moved, or git was busy in the work tree.
_ATTEMPTS = 20
#: Seconds to wait for another landing, which may wait for a git server.
_PATIENCE = 900


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
    first, so that a refused push leaves the branch as it was; always from a clone of ours. check: only say. On failure the
    candidate stays.
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
        held(runner, group.name, f"{repo.git_dir}/flotilla/landing", run.owner, patience=_PATIENCE),
        scratch_dir(runner, group.name) as scratch,
    ):
        push = push or is_clone(repo)
        landing = _Lander(repo, group, locks, branch, wanted, scratch, push, check).land()
    if not check and wanted == named:
        git.delete_ref(repo, candidate_ref(group), wanted)
    return landing


def _wanted(repo: git.Repository, group: UpdateGroup, commit: str, head: str) -> str:
    """The commit if it is a candidate of this group: one that its refs name, or have named, or that changes its lock alone."""
    found = git.commit_of(repo, commit)
    if found is None:
        raise BadInput(group.name, f"the repository {repo.path} has no commit {commit}", "Make the candidate again.")
    if git.is_ancestor(repo, found, head) or found in _ours(repo, group):
        return found
    parents = git.parents_of(repo, found)
    changed = git.changed_paths(repo, parents[0], found) if len(parents) == 1 else ()
    if not changed or not all(map(group.owns, changed)):
        raise BadInput(
            group.name, f"commit {commit} is no candidate: it changes more than {group.lock}", "Merge it by hand if you want it."
        )
    if not git.is_ancestor(repo, parents[0], head):
        what = f"commit {commit} is no candidate: its parent {parents[0][:12]} is not on the branch, and would come along"
        raise BadInput(group.name, what, "Merge it by hand if you want it.")
    return found


def _ours(repo: git.Repository, group: UpdateGroup) -> tuple[str | None, ...]:
    """The candidates of the group that are known by name: a merge is not to be told from anybody's by what it changes."""
    return git.commit_of(repo, candidate_ref(group)), *named_before(repo, replaced_ref(group))


def _locks(repo: git.Repository, group: UpdateGroup, candidate: str) -> tuple[str, ...]:
    """The lock files of the group that a candidate changes: not those of all its hosts, where each has its own."""
    if not group.per_host:
        return (group.lock,)
    parents = git.parents_of(repo, candidate)
    # It may have been made for other hosts than are named now.
    anybody = group.with_lock(group.lock, ())
    return tuple(filter(anybody.owns, git.changed_paths(repo, parents[0], candidate))) if parents else ()


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
            if not self.repo.bare:
                git.require_settled(self.repo, self.branch)
            if worktree:
                self._require_clean(worktree, self.locks)
            target = self._merged(head, self.candidate)
            if not self.check:
                if self.push:
                    target = self._pushed(worktree, head, target)
                if not self._move(worktree, head, target):
                    continue
            message = git.subject_of(self.repo, self.candidate)
            pushed = self.push and not self.check
            merge = target not in (head, self.candidate)
            return Landing(self.branch, head, target, self.candidate, message, changed=True, merged=merge, pushed=pushed)
        what = f"branch {self.branch} kept moving, or git was busy there, while the candidate was landing; it was kept"
        raise CommandFailed(self.group.name, what + (f", and {self._arrived()}" if self.push else ""), "Try again.")

    def _require_clean(self, worktree: str, paths: Sequence[str]) -> None:
        for file in git.dirty_files(self.repo, paths, worktree=worktree, ignored=True):
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
        what = f"branch {self.branch} could not be brought to the candidate in {worktree}: {result.stderr.strip()[-1000:]}"
        fix = "Clear what git names and accept the candidate again; it was kept."
        if self.push:
            what += f"; {self._arrived()}"
            fix = f"Clear what git names, and bring the branch to it, too: git -C {worktree} merge --ff-only {target}"
        raise CommandFailed(self.group.name, what, fix, result=result)

    def _arrived(self) -> str:
        remote, ref = git.push_target(self.repo, self.branch)
        return f"{remote} has it already, in {ref}"

    def _merged(self, head: str, commit: str) -> str:
        """A commit on top of a head that has what another one brings: itself, the head or the other if these do already."""
        if git.is_ancestor(self.repo, commit, head):
            return head
        if git.is_ancestor(self.repo, head, commit):
            return commit
        base = git.merge_base(self.repo, head, commit)
        merge = git.merge_tree(self.repo, head, commit)
        if others := [path for path in merge.conflicts if path not in self.locks]:
            raise self._conflict(", ".join(others))
        files = {path: text for path in self.locks if (text := self._merged_lock(path, base, head, commit)) is not None}
        tree = git.tree_with_files(self.repo, merge.tree, files, self.scratch) if files else merge.tree
        message = f"Merge {git.subject_of(self.repo, self.candidate)}\n"
        commit = git.commit_tree(self.repo, tree, (head, commit), message)
        for path in self.locks:
            self._require_complete(path, commit)
        return commit

    def _merged_lock(self, path: str, base: str, head: str, other: str) -> str | None:
        """The text of a lock that both sides may have changed; None if the branch has left it as it was."""
        locks = [self._lock(path, commit) for commit in (base, head, other)]
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

    def _pushed(self, worktree: str | None, head: str, target: str) -> str:
        """Push; where the remote's branch has moved, merge that in and push again. The commit that arrived."""
        remote, ref = git.push_target(self.repo, self.branch)
        for _attempt in range(_ATTEMPTS):
            result = git_remote.push(self.repo, remote, target, ref)
            if result.status == 0:
                return target
            refusal = git_remote.refusal(result, git_remote.url_of(self.repo, remote), self.repo.runner.name)
            if not refusal.moved:
                raise CommandFailed(
                    self.group.name,
                    f"{remote} refused the push to {ref}: {refusal.why}. Branch {self.branch} was left as it was, and the "
                    f"candidate was kept",
                    f"{refusal.hint}, and then run: git -C {self.repo.path} push {remote} {target}:{ref}",
                    result=result,
                )
            theirs = git_remote.fetched(self.repo, remote, ref)
            if theirs is None:
                continue
            target = self._merged(theirs, self.candidate if git.is_ancestor(self.repo, head, theirs) else target)
            if worktree:
                self._require_clean(worktree, git.changed_paths(self.repo, head, target))
        raise CommandFailed(
            self.group.name,
            f"{ref} of {remote} kept moving while the candidate was to be pushed; it was kept",
            "Try again.",
        )


def _busy(repo: git.Repository, result: RunResult) -> bool:
    """Whether git only found another git at work; waits a little then."""
    if "index.lock" not in result.stderr:
        return False
    repo.runner.run(["sleep", "0.3"])
    return True
