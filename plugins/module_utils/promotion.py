# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: candidates with pins that were proven before: by another group, or by the group itself.

The lock is merged here and checked by nix: it must take the lock as complete and change nothing in it. No upstream is asked for
anything new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import git
from .candidate import Candidate, NewLock, Run, candidate_with, known_good_ref, locks_at, once_for_each
from .errors import BadInput, CommandFailed
from .flake_source import commit_to_use
from .follows import own_path
from .graft import Graft, graft, unlocked, written
from .holding import Holding, Kept
from .lock_message import named
from .lockfile import InputPath, Lock, RawEntry, difference, gone_back, input_paths, raw_entries, resolve, root_inputs
from .locking import Locking
from .pairing import Choice, paired
from .runner import Runner
from .update_group import UpdateGroup

#: Stands for the commit that a group's hosts have last proven.
KNOWN_GOOD = "known-good"
_LOCK_FIRST = "Lock what flake.nix says first (an update of these inputs), and commit."


@dataclass(frozen=True, slots=True)
class Origin:
    """Where pins come from. name: what messages call it.

    locks: where hosts have locks of their own, what differs among these, with its hosts; `lock` is the first of them.
    """

    name: str
    commit: str
    lock: Lock
    locks: tuple[tuple[tuple[str, ...], Lock], ...] = ()


def promote(
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
    """A candidate with another group's pins: those of its lock at `commit` (a revision, `known-good`, None: its branch's head).

    holding: what stays where it is, None for nothing.

    As make_candidate otherwise. BadInput that names the inputs if the two flakes do not fit together.
    """
    if holding:
        holding.require_open()
    origin = origin_of(runner, source, commit, source.name)
    if _share_a_lock(runner, group, source):
        choice = _mapped_only(group, source, choice)

    def promoted(locking: Locking, old: Lock | None) -> NewLock:
        if old is None:
            raise BadInput(group.name, f"it has no lock {locking.group.lock} yet, into which pins could go", _LOCK_FIRST)
        kept = holding.kept(old, (*(choice.inputs or ()), *choice.mapping.values())) if holding else Kept()
        if kept.paths and not kept.free(root_inputs(old)):
            return NewLock(old.to_text(), kept.warnings, notes=kept.notes)
        pairs = paired(group, old, origin.lock, origin.name, choice)
        pairs = {path: there for path, there in pairs.items() if not kept.holds(path)}
        if not pairs:
            return NewLock(old.to_text(), kept.warnings, notes=kept.notes)
        everything = choice.inputs is None and choice.by_name
        _require_agreement(origin, [*pairs.values(), *(_offered(group, old, origin.lock) if everything else ())])
        new, made = _merged(locking, old, origin, pairs, everything=everything)
        if moved := kept.moved(difference(old, new)):
            what = f"this would move {', '.join(moved)}, which must not move: {'; '.join(kept.notes)}"
            raise BadInput(group.name, what, "Name the inputs to promote, without those that bring it along.")
        where = f"The pins of {source.name} at commit {origin.commit}."
        back = gone_back(difference(old, new).changes)
        warnings = (*kept.warnings, *_rewired(group, origin, made), *(f"{group.name}: {note}." for note in back))
        return NewLock(new.to_text(), warnings, f"from {source.name}", where, (*kept.notes, *back), kept.opened)

    return candidate_with(runner, group, run, once_for_each(promoted), allow_dirty=allow_dirty)


def restore(
    runner: Runner,
    group: UpdateGroup,
    run: Run,
    to: str,
    inputs: tuple[str, ...] | None = None,
    *,
    holding: Holding | None = None,
    allow_dirty: bool = False,
) -> Candidate:
    """A candidate with the pins that the group's lock had at a commit (or `known-good`); inputs that came later keep theirs.

    Where hosts have locks of their own, each gets its own back; one that had none then keeps what it has.
    holding: what is held goes back all the same, with a warning.

    As make_candidate otherwise, but a lock that cannot be read, such as one with a conflict in it, is replaced.
    BadInput that names the inputs which flake.nix has from elsewhere since.
    """
    short = to if to == KNOWN_GOOD else ""
    origins = _origins(runner, group, to, short)

    def restored(locking: Locking, old: Lock | None) -> NewLock:
        origin = origins.get(locking.group.lock)
        if origin is None:
            return _kept(locking, old, next(iter(origins.values())))
        head = old or _empty(origin.lock)
        pairs = paired(group, head, origin.lock, origin.name, Choice(inputs)) if root_inputs(head) else {}
        new, made = _merged(locking, head, origin, pairs, everything=inputs is None)
        same = not difference(origin.lock, new).touched
        where = f"The pins of commit {origin.commit}."
        notes = (*_rewired(group, origin, made), *_newcomers(group, origin, new, inputs))
        notes = (*(holding.passed_over() if holding else ()), *notes)
        return NewLock((origin.lock if same else new).to_text(), notes, f"back to {origin.name}", where)

    return candidate_with(runner, group, run, restored, mends=True, allow_dirty=allow_dirty)


def origin_of(runner: Runner, group: UpdateGroup, wanted: str | None, name: str) -> Origin:
    """The group's lock at a revision (`known-good`; None: its branch's head); BadInput if there is none."""
    repo, commit, found = _locks(runner, group, wanted)
    hosts: dict[str, list[str]] = {}
    locks: dict[str, Lock] = {}
    for part, lock in found:
        if lock is None:
            raise _no_lock(repo, part, commit)
        text = lock.to_text()
        locks[text] = lock
        hosts.setdefault(text, []).extend(member.name for member in part.members)
    several = tuple((tuple(hosts[text]), lock) for text, lock in locks.items()) if len(locks) > 1 else ()
    return Origin(name or commit[:7], commit, next(iter(locks.values())), several)


def _origins(runner: Runner, group: UpdateGroup, wanted: str, name: str) -> dict[str, Origin]:
    """What there was at a revision, by the path of the lock; BadInput if there was none."""
    repo, commit, found = _locks(runner, group, wanted)
    origins = {part.lock: Origin(name or commit[:7], commit, lock) for part, lock in found if lock is not None}
    if not origins:
        raise _no_lock(repo, found[0][0], commit)
    return origins


def _locks(
    runner: Runner, group: UpdateGroup, wanted: str | None
) -> tuple[git.Repository, str, list[tuple[UpdateGroup, Lock | None]]]:
    repo = git.open_repository(runner, group.repo, group.name)
    commit = _proven(repo, group) if wanted == KNOWN_GOOD else commit_to_use(repo, group, wanted)
    return repo, commit, locks_at(repo, group, commit)


def _no_lock(repo: git.Repository, group: UpdateGroup, commit: str) -> BadInput:
    return BadInput(
        group.name, f"there is no lock {group.lock} at commit {commit[:12]} of {repo.path}", "Name a commit that has it."
    )


def _kept(locking: Locking, old: Lock | None, origin: Origin) -> NewLock:
    group = locking.group
    if old is None:
        what = f"there is no lock {group.lock}, neither at the branch's head nor at {origin.name}"
        raise BadInput(group.name, what, "Make it: an update of this host.")
    return NewLock(old.to_text(), (f"{group.name}: {group.lock} came after {origin.name}; kept as at the branch's head.",))


def _require_agreement(origin: Origin, paths: Iterable[InputPath]) -> None:
    """BadInput that names the hosts of a source that have other pins than its first one."""
    if not origin.locks:
        return
    (first, lock), *others = origin.locks
    for hosts, other in others:
        apart = [written(path) for path in paths if _below(lock, path) != _below(other, path)]
        if apart:
            raise BadInput(
                origin.name,
                f"its hosts have different pins of {', '.join(sorted(apart))}: {named(hosts)} others than {named(first)}",
                f"Update {origin.name} as a whole first, or name inputs to promote on which its hosts agree.",
            )


def _below(lock: Lock, path: InputPath) -> dict[InputPath, RawEntry]:
    """An input and what is below it; where it follows another, that one in its place."""
    path = own_path(lock, path) or path
    return {below[len(path) :]: entry for below, entry in raw_entries(lock).items() if below[: len(path)] == path}


def promoted_lock(locking: Locking, old: Lock, origin: Origin, kept: Kept) -> Lock:
    """The lock with the origin's pins for all inputs that both have, but for those to keep; checked as for promote."""
    pairs = paired(locking.group, old, origin.lock, origin.name, Choice())
    pairs = {path: there for path, there in pairs.items() if not kept.holds(path)}
    return _merged(locking, old, origin, pairs, everything=True)[0] if pairs else old


def _proven(repo: git.Repository, group: UpdateGroup) -> str:
    if commit := git.commit_of(repo, known_good_ref(group)):
        return commit
    raise BadInput(
        group.name, f"it has no known-good commit yet: {repo.path} has no {known_good_ref(group)}", "Name a commit instead."
    )


def _share_a_lock(runner: Runner, group: UpdateGroup, source: UpdateGroup) -> bool:
    """Whether both groups have their pins in one file of one branch."""
    if not group.shares_lock(source):
        return False
    here, there = (git.open_repository(runner, one.repo, one.name) for one in (group, source))
    branches = [one.branch or git.current_branch(repo) for one, repo in ((group, here), (source, there))]
    return here.git_dir == there.git_dir and branches[0] == branches[1]


def _mapped_only(group: UpdateGroup, source: UpdateGroup, choice: Choice) -> Choice:
    """In a lock that both share, an input of one name is one input."""
    if mapping := choice.mapping or counterparts(source, group):
        return Choice(choice.inputs, mapping, by_name=False)
    raise BadInput(
        group.name,
        f"it shares the lock {group.lock} with {source.name}, so inputs of the same name have the same pin already",
        f"Say in mapping which input of {source.name} stands for which of {group.name}. For an earlier commit: state=restored.",
    )


def counterparts(source: UpdateGroup, group: UpdateGroup) -> dict[str, str]:
    """Source input → the group's own that stands for it: their names differ as the groups' do, or each group has but one."""
    theirs, mine = source.inputs or (), group.inputs or ()
    renamed = {name: name.replace(source.name, group.name) for name in theirs}
    found = {name: other for name, other in renamed.items() if other != name and other in mine}
    if len(theirs) == len(mine) == 1 and theirs != mine:
        return {theirs[0]: mine[0]}
    # Half of a group's inputs is not what anybody has proven.
    return found if set(found.values()) == set(mine) else {}


def _empty(like: Lock) -> Lock:
    """A lock without inputs, for a flake whose lock is not there (any more)."""
    root = like.nodes[like.root]
    bare = type(root)({}, {}, {})
    return Lock(like.version, "root", {"root": bare}, {"nodes": {"root": {}}, "root": "root", "version": like.version})


def _merged(
    locking: Locking, old: Lock, origin: Origin, pairs: Mapping[InputPath, InputPath], *, everything: bool
) -> tuple[Lock, Graft]:
    """The lock as nix writes it, checked: what was promised to move has moved, and nothing else.

    everything: where flake.nix has inputs that the group's lock has not yet, take them from the origin too.
    """
    group = locking.group
    lags = _lags(locking, old)
    offered = _offered(group, old, origin.lock) if everything and lags else {}
    made = graft(old, origin.lock, {**pairs, **offered}, (group.name, origin.name))
    if dirty := unlocked(made.lock):
        what = f"the lock has local trees with uncommitted changes in it, and nix refuses it: {', '.join(dirty)}"
        raise BadInput(group.name, what, "Commit there, update these inputs, and commit the lock.")
    new = _as_nix_takes_it(locking, made.lock, lags)
    there = set(root_inputs(new))
    moved = {written(path) for path in difference(made.lock, new).touched if path[0] in there}
    if moved:
        raise _unfit(group, origin, ", ".join(sorted(moved)), lags)
    if outside := difference(old, new).outside(group.inputs):
        raise BadInput(
            group.name,
            f"this would change what the group may not move: {', '.join(outside)}",
            "Update these by themselves first.",
        )
    locking.require_complete(new, "nix does not accept the merged lock", "Run `nix flake lock` by hand to see why.")
    return new, made


def _lags(locking: Locking, old: Lock) -> bool:
    """Whether flake.nix may have other inputs than the lock: nix does not take it, or would ask an upstream first."""
    try:
        return not locking.complete(old, offline=True)
    except CommandFailed:
        return True


def _unfit(group: UpdateGroup, origin: Origin, what: str, lags: bool) -> BadInput:
    """The error for inputs that nix would lock anew, for it has neither lock's pins for them."""
    if lags:
        return BadInput(group.name, f"flake.nix has other inputs than the lock: nix would lock anew {what}", _LOCK_FIRST)
    why = f"inputs are wired otherwise than in {origin.name}: nix would lock anew {what}"
    return BadInput(group.name, why, "Let the flake.nix of both say the same of them (url, follows), lock and commit.")


def _offered(group: UpdateGroup, old: Lock, source: Lock) -> dict[InputPath, InputPath]:
    """Inputs of the source that the group's lock has not: nix drops those that flake.nix has not."""
    names = [(name,) for name in root_inputs(source) if resolve(old, (name,)) is None]
    return {path: path for path in names if group.inputs is None or path in input_paths(group.inputs)}


def _as_nix_takes_it(locking: Locking, lock: Lock, lags: bool) -> Lock:
    try:
        return locking.rewritten(lock, offline=True)
    except CommandFailed:
        # An input whose own flake.nix has followers is read by nix again, though its pin is known (2.26 to 2.34).
        pass
    try:
        return locking.rewritten(lock)
    except CommandFailed as error:
        if not lags:
            raise
        hint = "If flake.nix has inputs that are not locked yet: lock them first (an update of these), and commit."
        raise CommandFailed(locking.group.name, error.what, hint, result=error.result) from error


def _rewired(group: UpdateGroup, origin: Origin, made: Graft) -> tuple[str, ...]:
    if not made.rewired:
        return ()
    which = ", ".join(made.rewired)
    return (f"{group.name}: flake.nix lets {which} follow other inputs, and {origin.name} has pins of their own for them.",)


def _newcomers(group: UpdateGroup, origin: Origin, new: Lock, inputs: tuple[str, ...] | None) -> tuple[str, ...]:
    late = [name for name in root_inputs(new) if inputs is None and resolve(origin.lock, (name,)) is None]
    if not late:
        return ()
    return (f"{group.name}: {', '.join(late)} came after {origin.name}; kept as at the branch's head.",)
