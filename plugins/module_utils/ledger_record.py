# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the ledger in a repository: recording rollouts, and what known-good names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import git
from .candidate import known_good_ref, locks_at
from .errors import BadInput, FlotillaError, masked
from .git_notes import Note, notes, rewrite
from .ledger import (
    Deferral,
    Ending,
    Growing,
    HostRecord,
    Proof,
    Rollout,
    Source,
    deferred,
    ending,
    growing,
    in_order,
    is_news,
    known_good,
    parse_line,
    soaking,
    to_line,
)
from .lockfile import Pin, pins
from .update_group import UpdateGroup


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be recorded of one group. commit None: the head of its branch, where not even that came out.

    touched: whether any host was. halted: whether the gate stopped the group. outcome: where it does not follow from these and
    the hosts. members: see Rollout.
    """

    group: UpdateGroup
    commit: str | None
    source: Source
    hosts: Mapping[str, HostRecord]
    halted: bool = False
    touched: bool = True
    reason: str = ""
    soak: int = 0
    branch: str | None = None
    landed: str | None = None
    outcome: Ending | None = None
    members: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Occasion:
    """What the groups of one rollout share. id: no other rollout has it. by: who and from where. forced: see Rollout."""

    id: str
    goal: str
    started: int
    ended: int
    by: Mapping[str, str] = field(default_factory=dict)
    forced: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says of a group. ref: the commit that its known-good ref names (None: it is not there)."""

    known_good: Proof | None
    soaking: Proof | None
    growing: Growing | None
    deferred: Sequence[Deferral]
    ref: str | None
    rollouts: Sequence[Rollout]


def read(repo: git.Repository) -> list[Rollout]:
    """The rollouts in the repository's ledger."""
    return _rollouts(notes(repo))


def _rollouts(there: Sequence[Note]) -> list[Rollout]:
    return [rollout for note in there for line in note.lines if (rollout := parse_line(line)) is not None]


def standing(repo: git.Repository, group: UpdateGroup, rollouts: Sequence[Rollout], now: int) -> Standing:
    """What these rollouts say of a group at a time."""
    return Standing(
        known_good(rollouts, group.name, now),
        soaking(rollouts, group.name, now),
        growing(rollouts, group.name),
        deferred(rollouts, group.name),
        git.commit_of(repo, known_good_ref(group)),
        [rollout for rollout in rollouts if rollout.group == group.name],
    )


def is_ahead(repo: git.Repository, wanted: str, there: str) -> bool | None:
    """Whether a commit is a strict ancestor of what is there already, so that deploying it would be a downgrade.

    None if the repository does not have what is there: then it is probably older than what was rolled out from elsewhere.
    """
    if wanted == there:
        return False
    return git.is_ancestor(repo, wanted, there) if git.commit_of(repo, there) else None


def as_rollout(repo: git.Repository, report: Report, occasion: Occasion) -> Rollout:
    """The line for a report; BadInput if the repository does not have its commit."""
    group = report.group
    branch = report.branch or group.branch or git.current_branch(repo)
    if report.commit is None:
        commit: str | None = git.branch_head(repo, branch)
    else:
        commit = git.commit_of(repo, report.commit)
    if commit is None:
        raise BadInput(
            group.name,
            f"the repository {repo.path} has no commit {report.commit}, so its rollout cannot be recorded there",
            "Fetch it, or name the repository that it is in.",
        )
    results = [host.result for host in report.hosts.values()]
    return Rollout(
        id=occasion.id,
        group=group.name,
        commit=commit,
        source=report.source,
        goal=occasion.goal,
        outcome=report.outcome or ending(results, occasion.goal, halted=report.halted, touched=report.touched),
        started=occasion.started,
        ended=occasion.ended,
        hosts=report.hosts,
        pins=_pins(repo, group, commit),
        by=occasion.by,
        branch=branch,
        landed=report.landed,
        reason=report.reason,
        soak=report.soak,
        forced=occasion.forced,
        members=report.members,
    )


def _pins(repo: git.Repository, group: UpdateGroup, commit: str) -> dict[str, dict[str, Any]]:
    """The pins of those inputs that the group may move; none where the lock cannot be read, which the rollout has said.

    Where hosts have locks of their own that pin an input differently, it has no rev and date, and the hosts their revs.
    """
    try:
        locks = [(part, pins(lock)) for part, lock in locks_at(repo, group, commit) if lock is not None]
    except FlotillaError:
        return {}
    found: dict[str, dict[str, Pin]] = {}
    for part, there in locks:
        for name, pin in there.items():
            for host in [member.name for member in part.members] if group.per_host else [""]:
                found.setdefault(name, {})[host] = pin
    mine = None if group.inputs is None else {name.split("/")[0] for name in group.inputs}
    return {name: _pinned(hosts) for name, hosts in found.items() if mine is None or name in mine}


def _pinned(hosts: Mapping[str, Pin]) -> dict[str, Any]:
    first = next(iter(hosts.values()))
    if all(pin == first for pin in hosts.values()):
        return {"url": masked(first.url), "rev": first.rev, "date": first.date}
    return {"url": masked(first.url), "rev": None, "date": None, "hosts": {host: pin.rev for host, pin in hosts.items()}}


def record(repo: git.Repository, rollouts: Sequence[Rollout], token: str, *, check: bool = False) -> list[Rollout]:
    """Add the rollouts to the ledger, in one step; those that are news to it are returned (see ledger.is_news).

    What it has (the same id and group) is no news, unless that is the beginning of a rollout and this its end, which takes its
    place. check: only say which these are.
    """
    added: list[Rollout] = []

    def wanted(there: Sequence[Note]) -> dict[str, list[str]]:
        known = in_order(_rollouts(there))
        added[:] = _news(known, rollouts)
        ended = {rollout.key for rollout in added}
        changed: dict[str, list[str]] = {}
        lines = {note.commit: note.lines for note in there}
        for commit in {rollout.commit for rollout in (*added, *known) if rollout.key in ended}:
            kept = [line for line in lines.get(commit, []) if (found := parse_line(line)) is None or found.key not in ended]
            changed[commit] = [*kept, *(to_line(rollout) for rollout in added if rollout.commit == commit)]
        return changed

    if check:
        wanted(notes(repo))
    else:
        rewrite(repo, wanted, token)
    return added


def _news(known: Sequence[Rollout], rollouts: Sequence[Rollout]) -> list[Rollout]:
    there = {rollout.key: rollout for rollout in known}
    return [
        rollout
        for rollout in rollouts
        if (is_news(known, rollout) if (before := there.get(rollout.key)) is None else _ends(before, rollout))
    ]


def _ends(before: Rollout, rollout: Rollout) -> bool:
    return before.outcome is Ending.BROKEN_OFF and rollout.outcome is not Ending.BROKEN_OFF


def settle(repo: git.Repository, group: UpdateGroup, rollouts: Sequence[Rollout], now: int, *, check: bool = False) -> bool:
    """Let the known-good ref name what these rollouts prove; whether it had to move.

    Without a proof it stays where it is. BadInput if the commit is not in the repository (a ledger from elsewhere may tell of
    commits that were never pushed), CommandFailed if the ref cannot be written.
    """
    proof = known_good(rollouts, group.name, now)
    ref = known_good_ref(group)
    before = git.commit_of(repo, ref)
    if proof is None or proof.commit == before:
        return False
    if git.commit_of(repo, proof.commit) is None:
        raise BadInput(
            group.name,
            f"its known-good commit {proof.commit[:12]} is not in the repository {repo.path}",
            "Fetch it from the controller that rolled it out; the ledger says which.",
        )
    # False if another run was faster: it has read the same ledger.
    return check or git.update_ref(repo, ref, proof.commit, before, f"flotilla: {group.name} has proven it")
