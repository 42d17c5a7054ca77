# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what an update of one group moves for others, because they have their pins in the same lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from . import git
from .candidate import Candidate, lock_at
from .errors import BadInput, FlotillaError
from .follows import reached
from .lockfile import Lock, difference
from .runner import Runner
from .update_group import UpdateGroup


def sharing(runner: Runner, group: UpdateGroup, others: Iterable[UpdateGroup]) -> tuple[UpdateGroup, ...]:
    """Those of the other groups that have their pins in the same file of the same branch."""
    near = [other for other in others if other.name != group.name and group.shares_lock(other)]
    places: dict[tuple[str, str | None], tuple[str, str | None] | None] = {}
    for one in (group, *near) if near else ():
        key = (one.repo, one.branch)
        if key not in places:
            places[key] = _place(runner, one)
    here = places.get((group.repo, group.branch))
    return tuple(other for other in near if here is not None and places[other.repo, other.branch] == here)


def _place(runner: Runner, group: UpdateGroup) -> tuple[str, str | None] | None:
    try:
        repo = git.open_repository(runner, group.repo, group.name)
        return repo.git_dir, group.branch or git.current_branch(repo)
    except FlotillaError:
        return None


def moved_for(runner: Runner, candidate: Candidate, others: Iterable[UpdateGroup]) -> dict[str, tuple[str, ...]]:
    """Inputs that the candidate moves for other groups, too, by the group's name; only groups for which there are some."""
    if candidate.candidate is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for other in sharing(runner, candidate.group, others):
        for path in sorted(set(candidate.group.locks) & set(other.locks)):
            part = candidate.group.with_lock(path)
            old, new = (lock_at(candidate.repo, part, commit) for commit in (candidate.base, candidate.candidate))
            if old and new and (inputs := _moving(old, new, other.inputs)):
                found[other.name] = tuple(dict.fromkeys((*found.get(other.name, ()), *inputs)))
    return found


def _moving(old: Lock, lock: Lock, inputs: Sequence[str] | None) -> tuple[str, ...]:
    # What has no pin yet, or none any more, moves for nobody.
    moved = [tuple(change.input.split("/")) for change in difference(old, lock).changes if change.old and change.new]
    theirs = None if inputs is None else set(reached(lock, inputs))
    paths = {path for path in moved if theirs is None or path in theirs}
    # Those below another that moves are not named.
    return tuple("/".join(path) for path in moved if path in paths and not any(path[:n] in paths for n in range(1, len(path))))


def not_agreed(group: UpdateGroup, moves: Mapping[str, Sequence[str]]) -> BadInput:
    """The error for a candidate that moves inputs of groups which the user has not named."""
    return BadInput(
        group.name,
        f"this would also move {_in_words(moves)}, in the lock {group.lock} that they share",
        "If that is meant, allow it with -e flotilla_allow_shared_inputs=true; if not, name the inputs that are this group's "
        "alone in flotilla_inputs.",
    )


def agreed_lines(moves: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What to tell a user who has agreed."""
    return tuple(
        f"{_listed(inputs)} also {'moves' if len(inputs) == 1 else 'move'} for {_listed(groups)}, "
        f"whose hosts get {'it' if len(inputs) == 1 else 'them'} at their next rollout"
        for inputs, groups in _by_inputs(moves)
    )


def _in_words(moves: Mapping[str, Sequence[str]]) -> str:
    return ", and ".join(f"{_listed(inputs)} for {_listed(groups)}" for inputs, groups in _by_inputs(moves))


def _by_inputs(moves: Mapping[str, Sequence[str]]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Groups for which the same inputs move, together."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, inputs in moves.items():
        found.setdefault(tuple(inputs), []).append(name)
    return list(found.items())


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
