# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: an update as a commit that no branch holds yet, and what becomes of it.

The branch, the index and the work tree are not touched before `accept`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import git, nix_lock
from .errors import BadInput, CommandFailed
from .lock_message import pins_text, subject_line, whole_message
from .lockfile import Change, Lock, Node, difference, followed, input_paths, parse_lock, resolve, root_inputs
from .nix import flake_ref
from .runner import Runner, checked
from .update_group import UpdateGroup, checked_input

#: How often landing starts again because the branch moved meanwhile.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """What an update of one group gives.

    base: head of the branch. candidate: the commit on top of it, None where there is nothing to update.
    previous: what the candidate's ref named before. before, after: the pins as text.
    """

    repo: git.Repository
    group: UpdateGroup
    branch: str | None
    base: str
    candidate: str | None
    previous: str | None
    changes: tuple[Change, ...]
    message: str
    warnings: tuple[str, ...]
    before: str
    after: str

    @property
    def commit(self) -> str:
        """The commit to deploy."""
        return self.candidate or self.base

    @property
    def changed(self) -> bool:
        """Whether publishing does anything."""
        return self.candidate != self.previous


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall move: `inputs` to their newest revision, `pins` (input → revision, branch, tag or flake reference) to those.

    inputs None: all that the group may move; or none but the pins if there are any.
    """

    inputs: tuple[str, ...] | None = None
    pins: Mapping[str, str] = field(default_factory=dict)


#: What upstreams have answered in this run: `original` of an input as JSON → flake reference at a revision.
Upstream = dict[str, str]


def candidate_ref(group: UpdateGroup) -> str:
    """The ref that names a group's candidate."""
    return f"refs/flotilla/candidate/{group.name}"


def make_candidate(
    runner: Runner,
    group: UpdateGroup,
    wish: Wish | None = None,
    *,
    upstream: Upstream | None = None,
    allow_dirty: bool = False,
    on_line: Callable[[str], None] | None = None,
) -> Candidate:
    """Lock the group's inputs anew and make the commit; no ref names it before `publish`.

    upstream: answers to share between groups. allow_dirty: go on though the lock has uncommitted changes, which stay out.
    Errors: BadInput for what the user can mend, CommandFailed for nix, git or an upstream that fails. Nothing was changed then.
    """
    repo = git.open_repository(runner, group.repo, group.name)
    git.require_identity(repo)
    branch = group.branch or git.current_branch(repo)
    base = git.branch_head(repo, branch)
    warnings = _work_tree_warnings(repo, group, branch, allow_dirty)
    old = _lock_at(repo, group, base)
    with scratch_dir(runner, group.name) as scratch:
        job = _Job(repo, group, base, scratch, upstream if upstream is not None else {}, on_line)
        text = job.locked(old, wish or Wish())
        new = parse_lock(text, group.name, f"{group.lock} that nix wrote")
        found = difference(old, new)
        candidate = None
        message = ""
        if found.touched or old is None:
            message = whole_message(group.name, found.changes, first=old is None)
            candidate = _commit(repo, group, base, text, message, scratch)
    warnings += _frozen(group, wish or Wish(), new)
    if branch is None:
        warnings += (f"{group.name}: HEAD of {repo.path} is detached: name the branch to land on in flotilla_branch.",)
    return Candidate(
        repo=repo,
        group=group,
        branch=branch,
        base=base,
        candidate=candidate,
        previous=git.commit_of(repo, candidate_ref(group)),
        changes=found.changes,
        message=subject_line(group.name, found.changes, first=old is None) if candidate else "",
        warnings=warnings,
        before=pins_text(old, found.changes),
        after=pins_text(new, found.changes),
    )


def publish(candidate: Candidate) -> None:
    """Let the group's ref name the candidate in place of a left-over one; without one, delete the left-over."""
    repo, ref = candidate.repo, candidate_ref(candidate.group)
    if candidate.candidate is None:
        if candidate.previous:
            git.delete_ref(repo, ref, candidate.previous)
    elif candidate.changed and not git.update_ref(repo, ref, candidate.candidate, candidate.previous, candidate.message):
        raise CommandFailed(
            candidate.group.name, "another run has made a candidate for this group meanwhile", "Run one update at a time."
        )


def _commit(repo: git.Repository, group: UpdateGroup, base: str, text: str, message: str, scratch: str) -> str:
    """The commit; the left-over candidate itself if it is the same change on the same base, so that hosts see no new revision."""
    tree = git.tree_with(repo, base, group.lock, text, scratch)
    left = git.commit_of(repo, candidate_ref(group))
    if left and git.parents_of(repo, left) == (base,) and git.tree_of(repo, left) == tree:
        return left
    return git.commit_tree(repo, tree, (base,), message)


# What the branch and the work tree hold


def _lock_at(repo: git.Repository, group: UpdateGroup, commit: str) -> Lock | None:
    """The group's lock in a commit, None if it has none yet; BadInput if the commit lacks the flake."""
    flake = "flake.nix" if group.flake == "." else f"{group.flake}/flake.nix"
    there = git.entries(repo, commit, [flake, group.lock])
    if flake not in there:
        raise _no_flake(repo, group, commit, flake)
    entry = there.get(group.lock)
    if entry is None:
        return None
    if entry.mode == "120000":
        raise BadInput(group.name, f"the lock {group.lock} is a symbolic link", "Name the file it leads to in flotilla_lock.")
    return parse_lock(git.show(repo, entry.blob), group.name, group.lock)


def _no_flake(repo: git.Repository, group: UpdateGroup, commit: str, flake: str) -> BadInput:
    others = ", ".join(git.flake_dirs(repo, commit)) or "none"
    return BadInput(
        group.name,
        f"there is no {flake} in commit {commit[:12]} of {repo.path}",
        f"Name the directory in flotilla_flake, or use another group name. Directories with a flake: {others}.",
    )


def _work_tree_warnings(repo: git.Repository, group: UpdateGroup, branch: str | None, allow_dirty: bool) -> tuple[str, ...]:
    """Warnings that name what the user may think is part of the update; BadInput where it must be mended first."""
    worktree = _worktree(repo, branch)
    if worktree is None:
        return ()
    flake = "flake.nix" if group.flake == "." else f"{group.flake}/flake.nix"
    for file in git.dirty_files(repo, [flake, group.lock], worktree=worktree, ignored=True):
        if file.state in ("untracked", "ignored"):
            force = "--force " if file.state == "ignored" else ""
            raise BadInput(
                group.name,
                f"{file.path} is {'not tracked' if not force else 'ignored'} by git, so that nix cannot see it",
                f"Run: git add {force}{file.path} && git commit",
            )
        if file.path == group.lock:
            _check_lock_state(group, file, allow_dirty)
    dirty = git.dirty_files(repo, worktree=worktree)
    if not dirty:
        return ()
    names = ", ".join(file.path for file in dirty[:10]) + (f" and {len(dirty) - 10} more" if len(dirty) > 10 else "")
    return (f"{group.name}: not committed, so not part of the update: {names}",)


def _worktree(repo: git.Repository, branch: str | None) -> str | None:
    if repo.bare:
        return None
    return git.worktree_of(repo, branch) if branch else repo.path


def _check_lock_state(group: UpdateGroup, file: git.DirtyFile, allow_dirty: bool) -> None:
    if file.state == "conflicted":
        raise BadInput(group.name, f"the lock {file.path} has a merge conflict in it", "Resolve and commit it first.")
    if not allow_dirty:
        raise BadInput(
            group.name,
            f"the lock {file.path} has uncommitted changes, and an update starts from the commit",
            f"Commit them, or drop them: git restore --staged --worktree {file.path}",
        )


def _frozen(group: UpdateGroup, wish: Wish, lock: Lock) -> tuple[str, ...]:
    """Warnings for inputs whose URL in flake.nix names a revision, so that no update moves them."""
    names = wish.inputs if wish.inputs is not None else (() if wish.pins else group.inputs)
    keys = {name: resolve(lock, name.split("/")) for name in (root_inputs(lock) if names is None else names)}
    fixed = [name for name, key in keys.items() if key and lock.nodes[key].original.get("rev")]
    if not fixed:
        return ()
    return (f"{group.name}: flake.nix names a fixed revision of {', '.join(fixed)}, so no update moves it.",)


# Locking


@dataclass(frozen=True, slots=True)
class _Job:
    """One locking of one group's flake at one commit."""

    repo: git.Repository
    group: UpdateGroup
    base: str
    scratch: str
    upstream: Upstream
    on_line: Callable[[str], None] | None

    @property
    def _runner(self) -> Runner:
        return self.repo.runner

    @property
    def _flake(self) -> str:
        # The commit by git, not a copy of the directory: flakes import files above themselves, and nothing uncommitted gets in.
        return flake_ref(self.repo.path, self.group.flake, self.base, shallow=self.repo.shallow)

    def locked(self, old: Lock | None, wish: Wish) -> str:
        """The text of the new lock, which nix accepts as complete and which moves nothing but what the wish names."""
        moving = wish.inputs if wish.inputs is not None else (() if wish.pins else self.group.inputs)
        moving = None if moving is None else tuple(name for name in moving if name not in wish.pins)
        named = None if moving is None else (*moving, *wish.pins)
        self._check_allowed(named)
        reference = None
        if old is not None:
            reference = f"{self.scratch}/old.lock"
            write_file(self._runner, self.group.name, reference, old.to_text())
        self._check_names(old, named or (), reference)
        pinned = {name: nix_lock.pinned(self.group.name, name, self._node(old, name), ref) for name, ref in wish.pins.items()}
        shared = self._shared(old, moving)
        text = self._run(old, moving, {**shared, **pinned}, reference)
        new = parse_lock(text, self.group.name, f"{self.group.lock} that nix wrote")
        if old is not None and any(_original(new, name) != _original(old, name) for name in shared):
            # flake.nix names other upstreams than the lock did, so that the shared answers were to other questions.
            text = self._run(old, moving, pinned, reference)
            new = parse_lock(text, self.group.name, f"{self.group.lock} that nix wrote")
        self._check_result(old, new, named)
        for name in root_inputs(new) if moving is None else moving:
            self._learn(new, name)
        return text

    def _check_allowed(self, named: Sequence[str] | None) -> None:
        """Nothing may move that the group's own inputs do not allow."""
        if named is not None and not named:
            raise BadInput(self.group.name, "the list of inputs is empty, so none may move", "Name some, or leave it out.")
        allowed = None if self.group.inputs is None else input_paths(self.group.inputs)
        for name in named or ():
            path = tuple(checked_input(name).split("/"))
            if allowed is not None and not any(path[: len(a)] == a for a in allowed):
                raise BadInput(
                    self.group.name,
                    f"input {name} is not one that this group may move",
                    f"It may move {', '.join(self.group.inputs or ())}: choose of these, or extend flotilla_inputs.",
                )

    def _check_names(self, old: Lock | None, names: Sequence[str], reference: str | None) -> None:
        """Every name is an input with a pin of its own: to nix, unknown names and followers are a success."""
        for name in names if old is not None else ():
            assert old is not None
            path = tuple(name.split("/"))
            if (target := followed(old, path)) is not None:
                raise self._follower(name, target)
            # A lock that lags behind flake.nix cannot know its newest inputs: then the result tells.
            if resolve(old, path) is None and (reference is None or nix_lock.is_complete(*self._ids, reference)):
                raise self._unknown(name, old)

    @property
    def _ids(self) -> tuple[Runner, str, str]:
        return self._runner, self.group.name, self._flake

    def _follower(self, name: str, target: Sequence[str]) -> BadInput:
        hint = f"Name {'/'.join(target)} instead." if target else ""
        return BadInput(self.group.name, f"input {name} follows another and has no pin of its own", hint)

    def _unknown(self, name: str, lock: Lock) -> BadInput:
        return BadInput(
            self.group.name,
            f"{self.group.flake}/flake.nix has no input {name!r}",
            f"Its inputs are {', '.join(root_inputs(lock)) or 'none'}.",
        )

    def _node(self, old: Lock | None, name: str) -> Node:
        key = resolve(old, name.split("/")) if old else None
        if old is None or key is None:
            raise BadInput(
                self.group.name,
                f"input {name} is not locked yet, so that it cannot be put at a revision",
                "Update it first, or name the revision in flake.nix.",
            )
        return old.nodes[key]

    def _shared(self, old: Lock | None, moving: Sequence[str] | None) -> dict[str, str]:
        """Of the inputs that move, those whose upstream has answered in this run already."""
        if old is None:
            return {}
        names = root_inputs(old) if moving is None else moving
        found = {name: self.upstream.get(original) for name in names if (original := _original(old, name))}
        return {name: ref for name, ref in found.items() if ref}

    def _learn(self, new: Lock, name: str) -> None:
        original, key = _original(new, name), resolve(new, name.split("/"))
        reference = nix_lock.shared_reference(new.nodes[key]) if key else None
        if original and reference:
            self.upstream.setdefault(original, reference)

    def _run(self, old: Lock | None, moving: Sequence[str] | None, overrides: Mapping[str, str], reference: str | None) -> str:
        """Let nix update what moves and has no override, then put the overrides in place."""
        output = f"{self.scratch}/new.lock"
        rest: Sequence[str] | None = moving
        if overrides:
            names = root_inputs(old) if moving is None and old else moving or ()
            rest = [name for name in names if name not in overrides and not (old and followed(old, tuple(name.split("/"))))]
        if rest is None or rest:
            nix_lock.update(*self._ids, rest or (), reference=reference, output=output, on_line=self.on_line)
            reference = output if overrides else reference
        if overrides:
            target = f"{self.scratch}/pinned.lock"
            nix_lock.lock(*self._ids, overrides, reference=reference, output=target, on_line=self.on_line)
            output = target
        return read_file(self._runner, self.group.name, output)

    def _check_result(self, old: Lock | None, new: Lock, named: Sequence[str] | None) -> None:
        for name in named or ():
            if resolve(new, name.split("/")) is None:
                raise self._unknown(name, new)
        outside = difference(old, new).outside(named) if old is not None else ()
        if outside:
            raise BadInput(
                self.group.name,
                f"the update would change more than {', '.join(named or ())}: {', '.join(outside)}",
                f"Lock what flake.nix has gained first: nix flake lock path:{self.group.flake}, and commit.",
            )
        reference = f"{self.scratch}/checked.lock"
        write_file(self._runner, self.group.name, reference, new.to_text())
        if not nix_lock.is_complete(*self._ids, reference):
            raise CommandFailed(self.group.name, "nix does not accept the lock that it wrote", "Run `nix flake lock` by hand.")


def _original(lock: Lock, name: str) -> str | None:
    """What flake.nix says of an input, as a key to compare by; None for one that has no pin of its own."""
    path = tuple(name.split("/"))
    key = resolve(lock, path)
    return json.dumps(lock.nodes[key].original, sort_keys=True) if key and followed(lock, path) is None else None


# Files on the builder


@contextmanager
def scratch_dir(runner: Runner, subject: str) -> Iterator[str]:
    """A new directory on the builder, gone afterwards."""
    made = runner.run(["mktemp", "-d", "-t", "flotilla.XXXXXXXX"])
    path = checked(made, subject, f"there is no place for temporary files on {runner.name}").stdout.strip()
    try:
        yield path
    finally:
        runner.run(["rm", "-rf", "--", path])


def write_file(runner: Runner, subject: str, path: str, text: str) -> None:
    """Write a text file on the builder."""
    checked(runner.run(["sh", "-euc", 'cat >"$1"', "sh", path], stdin=text), subject, f"writing {path} failed")


def read_file(runner: Runner, subject: str, path: str) -> str:
    """The text of a file on the builder."""
    return checked(runner.run(["cat", "--", path]), subject, "nix wrote no lock").stdout


# Landing


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


def accept(runner: Runner, group: UpdateGroup, *, commit: str | None = None, push: bool = False, check: bool = False) -> Landing:
    """Bring the group's branch to its candidate, by fast-forward or merge, and drop the candidate's ref.

    commit: the candidate that was proven, landed even if a later run has made another one since. push: to the branch's remote
    first, so that a refused push leaves the branch as it was. check: only say. On failure the candidate stays.
    """
    repo = git.open_repository(runner, group.repo, group.name)
    branch = group.branch or git.current_branch(repo)
    head = git.branch_head(repo, branch)
    named = git.commit_of(repo, candidate_ref(group))
    wanted = _wanted(repo, group, commit, head) if commit else named
    if wanted is None or (git.is_ancestor(repo, wanted, head) and wanted != named):
        return Landing(branch, head, head, None, "", changed=False)
    if branch is None:
        raise BadInput(group.name, f"HEAD of {repo.path} is detached, so there is no branch to land on", "Set flotilla_branch.")
    git.require_identity(repo)
    landing = _land(repo, group, branch, wanted, push, check)
    if not check and wanted == named:
        git.delete_ref(repo, candidate_ref(group), wanted)
    return landing


def _wanted(repo: git.Repository, group: UpdateGroup, commit: str, head: str) -> str:
    """The commit if it is a candidate of this group: one that changes its lock alone."""
    found = git.commit_of(repo, commit)
    if found is None:
        raise BadInput(group.name, f"the repository {repo.path} has no commit {commit}", "Make the candidate again.")
    if found == head or git.is_ancestor(repo, found, head):
        return found
    parents = git.parents_of(repo, found)
    if len(parents) != 1 or git.changed_paths(repo, parents[0], found) != (group.lock,):
        raise BadInput(
            group.name, f"commit {commit} is no candidate: it changes more than {group.lock}", "Merge it by hand if you want it."
        )
    return found


def _land(repo: git.Repository, group: UpdateGroup, branch: str, candidate: str, push: bool, check: bool) -> Landing:
    message = git.message_of(repo, candidate).partition("\n")[0]
    for _attempt in range(_ATTEMPTS):
        head = git.branch_head(repo, branch)
        worktree = None if repo.bare else git.worktree_of(repo, branch)
        if worktree:
            _check_worktree(repo, group, worktree)
        merged = not git.is_ancestor(repo, head, candidate)
        target = _merged(repo, group, branch, head, candidate, message) if merged else candidate
        landing = Landing(branch, head, target, candidate, message, changed=True, merged=merged and target != head, pushed=push)
        if check:
            return landing
        if push:
            _push(repo, branch, target)
        if _move(repo, branch, worktree, head, target, message):
            return landing
    raise CommandFailed(group.name, f"branch {branch} moved {_ATTEMPTS} times while the candidate was landing", "Try again.")


def _move(repo: git.Repository, branch: str, worktree: str | None, head: str, target: str, message: str) -> bool:
    """Move the branch from head to target; False if it is not at head any more."""
    if target == head:
        return True
    if worktree is None:
        return git.update_ref(repo, f"refs/heads/{branch}", target, head, f"flotilla: {message}")
    result = git.fast_forward(repo, worktree, target)
    if result.status == 0:
        return True
    if git.branch_head(repo, branch) != head:
        return False
    checked(
        result,
        repo.subject,
        f"branch {branch} could not be brought to the candidate in {worktree}",
        "Clear what git names and accept the candidate again; it was kept.",
    )
    return False


def _check_worktree(repo: git.Repository, group: UpdateGroup, worktree: str) -> None:
    for file in git.dirty_files(repo, [group.lock], worktree=worktree, ignored=True):
        raise BadInput(
            group.name,
            f"{file.path} in {worktree} has uncommitted changes, which landing would overwrite; the candidate was kept",
            f"Commit them, or drop them (git restore --staged --worktree {file.path}), and accept the candidate again.",
        )


def _merged(repo: git.Repository, group: UpdateGroup, branch: str, head: str, candidate: str, message: str) -> str:
    """A commit that merges the candidate into the branch's head, or the head if it has the candidate already."""
    if git.is_ancestor(repo, candidate, head):
        return head
    merge = git.merge_tree(repo, head, candidate)
    if merge.conflicts:
        raise BadInput(
            group.name,
            f"branch {branch} has moved, and its {', '.join(merge.conflicts)} cannot be merged with the candidate's; it was kept",
            "Discard it and update again.",
        )
    return git.commit_tree(repo, merge.tree, (head, candidate), f"Merge {message}\n")


def _push(repo: git.Repository, branch: str, commit: str) -> None:
    remote, ref = git.push_target(repo, branch)
    result = git.push(repo, remote, commit, ref)
    if result.status != 0:
        why = "it has commits that this repository has not" if "[rejected]" in result.stderr else result.stderr.strip()[-1000:]
        raise CommandFailed(
            repo.subject,
            f"{remote} refused the push to {ref}: {why}. The branch was left as it was and the candidate was kept",
            "Pull (git pull) and accept the candidate again.",
            result=result,
        )


def discard(runner: Runner, group: UpdateGroup, *, commit: str | None = None, check: bool = False) -> Landing:
    """Drop the group's candidate (only the one named by `commit`, if given). The branch never knew."""
    repo = git.open_repository(runner, group.repo, group.name)
    branch = group.branch or git.current_branch(repo)
    head = git.branch_head(repo, branch)
    named = git.commit_of(repo, candidate_ref(group))
    if named is None or (commit and git.commit_of(repo, commit) != named):
        return Landing(branch, head, head, None, "", changed=False)
    message = git.message_of(repo, named).partition("\n")[0]
    if not check:
        git.delete_ref(repo, candidate_ref(group), named)
    return Landing(branch, head, head, named, message, changed=True)
