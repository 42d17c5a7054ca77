# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: an update as a commit that no branch holds yet. landing.py says what becomes of it.

The branch, the index and the work tree are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from . import git
from .builder_files import held, scratch_dir
from .errors import BadInput, CommandFailed, FlotillaError
from .flake_source import inside, own_lock, require_flake, require_regular
from .holding import Holding, Kept
from .host_locks import Relocked, all_changes, pins_before_and_after, relocked
from .lock_message import subject_line, whole_message
from .lockfile import Change, Lock, parse_lock, resolve, root_inputs
from .locking import Locking, Wish
from .runner import Runner
from .update_group import UpdateGroup
from .wrapped import behind

#: Uncommitted files that a warning names.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Run:
    """What one run shares between its groups.

    owner: who holds locks, see builder_files.held. answers: what upstreams have said, see Locking. commits: candidates by
    repository, base and tree, so that groups with one lock get one commit.
    """

    owner: str
    answers: dict[str, str] = field(default_factory=dict)
    commits: dict[tuple[str, str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What an update of one group gives.

    base: head of the branch. candidate: the commit on top of it, None where there is nothing to update.
    previous: what the candidate's ref named before. before, after: the pins as text. locks: the files that it changes.
    notes: what else there is to know, as clauses. opened: see Kept.
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
    locks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        """The commit to deploy."""
        return self.candidate or self.base

    @property
    def changed(self) -> bool:
        """Whether publishing does anything."""
        return self.candidate != self.previous


def candidate_ref(group: UpdateGroup) -> str:
    """The ref that names a group's candidate."""
    return f"refs/flotilla/candidate/{group.name}"


def known_good_ref(group: UpdateGroup) -> str:
    """The ref that names the commit that a group's hosts have last proven."""
    return f"refs/flotilla/known-good/{group.name}"


@contextmanager
def locks_held(repo: git.Repository, locks: Sequence[str], owner: str) -> Iterator[None]:
    """Work on these lock files as the only run; see builder_files.held."""
    # In one order, so that no two runs wait for each other.
    links = sorted({f"{repo.git_dir}/flotilla/busy/{lock.replace('/', '+')}" for lock in locks})
    with ExitStack() as stack:
        for link in links:
            stack.enter_context(held(repo.runner, repo.subject, link, owner))
        yield


@dataclass(frozen=True, slots=True)
class NewLock:
    """What a candidate's lock is to be. warnings: for the user. why, origin: what the commit says of it, see lock_message.

    notes: clauses for the plan. opened: see Kept.
    """

    text: str
    warnings: tuple[str, ...] = ()
    why: str = ""
    origin: str = ""
    notes: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()


def make_candidate(
    runner: Runner,
    group: UpdateGroup,
    run: Run,
    wish: Wish | None = None,
    *,
    holding: Holding | None = None,
    allow_dirty: bool = False,
    on_line: Callable[[str], None] | None = None,
) -> Candidate:
    """Lock the group's inputs anew and make the commit; no ref names it before `publish`.

    holding: what stays where it is, None for nothing. Where that is all, there is nothing to update.
    allow_dirty: go on though the lock has uncommitted changes, which stay out. Raises BadInput for what the user can mend,
    CommandFailed where nix, git or an upstream fails; then nothing was changed.
    """

    def updated(locking: Locking, old: Lock | None) -> NewLock:
        wanted = (wish or Wish()).within(group)
        kept = holding.kept(old, (wish or Wish()).asked) if holding and old else Kept()
        if old and kept.paths:
            free = Wish(wanted.inputs, wanted.pins, kept).moving(old)
            if not free and not wanted.pins:
                return NewLock(old.to_text(), kept.warnings, notes=kept.notes)
            wanted = Wish(None if wanted.inputs is None else free, wanted.pins, kept)
        text = locking.locked(old, wanted)
        new = parse_lock(text, group.name, locking.group.lock)
        stayed = (f"{group.name}: {one.what}. {one.fix}" for one in behind(locking.repo, locking.group, locking.commit, new))
        warnings = (*kept.warnings, *_frozen(group, wanted, new), *stayed)
        return NewLock(text, warnings, notes=kept.notes, opened=kept.opened)

    return candidate_with(runner, group, run, once_for_each(updated), allow_dirty=allow_dirty, on_line=on_line)


Maker = Callable[[Locking, "Lock | None"], NewLock]


def once_for_each(make: Maker) -> Maker:
    """The same, but not a second time for a lock that another host has, too."""
    made: dict[str, NewLock] = {}

    def remembered(locking: Locking, old: Lock | None) -> NewLock:
        key = old.to_text() if old else ""
        if key not in made:
            made[key] = make(locking, old)
        return made[key]

    return remembered


def candidate_with(
    runner: Runner,
    group: UpdateGroup,
    run: Run,
    make: Maker,
    *,
    mends: bool = False,
    allow_dirty: bool = False,
    on_line: Callable[[str], None] | None = None,
) -> Candidate:
    """The candidate with the lock that `make` gives for the branch's head and its lock; otherwise as make_candidate.

    mends: a lock there that cannot be read is taken for none. Where the hosts have locks of their own, `make` is asked for each.
    """
    repo = git.open_repository(runner, group.repo, group.name)
    git.require_identity(repo)
    branch = group.branch or git.current_branch(repo)
    with locks_held(repo, group.locks, run.owner), scratch_dir(runner, group.name) as scratch:
        base = git.branch_head(repo, branch)
        warnings = work_tree_warnings(repo, group, branch, allow_dirty)
        require_flake(repo, group, base)
        made: list[NewLock] = []
        locks: list[Relocked] = []
        for part, old in _known_first(locks_at(repo, group, base, mends=mends)):
            with _naming(group, part):
                made.append(make(Locking(repo, part, base, scratch, run.answers, on_line), old))
            new = parse_lock(made[-1].text, group.name, f"{part.lock} that nix wrote")
            locks.append(relocked(part, old, new, made[-1].text))
        # A flake without inputs needs no lock, unless it is to have one elsewhere.
        moved = [lock for lock in locks if lock.found.touched or (lock.old is None and not own_lock(lock.group))]
        files = {lock.group.lock: lock.text for lock in moved}
        changes, first = all_changes(locks), all(lock.old is None for lock in locks)
        # A lock that stays as it is has no story.
        why, origin = next(((lock.why, lock.origin) for lock in made if lock.why), ("", ""))
        several = tuple(files) if group.per_host else ()
        message = whole_message(group.name, changes, first=first, why=why, origin=origin, locks=several)
        candidate = _commit(repo, group, base, files, message, scratch, run) if files else None
    before, after = pins_before_and_after(locks)
    notes = (note for lock in made for note in lock.warnings)
    return Candidate(
        repo=repo,
        group=group,
        branch=branch,
        base=base,
        candidate=candidate,
        previous=git.commit_of(repo, candidate_ref(group)),
        changes=changes,
        message=subject_line(group.name, changes, first=first, why=why) if files else "",
        warnings=tuple(dict.fromkeys((*warnings, *notes, *_homeless(repo, group, branch)))),
        before=before,
        after=after,
        locks=tuple(files),
        notes=tuple(dict.fromkeys(note for lock in made for note in lock.notes)),
        opened=tuple(dict.fromkeys(what for lock in made for what in lock.opened)),
    )


def _known_first(locks: Sequence[tuple[UpdateGroup, Lock | None]]) -> list[tuple[UpdateGroup, Lock | None]]:
    """First locks come last, so that they get the revisions that the others have got."""
    return sorted(locks, key=lambda one: one[1] is None)


@contextmanager
def _naming(group: UpdateGroup, part: UpdateGroup) -> Iterator[None]:
    """Say of an error which host's lock it is about."""
    try:
        yield
    except FlotillaError as error:
        if group.per_host and error.subject == group.name and part.lock not in error.what:
            error.what = f"{error.what} ({part.lock})"
        raise


def replaced_ref(group: UpdateGroup) -> str:
    """The ref that names the last candidate that another took the place of; its reflog has those before."""
    return f"refs/flotilla/replaced/{group.name}"


def publish(candidate: Candidate) -> None:
    """Let the group's ref name the candidate in place of a left-over one; without one, delete the left-over.

    A left-over is named by `replaced_ref` from then on: hosts of a rollout that halted may still run it.
    """
    repo, ref = candidate.repo, candidate_ref(candidate.group)
    if candidate.previous and candidate.changed:
        replaced = replaced_ref(candidate.group)
        why = "another candidate took its place"
        git.update_ref(repo, replaced, candidate.previous, git.commit_of(repo, replaced), why, log=True)
    if candidate.candidate is None:
        if candidate.previous:
            git.delete_ref(repo, ref, candidate.previous)
    elif candidate.changed and not git.update_ref(repo, ref, candidate.candidate, candidate.previous, candidate.message):
        raise CommandFailed(
            candidate.group.name, "another run has made a candidate for this group meanwhile", "Run one update at a time."
        )


def _commit(
    repo: git.Repository, group: UpdateGroup, base: str, files: Mapping[str, str], message: str, scratch: str, run: Run
) -> str:
    """The commit; one that is there already if it is the same change on the same base, so that hosts see no new revision."""
    tree = git.tree_with_files(repo, base, files, scratch)
    made = run.commits.get((repo.git_dir, base, tree))
    left = made or git.commit_of(repo, candidate_ref(group))
    if left and (made or (git.parents_of(repo, left) == (base,) and git.tree_of(repo, left) == tree)):
        commit = left
    else:
        commit = git.commit_tree(repo, tree, (base,), message)
    run.commits[repo.git_dir, base, tree] = commit
    return commit


def locks_at(
    repo: git.Repository, group: UpdateGroup, commit: str, *, mends: bool = False
) -> list[tuple[UpdateGroup, Lock | None]]:
    """Each of the group's parts with its lock in a commit, None if it has none yet. mends: None too for what cannot be read."""
    parts = group.parts()
    there = git.entries(repo, commit, [part.lock for part in parts])
    read: dict[str, Lock | None] = {}
    found = []
    for part in parts:
        entry = there.get(part.lock)
        if entry is not None and entry.blob not in read:
            read[entry.blob] = _parsed(repo, part, entry, mends=mends)
        found.append((part, read[entry.blob] if entry else None))
    return found


def lock_at(repo: git.Repository, group: UpdateGroup, commit: str) -> Lock | None:
    """The lock in a commit of a group that has one lock, None if it has none yet."""
    [(_part, lock)] = locks_at(repo, group, commit)
    return lock


def _parsed(repo: git.Repository, group: UpdateGroup, entry: git.Entry, *, mends: bool) -> Lock | None:
    require_regular(group, entry)
    try:
        return parse_lock(git.show(repo, entry.blob), group.name, group.lock)
    except BadInput:
        if mends:
            return None
        raise


def work_tree_warnings(repo: git.Repository, group: UpdateGroup, branch: str | None, allow_dirty: bool) -> tuple[str, ...]:
    """Warnings that name what the user may think is part of the update; BadInput where it must be mended first."""
    worktree = git.worktree_of(repo, branch)
    if worktree is None:
        if not repo.bare:
            git.require_settled(repo, branch)
        return ()
    locks = group.locks
    for file in git.dirty_files(repo, [inside(group.flake, "flake.nix"), *locks], worktree=worktree, ignored=True):
        _require_seen(group, file)
        if file.path in locks and (file.state == "conflicted" or not allow_dirty):
            raise _unclean_lock(group, file)
    git.require_settled(repo, branch)
    dirty = [file.path for file in git.dirty_files(repo, worktree=worktree)]
    if not dirty:
        return ()
    more = f" and {len(dirty) - _NAMED} more" if len(dirty) > _NAMED else ""
    return (f"{group.name}: not committed, so not part of the update: {', '.join(dirty[:_NAMED])}{more}",)


def _require_seen(group: UpdateGroup, file: git.DirtyFile) -> None:
    if file.state not in ("untracked", "ignored"):
        return
    what, force = ("is not tracked", "") if file.state == "untracked" else ("is ignored", "--force ")
    raise BadInput(
        group.name,
        f"{file.path} {what} by git, so nix does not see it",
        f"Run: git add {force}{file.path} && git commit",
    )


def _unclean_lock(group: UpdateGroup, file: git.DirtyFile) -> BadInput:
    if file.state == "conflicted":
        return BadInput(group.name, f"the lock {file.path} has a merge conflict in it", "Resolve and commit it first.")
    return BadInput(
        group.name,
        f"the lock {file.path} has uncommitted changes, and an update starts from the commit",
        f"Commit them, or drop them: git restore --staged --worktree {file.path}",
    )


def _frozen(group: UpdateGroup, wish: Wish, lock: Lock) -> tuple[str, ...]:
    """A warning for inputs whose URL in flake.nix names a revision, so that no update moves them."""
    keys = {name: resolve(lock, name.split("/")) for name in (root_inputs(lock) if wish.inputs is None else wish.inputs)}
    fixed = [name for name, key in keys.items() if key and lock.nodes[key].original.get("rev")]
    if not fixed:
        return ()
    return (f"{group.name}: flake.nix names a fixed revision of {', '.join(fixed)}, so no update moves it.",)


def _homeless(repo: git.Repository, group: UpdateGroup, branch: str | None) -> tuple[str, ...]:
    if branch is not None:
        return ()
    return (f"{group.name}: HEAD of {repo.path} is detached, so nothing can land: name the branch in flotilla_branch.",)
