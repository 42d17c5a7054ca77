# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what an update group is and has: its hosts, its pins and their age, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from . import git
from .errors import BadInput, ConnectionLost, FlotillaError
from .evaluation import FlakeSource, attributes_beside, no_such_host
from .flake_source import (
    NotCommitted,
    WorkTree,
    alike,
    commit_to_use,
    flake_source,
    inside,
    lock_text,
    require_flake,
    work_tree,
)
from .holding import over
from .lock_message import named
from .lockfile import Lock, Node, Pin, followed, parse_lock, pins, resolve, root_inputs
from .nix import EVALUATION
from .nix_messages import LockIncomplete
from .runner import Runner
from .update_group import UpdateGroup
from .wrapped import behind


class LockState(StrEnum):
    """How a group's lock is. UNLOCKED: it is there, but not complete for the flake.nix. UNSEEN: nix does not see it, for git
    does not track it. NONE: there is none, and none is needed, as the flake has no inputs.
    """

    LOCKED = "locked"
    UNLOCKED = "unlocked"
    MISSING = "missing"
    UNSEEN = "untracked"
    BROKEN = "broken"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a group. error: a rollout would fail at it. what: one clause; fix: a sentence."""

    error: bool
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One of the flake's own inputs. age: days since the pinned revision. follows: the input whose pin it has, "" if its own."""

    pin: Pin
    age: float | None
    follows: str


@dataclass(frozen=True, slots=True)
class LockInfo:
    """One lock of a group. hosts: who has it. age: days since its newest pin."""

    path: str
    hosts: tuple[str, ...]
    state: LockState
    age: float | None
    inputs: dict[str, InputInfo]


@dataclass(slots=True)
class GroupInfo:
    """A group as it is. hosts: attributes in the flake, None where they are not known. lock_age: days since the newest pin.

    Where hosts have locks of their own: inputs, lock_state and lock_age are each those of the lock that is worst off.
    """

    group: UpdateGroup
    branch: str | None = None
    commit: str | None = None
    candidate: str | None = None
    hosts: tuple[str, ...] | None = None
    inputs: dict[str, InputInfo] = field(default_factory=dict)
    lock_state: LockState = LockState.UNKNOWN
    lock_age: float | None = None
    tree: WorkTree = field(default_factory=WorkTree)
    problems: list[Problem] = field(default_factory=list)
    locks: list[LockInfo] = field(default_factory=list)

    def add(self, error: FlotillaError) -> None:
        """Add what was raised as a problem that a rollout would fail at."""
        self.problems.append(Problem(True, error.what, error.hint))


def inspect(
    runner: Runner,
    group: UpdateGroup,
    *,
    now: float,
    commit: str | None = None,
    evaluate: bool = True,
    max_age: int | None = None,
    timeout: float = EVALUATION,
) -> GroupInfo:
    """Look at a group at a commit (None: the head of its branch). now: Unix seconds. What is wrong is among its problems.

    evaluate: ask nix for the hosts, which also tells whether the lock is complete. max_age: days after which a pin is a problem.
    """
    info = GroupInfo(group)
    info.problems += [Problem(False, *over(hold)) for hold in group.holds if hold.over(now)]
    try:
        repo = git.open_repository(runner, group.repo, group.name)
        info.branch = group.branch or git.current_branch(repo)
        info.commit = commit_to_use(repo, group, commit)
        info.candidate = git.commit_of(repo, f"refs/flotilla/candidate/{group.name}")
        info.tree = work_tree(repo, group)
        require_flake(repo, group, info.commit)
        look = _Look(repo, now, max_age, timeout if evaluate else None)
        if group.per_host:
            _look_at_each_lock(info, look)
        else:
            look.at(info)
            info.locks = [_lock_info(info, group.lock)]
    except ConnectionLost:
        raise
    except FlotillaError as error:
        if all(problem.what != error.what for problem in info.problems):
            info.add(error)
    _look_at_tree(info)
    return info


def shared_inputs(groups: Sequence[GroupInfo]) -> None:
    """Add to each group's problems which of its inputs move for another group too, because they are in the same lock."""
    for info in groups:
        for other in groups:
            if other is info or _place(other.group) != _place(info.group) or not info.group.shares_lock(other.group):
                continue
            common = sorted(_movable(info) & _movable(other))
            if common:
                what = f"an update of {', '.join(common)} moves the group {other.group.name} too, which has the same lock"
                info.problems.append(Problem(False, what, "Name the inputs of this group alone in flotilla_inputs."))


def _place(group: UpdateGroup) -> tuple[str, str | None]:
    return group.repo, group.branch


def _movable(info: GroupInfo) -> set[str]:
    return set(info.group.inputs) if info.group.inputs is not None else set(info.inputs)


@dataclass(frozen=True, slots=True)
class _Look:
    """How to look at locks. timeout: seconds for nix, None not to ask it."""

    repo: git.Repository
    now: float
    max_age: int | None
    timeout: float | None

    def at(self, info: GroupInfo, own: Mapping[str, str] | None = None) -> None:
        """Look at the one lock of a group, and at its hosts. own: see flake_source.Alike."""
        lock = _look_at_lock(self.repo, info)
        if lock:
            _look_at_inputs(info, lock, self.now, self.max_age)
        if lock and info.commit is not None:
            info.problems += [Problem(False, one.what, one.fix) for one in behind(self.repo, info.group, info.commit, lock)]
        if self.timeout is not None:
            _look_at_hosts(self.repo, info, self.timeout, own)


def _look_at_each_lock(info: GroupInfo, look: _Look) -> None:
    if info.commit is None:
        raise AssertionError
    parts = []
    for some in alike(look.repo, info.group, info.commit):
        part = GroupInfo(some.group, commit=info.commit)
        parts.append(part)
        try:
            look.at(part, some.own)
        except ConnectionLost:
            raise
        except FlotillaError as error:
            if all(problem.what != error.what for problem in part.problems):
                part.add(error)
        info.locks += [_lock_info(part, info.group.lock_of(member), (member.name,)) for member in some.group.members]
    _put_together(info, parts)


def _lock_info(info: GroupInfo, path: str, hosts: tuple[str, ...] | None = None) -> LockInfo:
    names = tuple(member.name for member in info.group.members) if hosts is None else hosts
    return LockInfo(path, names, info.lock_state, info.lock_age, info.inputs)


#: From bad to good.
_WORST_FIRST = (
    LockState.BROKEN,
    LockState.UNSEEN,
    LockState.MISSING,
    LockState.UNLOCKED,
    LockState.UNKNOWN,
    LockState.LOCKED,
    LockState.NONE,
)


def _put_together(info: GroupInfo, parts: Sequence[GroupInfo]) -> None:
    """Say of the group what is true of its hosts: of all, or with their names."""
    info.lock_state = min((part.lock_state for part in parts), key=_WORST_FIRST.index)
    info.lock_age = max((part.lock_age for part in parts if part.lock_age is not None), default=None)
    for part in parts:
        for name, known in part.inputs.items():
            other = info.inputs.get(name)
            if other is None or (known.age or 0) > (other.age or 0):
                info.inputs[name] = known
    info.hosts = next((part.hosts for part in parts if part.hosts is not None), None)
    hosts: dict[Problem, list[str]] = {}
    for part in parts:
        for problem in part.problems:
            hosts.setdefault(problem, []).extend(member.name for member in part.group.members)
    everyone = len(info.group.members)
    info.problems += [
        problem if len(names) == everyone else replace(problem, what=f"{problem.what} ({named(names)})")
        for problem, names in hosts.items()
    ]
    if info.hosts is not None and info.commit is not None:
        _compare_hosts(info, FlakeSource(info.group.name, info.group.flake, "", info.commit), info.hosts)


def _look_at_lock(repo: git.Repository, info: GroupInfo) -> Lock | None:
    if info.commit is None:
        raise AssertionError
    group = info.group
    try:
        text = lock_text(repo, group, info.commit)
    except BadInput as error:
        info.lock_state = LockState.UNSEEN if isinstance(error, NotCommitted) else LockState.MISSING
        info.add(error)
        return None
    if text is None:
        info.lock_state = LockState.NONE
        return None
    try:
        lock = parse_lock(text, group.name, group.lock)
    except BadInput as error:
        info.lock_state = LockState.BROKEN
        info.add(error)
        return None
    info.lock_state = LockState.LOCKED
    return lock


def _look_at_inputs(info: GroupInfo, lock: Lock, now: float, max_age: int | None) -> None:
    for name, pin in pins(lock).items():
        path = followed(lock, (name,))
        info.inputs[name] = InputInfo(pin, pin.age(now), "/".join(path) if path else "")
    ages = [known.age for known in info.inputs.values() if known.age is not None]
    info.lock_age = min(ages, default=None)
    for name in root_inputs(lock):
        key = resolve(lock, (name,))
        if key is not None and not info.inputs[name].follows:
            info.problems += input_problems(name, lock.nodes[key], info.inputs[name].age, max_age)
    unknown = sorted(set(info.group.inputs or ()) - set(root_inputs(lock)))
    if unknown:
        has = ", ".join(root_inputs(lock)) or "none"
        info.problems.append(
            Problem(True, f"the lock has no input {', '.join(unknown)}", f"Put others into flotilla_inputs; there are: {has}.")
        )


def input_problems(name: str, node: Node, age: float | None, max_age: int | None) -> Iterable[Problem]:
    """What is wrong with an input of a flake. age: days since its pin, max_age: days after which that is a problem."""
    original, locked = node.original, node.locked
    if original.get("type") == "indirect":
        what = f"the input {name} has no url in flake.nix, so that what it is depends on the machine that locks it"
        yield Problem(False, what, f"Give it one: inputs.{name}.url = …")
    if original.get("rev"):
        what = f"the input {name} names a revision in flake.nix, so that an update does not move it"
        yield Problem(False, what, "Name a branch there instead; the revision is in the lock.")
    url = str(locked.get("url", ""))
    if (locked.get("type") == "path" and str(locked.get("path", "")).startswith("/")) or url.startswith("file:"):
        what = f"the input {name} is a path of the machine that locked it ({locked.get('path') or url})"
        yield Problem(False, what, "Other machines need it in the same place; give it a url that all can reach.")
    if max_age is not None and age is not None and age > max_age:
        yield Problem(False, f"the input {name} is {age:.0f} days old", "Update it: flotilla_update=true.")


def _look_at_hosts(repo: git.Repository, info: GroupInfo, timeout: float, own: Mapping[str, str] | None = None) -> None:
    if info.commit is None:
        raise AssertionError
    with flake_source(repo, info.group, info.commit, own=own) as source:
        try:
            wanted = [member.attribute for member in info.group.members]
            info.hosts = attributes_beside(repo.runner, source, wanted, timeout=timeout)
        except LockIncomplete:
            info.lock_state = LockState.MISSING if info.lock_state is LockState.NONE else LockState.UNLOCKED
            raise
        # The hosts of one lock of several are not all of the group's.
        if own is None:
            _compare_hosts(info, source, info.hosts)


def _compare_hosts(info: GroupInfo, source: FlakeSource, names: Sequence[str]) -> None:
    wanted = [member.attribute for member in info.group.members]
    for attribute in wanted:
        if attribute not in names:
            info.add(no_such_host(source, attribute, names))
    extra = [name for name in names if name not in wanted]
    if wanted and extra:
        what = f"the flake has hosts that the group has not: {', '.join(extra)}"
        info.problems.append(Problem(False, what, "Add them to the inventory group if they are machines."))


def _look_at_tree(info: GroupInfo) -> None:
    """Name uncommitted files that look like part of the group; others are only listed."""
    directory = "" if info.group.flake == "." else f"{info.group.flake}/"
    own = [
        path
        for path in (*info.tree.changed, *info.tree.untracked)
        if path.startswith(directory) or path in (*info.group.locks, inside(info.group.flake, "flake.nix"))
    ]
    if own:
        some = ", ".join(own[:5]) + (f" and {len(own) - 5} more" if len(own) > 5 else "")
        info.problems.append(
            Problem(False, f"what is not committed is not deployed: {some}", "Commit what belongs to the group.")
        )
