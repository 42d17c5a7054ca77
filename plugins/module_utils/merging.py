# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: promotion between branches of one repository, which is a merge: the configuration comes along.

The lock is the source's, to the letter where flake.nix allows it. No branch, index or work tree is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from . import git
from .builder_files import scratch_dir
from .candidate import Candidate, Run, candidate_ref, lock_at, locks_held, work_tree_warnings
from .errors import BadInput, CommandFailed
from .flake_source import require_flake
from .git_branches import related, subjects_between
from .holding import Holding, Kept
from .lock_message import pins_text, subject_line, whole_message
from .lockfile import Change, Lock, difference, gone_back
from .locking import Locking
from .pairing import Choice
from .promotion import Origin, origin_of, promote, promoted_lock
from .runner import Runner
from .update_group import UpdateGroup

#: Merged commits that a diff names.
_NAMED = 20


def promote_or_merge(
    runner: Runner,
    group: UpdateGroup,
    run: Run,
    source: UpdateGroup,
    choice: Choice,
    *,
    commit: str | None = None,
    holding: Holding | None = None,
    allow_dirty: bool = False,
) -> Candidate:
    """As promote; but where the groups differ in nothing but their branch, a candidate that merges the source's commit.

    Where only some inputs are asked for, or the group has that commit already, the pins alone are promoted.
    """
    pins = partial(promote, runner, group, run, source, choice, holding=holding, allow_dirty=allow_dirty)
    some = choice.inputs is not None or choice.mapping
    if some or not _branches_of_one_flake(runner, group, source):
        return pins(commit=commit)
    if holding:
        holding.require_open()
    origin = origin_of(runner, source, commit, source.name)
    repo = git.open_repository(runner, group.repo, group.name)
    branch = group.branch or git.current_branch(repo)
    if git.is_ancestor(repo, origin.commit, git.branch_head(repo, branch)):
        return pins(commit=origin.commit)
    git.require_identity(repo)
    with locks_held(repo, group.locks, run.owner), scratch_dir(runner, group.name) as scratch:
        base = git.branch_head(repo, branch)
        old = lock_at(repo, group, base)
        kept = holding.kept(old) if holding and old else Kept()
        return _Merging(repo, group, branch, base, old, origin, kept, scratch, run, allow_dirty).candidate()


def _branches_of_one_flake(runner: Runner, group: UpdateGroup, source: UpdateGroup) -> bool:
    """Whether both have the same flake and lock, on two branches of one repository."""
    if group.flake != source.flake or group.lock != source.lock or group.per_host:
        return False
    here, there = (git.open_repository(runner, one.repo, one.name) for one in (group, source))
    branches = [one.branch or git.current_branch(repo) for one, repo in ((group, here), (source, there))]
    return here.git_dir == there.git_dir and branches[0] != branches[1]


@dataclass(frozen=True, slots=True)
class _Merging:
    """One merge of a proven commit into the head of a group's branch."""

    repo: git.Repository
    group: UpdateGroup
    branch: str | None
    base: str
    old: Lock | None
    origin: Origin
    kept: Kept
    scratch: str
    run: Run
    allow_dirty: bool

    def candidate(self) -> Candidate:
        """The merge as a candidate. BadInput on a conflict outside the lock, and where the work tree is in the way."""
        repo, group, source = self.repo, self.group, self.origin
        warnings = work_tree_warnings(repo, group, self.branch, self.allow_dirty)
        require_flake(repo, group, source.commit)
        if git.is_ancestor(repo, self.base, source.commit) and not self.kept.paths:
            commit, new = source.commit, source.lock
            if not self._complete(commit, new):
                raise self._incomplete()
        else:
            commit, new = self._merge()
        self._require_free(commit)
        changes = difference(self.old, new).changes
        back = gone_back(changes)
        return Candidate(
            repo=repo,
            group=group,
            branch=self.branch,
            base=self.base,
            candidate=commit,
            previous=git.commit_of(repo, candidate_ref(group)),
            changes=changes,
            message=self._subject(changes),
            warnings=(*warnings, *self.kept.warnings, *(f"{group.name}: {note}." for note in back)),
            before=pins_text(self.old, changes),
            after=pins_text(new, changes) + self._merged_commits(),
            locks=(group.lock,),
            notes=(*self.kept.notes, *back),
            opened=self.kept.opened,
        )

    def _merge(self) -> tuple[str, Lock]:
        """The merge commit and its lock."""
        if not related(self.repo, self.base, self.origin.commit):
            what = f"branch {self.branch} and {self._what} have no history in common, so they cannot be merged"
            hint = "Fetch the whole history: git fetch --unshallow." if self.repo.shallow else "Make the one from the other."
            raise BadInput(self.group.name, what, hint)
        merge = git.merge_tree(self.repo, self.base, self.origin.commit)
        if others := [path for path in merge.conflicts if path != self.group.lock]:
            raise BadInput(
                self.group.name,
                f"{', '.join(others)} on branch {self.branch} cannot be merged with {self._what}: both have changed it",
                f"Merge it into {self.branch} by hand (git merge {self.origin.commit[:12]}), and promote again.",
            )
        commit = self._commit(merge.tree, self.origin.lock)
        if not self.kept.paths and self._complete(commit, self.origin.lock):
            return commit, self.origin.lock
        if self.old is None:
            raise self._incomplete()
        # Inputs that only this branch's flake.nix has keep the pins that they have.
        new = promoted_lock(self._locking(commit), self.old, self.origin, self.kept)
        return self._commit(merge.tree, new), new

    def _commit(self, merged: str, new: Lock) -> str:
        """A commit of the merged tree with this lock: the candidate that is there, if it is the same."""
        tree = git.tree_with_files(self.repo, merged, {self.group.lock: new.to_text()}, self.scratch)
        parents = (self.base, self.origin.commit)
        left = git.commit_of(self.repo, candidate_ref(self.group))
        if left and git.parents_of(self.repo, left) == parents and git.tree_of(self.repo, left) == tree:
            return left
        changes, origin = difference(self.old, new).changes, f"Merges commit {self.origin.commit} of {self.origin.name}."
        if changes:
            message = whole_message(self.group.name, changes, why=f"from {self.origin.name}", origin=origin)
        else:
            message = f"{self._subject(changes)}\n\n{origin}\n"
        return git.commit_tree(self.repo, tree, parents, message)

    def _subject(self, changes: tuple[Change, ...]) -> str:
        if changes:
            return subject_line(self.group.name, changes, why=f"from {self.origin.name}")
        return f"{self.group.name}: merge {self.origin.name} at {self.origin.commit[:12]}"

    @property
    def _what(self) -> str:
        return f"commit {self.origin.commit[:12]} of {self.origin.name}"

    def _complete(self, commit: str, lock: Lock) -> bool:
        """Whether nix would leave the lock as it is; upstreams are asked only where nix cannot say otherwise."""
        try:
            return self._locking(commit).complete(lock, offline=True)
        except CommandFailed:
            return self._locking(commit).complete(lock)

    def _locking(self, commit: str) -> Locking:
        return Locking(self.repo, self.group, commit, self.scratch, self.run.answers)

    def _incomplete(self) -> BadInput:
        return BadInput(
            self.group.name,
            f"the lock {self.group.lock} of {self._what} is not complete for its flake.nix",
            "Lock what flake.nix says there first, commit, and promote that.",
        )

    def _require_free(self, commit: str) -> None:
        """BadInput if landing would have to overwrite what is not committed where the branch is checked out."""
        worktree = git.worktree_of(self.repo, self.branch)
        if worktree is None or self.allow_dirty:
            return
        paths = git.changed_paths(self.repo, self.base, commit)
        if dirty := [file.path for file in git.dirty_files(self.repo, paths, worktree=worktree, ignored=True)] if paths else []:
            raise BadInput(
                self.group.name,
                f"{', '.join(dirty)} in {worktree} is not committed, and landing on {self.branch} would overwrite it",
                "Commit or stash it, and promote again.",
            )

    def _merged_commits(self) -> str:
        """The commits that come along, for a diff."""
        subjects = subjects_between(self.repo, self.base, self.origin.commit)
        more = [f"and {len(subjects) - _NAMED} commits more"] if len(subjects) > _NAMED else []
        return "".join(f"commit {line}\n" for line in (*subjects[:_NAMED], *more))
