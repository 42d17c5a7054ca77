# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the ledger's lines, one for each rollout of an update group, and what follows from them.

Nothing but the lines decides what is known-good and who is late: any controller that has them says the same, in any order and
however often they come. Times are in Unix seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from .outcome import Outcome

#: Lines of another version are left alone and not read.
_VERSION = 1


class Source(StrEnum):
    """What a rollout deployed."""

    CANDIDATE = "candidate"
    HEAD = "head"
    KNOWN_GOOD = "known_good"  # what the group had proven, whatever the head was
    WORKTREE = "worktree"  # with changes that no commit has


class Ending(StrEnum):
    """How a rollout of a group ended."""

    COMPLETE = "complete"  # every host that was reached runs and has confirmed its system
    STAGED = "staged"  # the same, but some wait for their next boot
    PARTIAL = "partial"  # went on although hosts failed
    HALTED = "halted"
    NOT_STARTED = "not_started"  # failed before any host was touched
    UNREACHED = "unreached"  # no host was there
    UNFINISHED = "unfinished"  # was not to make anything permanent
    BROKEN_OFF = "broken_off"  # has begun to touch hosts, and its end was not recorded: it goes on, or nobody knows
    ROLLED_BACK = "rolled_back"  # nothing was rolled out: hosts were brought back on demand


#: Goals that make a system permanent.
_LASTING = ("switch", "boot")
_RUNS = (Outcome.UNCHANGED, Outcome.UPDATED, Outcome.REBOOTED)
_MOVED = (Outcome.UPDATED, Outcome.REBOOTED, Outcome.STAGED)


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What a rollout did to a host. system: what it was to get; previous: what it ran before."""

    result: Outcome
    system: str | None
    previous: str | None
    time: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A line of the ledger: one update group in one rollout.

    pins: input → url, rev and such. by: who and from where. reason: why it stopped. soak: how long the group had to run well
    before its commit counts as known-good. landed: the branch's head after landing. forced: the reason that was given for
    going against a refusal. members: all hosts that the inventory had in the group; None if that was not recorded.
    """

    id: str
    group: str
    commit: str
    source: Source
    goal: str
    outcome: Ending
    started: int
    ended: int
    hosts: Mapping[str, HostRecord]
    pins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    by: Mapping[str, str] = field(default_factory=dict)
    branch: str | None = None
    landed: str | None = None
    reason: str = ""
    soak: int = 0
    forced: str = ""
    members: frozenset[str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells a line from others."""
        return self.id, self.group

    @property
    def proves(self) -> bool:
        """True if it shows that the commit works on the group's hosts."""
        return self.outcome is Ending.COMPLETE and self.source is not Source.WORKTREE

    @property
    def running(self) -> dict[str, str | None]:
        """The hosts that run what they were to get, and that."""
        return {name: host.system for name, host in self.hosts.items() if host.result in _RUNS}

    def deployed(self, commit: str) -> bool:
        """True if it is this commit that it deployed, and nothing else."""
        return self.commit == commit and self.source is not Source.WORKTREE

    def any(self, *results: Outcome) -> bool:
        """True if any host has one of these results."""
        return any(host.result in results for host in self.hosts.values())


def ending(results: Iterable[Outcome], goal: str, *, halted: bool, touched: bool) -> Ending:
    """How a rollout ended, by its hosts' results."""
    found = set(results)
    bad = any(result.bad for result in found)
    if (bad or Outcome.HELD in found) and not touched:
        return Ending.NOT_STARTED
    if halted:
        return Ending.HALTED
    if bad or Outcome.HELD in found:
        return Ending.PARTIAL
    reached = found - {Outcome.DEFERRED}
    if not reached:
        return Ending.UNREACHED
    if reached & {Outcome.PLANNED, Outcome.COPIED} or goal not in _LASTING:
        return Ending.UNFINISHED
    return Ending.STAGED if Outcome.STAGED in reached else Ending.COMPLETE


def to_line(rollout: Rollout) -> str:
    """The line without its end: the same rollout always gives the same bytes, which merging by line needs.

    Lines of rollouts that one controller has named sort by time, as git does when it merges notes.
    """
    return json.dumps({**as_dict(rollout), "v": _VERSION})


def as_dict(rollout: Rollout) -> dict[str, Any]:
    """The rollout as plain values, times as text (UTC), in the order in which a person reads."""
    hosts = {
        name: {
            "result": str(host.result),
            "system": host.system,
            "previous": host.previous,
            "time": iso(host.time),
            **({"reason": host.reason} if host.reason else {}),
        }
        for name, host in sorted(rollout.hosts.items())
    }
    return {
        "id": rollout.id,
        "group": rollout.group,
        "outcome": str(rollout.outcome),
        "reason": rollout.reason,
        **({"forced": rollout.forced} if rollout.forced else {}),
        "hosts": hosts,
        "source": str(rollout.source),
        "goal": rollout.goal,
        "commit": rollout.commit,
        "branch": rollout.branch,
        "landed": rollout.landed,
        "pins": {name: dict(sorted(pin.items())) for name, pin in sorted(rollout.pins.items())},
        "by": dict(sorted(rollout.by.items())),
        "started": iso(rollout.started),
        "ended": iso(rollout.ended),
        "soak": rollout.soak,
        **({"members": sorted(rollout.members)} if rollout.members is not None else {}),
    }


def parse_line(line: str) -> Rollout | None:
    """The rollout of a line; None if it is not one that we wrote: notes may hold anything."""
    try:
        value = json.loads(line)
        if value["v"] != _VERSION:
            return None
        return Rollout(
            id=_text(value["id"]),
            group=_text(value["group"]),
            commit=_text(value["commit"]),
            source=Source(value["source"]),
            goal=_text(value["goal"]),
            outcome=Ending(value["outcome"]),
            started=_unix(value["started"]),
            ended=_unix(value["ended"]),
            hosts={name: _host(host) for name, host in value["hosts"].items()},
            pins={name: dict(pin) for name, pin in value["pins"].items()},
            by=dict(value["by"]),
            branch=value["branch"],
            landed=value["landed"],
            reason=_text(value["reason"]),
            soak=int(value["soak"]),
            forced=_text(value.get("forced", "")),
            members=frozenset(map(_text, value["members"])) if "members" in value else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _host(value: Mapping[str, Any]) -> HostRecord:
    return HostRecord(
        Outcome(value["result"]), value["system"], value["previous"], _unix(value["time"]), _text(value.get("reason", ""))
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def iso(time: int) -> str:
    """A time as text, in UTC, to the second."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unix(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def in_order(rollouts: Iterable[Rollout], group: str | None = None) -> list[Rollout]:
    """Each rollout once, those that ended first first; only the group's, if one is given. An end takes its beginning's place."""
    found: dict[tuple[str, str], Rollout] = {}
    for rollout in rollouts:
        if group in (None, rollout.group):
            other = found.get(rollout.key)
            found[rollout.key] = rollout if other in (None, rollout) else min(rollout, other, key=_end_first)
    return sorted(found.values(), key=lambda rollout: (rollout.ended, rollout.started, rollout.key))


def _end_first(rollout: Rollout) -> tuple[bool, str]:
    return rollout.outcome is Ending.BROKEN_OFF, to_line(rollout)


@dataclass(frozen=True, slots=True)
class Proof:
    """A stretch of time in which a group ran a commit well.

    proven: its begin. systems: what its hosts ran. ended: when the group left it or failed on it.
    """

    group: str
    commit: str
    proven: int
    soak: int
    systems: Mapping[str, str | None]
    ended: int | None = None

    @property
    def good_from(self) -> int:
        """The time at which the soak is over."""
        return self.proven + self.soak

    def stands(self, now: int) -> bool:
        """True if the soak has passed by `now`, undisturbed."""
        return self.good_from <= now and (self.ended is None or self.good_from <= self.ended)


def proofs(rollouts: Iterable[Rollout], group: str) -> list[Proof]:
    """The group's stretches, in order.

    A stretch begins with a rollout that proves its commit, once no host of the group is known to run something else: rollouts
    of parts of the group add up. It ends when a rollout of that commit has a host fail, and when one of
    another commit moves a host. What fails elsewhere and leaves the hosts where they were does not count against it. Where a
    new commit has the very systems that the hosts run, their stretch goes on under its name: the soak is theirs.
    """
    return _history(rollouts, group)[0]


def _history(rollouts: Iterable[Rollout], group: str) -> tuple[list[Proof], _Seen]:
    done: list[Proof] = []
    now: Proof | None = None
    seen = _Seen(group)
    for line in in_order(rollouts):
        seen.follow(line)
        if line.group != group:
            continue
        if now is not None and not _ends(now, line):
            now = _after(now, line, seen)
            continue
        if now is not None:
            done.append(replace(now, ended=max(now.proven, line.started)))
            now = None
        if line.proves and not seen.elsewhere(line.commit):
            now = Proof(group, line.commit, line.ended, line.soak, seen.at(line.commit))
    return [*done, now] if now is not None else done, seen


@dataclass(frozen=True, slots=True)
class _State:
    """What a host of the group runs: a system, and the commits that are known to have it; nothing if nobody knows."""

    system: str | None = None
    commits: tuple[str, ...] = ()


class _Seen:
    """What the lines say of each host of a group, one line after the other."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._hosts: dict[str, _State] = {}
        self._members: frozenset[str] | None = None

    def follow(self, line: Rollout) -> None:
        """Take note of a line, of whatever group: hosts move."""
        if line.group == self._group:
            self._members = self._members if line.members is None else line.members
        for name, host in line.hosts.items():
            before = self._hosts.pop(name, None)
            moved = line.group != self._group and host.result in (*_RUNS, Outcome.STAGED) and line.goal in _LASTING
            after = self._after(before, host, line) if line.group == self._group else None if moved else before
            if after is not None:
                self._hosts[name] = after

    @staticmethod
    def _after(before: _State | None, host: HostRecord, line: Rollout) -> _State | None:
        if host.result is Outcome.DEFERRED:
            return None
        if host.result in _RUNS:
            known = before.commits if before is not None and before.system == host.system else ()
            lasts = line.source is not Source.WORKTREE and line.goal in _LASTING
            return _State(host.system, tuple(dict.fromkeys((*known, line.commit))) if lasts else known)
        if line.outcome is Ending.NOT_STARTED:
            return before
        if host.result in (Outcome.FAILED, Outcome.PLANNED) or line.outcome is Ending.ROLLED_BACK:
            return _State()
        if host.result is Outcome.ROLLED_BACK and before is not None:
            return replace(before, commits=tuple(commit for commit in before.commits if commit != line.commit))
        return before or _State()

    def at(self, commit: str) -> dict[str, str | None]:
        """The hosts that run a commit, and their systems."""
        return {name: state.system for name, state in self._counting() if commit in state.commits}

    def elsewhere(self, commit: str) -> dict[str, str | None]:
        """The hosts that run something else, and the commit of that, if it is known."""
        return {name: next(reversed(s.commits), None) for name, s in self._counting() if commit not in s.commits}

    def has_left(self, name: str) -> bool:
        """True if the inventory no longer has the host in the group."""
        return self._members is not None and name not in self._members

    def _counting(self) -> Iterable[tuple[str, _State]]:
        return [(name, state) for name, state in sorted(self._hosts.items()) if not self.has_left(name)]


def _ends(proof: Proof, line: Rollout) -> bool:
    late = line.source is Source.KNOWN_GOOD
    if line.outcome is Ending.BROKEN_OFF:
        # Nobody knows which of them has moved.
        planned = {name for name, host in line.hosts.items() if host.result is Outcome.PLANNED}
        return bool(planned & proof.systems.keys() if late else planned)
    if not line.deployed(proof.commit):
        # Somebody may have brought hosts elsewhere by hand. Late hosts catch up without disturbing those that are ahead.
        elsewhere = any(system != proof.systems.get(name, system) for name, system in line.running.items())
        return elsewhere or (line.any(*_MOVED) and not late) or line.outcome is Ending.ROLLED_BACK
    return line.any(Outcome.FAILED, Outcome.ROLLED_BACK) and line.outcome is not Ending.NOT_STARTED


def _after(proof: Proof, line: Rollout, seen: _Seen) -> Proof:
    """The same stretch after another rollout. Its soak counts, unless the one before is over."""
    if not line.proves:
        return proof
    # A shorter one ends now, not in the past: what was not known-good an hour ago was not.
    soak = proof.soak if proof.good_from <= line.ended else max(line.soak, line.ended - proof.proven)
    if line.deployed(proof.commit):
        return replace(proof, soak=soak, systems={**proof.systems, **line.running})
    shown = seen.at(line.commit)
    wanted = {name: system for name, system in proof.systems.items() if not seen.has_left(name)}
    if line.source is not Source.KNOWN_GOOD and wanted.items() <= shown.items():
        return replace(proof, commit=line.commit, soak=soak, systems=shown)
    # It has shown too little of the group to take the place of a commit that has shown more, or is one of before.
    return proof


def known_good(rollouts: Iterable[Rollout], group: str, now: int) -> Proof | None:
    """What the group last proved, as of `now`; None if there is nothing."""
    standing = [proof for proof in proofs(rollouts, group) if proof.stands(now)]
    return standing[-1] if standing else None


def soaking(rollouts: Iterable[Rollout], group: str, now: int) -> Proof | None:
    """What the group runs well, but not for long enough yet."""
    last = next(reversed(proofs(rollouts, group)), None)
    return last if last is not None and last.ended is None and last.good_from > now else None


@dataclass(frozen=True, slots=True)
class Growing:
    """A commit that a part of the group runs well. systems: of that part. missing: the others, and the commit that they run."""

    commit: str
    systems: Mapping[str, str | None]
    missing: Mapping[str, str | None]


def growing(rollouts: Iterable[Rollout], group: str) -> Growing | None:
    """What the group's last good rollout has brought to some of its hosts, while others run something else."""
    rollouts = list(rollouts)
    found, seen = _history(rollouts, group)
    last = next((line for line in reversed(in_order(rollouts, group)) if line.proves), None)
    if last is None or (found and found[-1].ended is None):
        return None
    systems, missing = seen.at(last.commit), seen.elsewhere(last.commit)
    return Growing(last.commit, systems, missing) if systems and missing else None


@dataclass(frozen=True, slots=True)
class Deferral:
    """A host that is late. since: when it was first missed. commit, system, reason: of the last rollout that missed it."""

    host: str
    group: str
    since: int
    commit: str
    system: str | None
    reason: str
    missed: int = 1
    #: All commits that missed it.
    commits: frozenset[str] = frozenset()


def deferred(rollouts: Iterable[Rollout], group: str) -> list[Deferral]:
    """The hosts that were not there in a rollout of the group and that no rollout has brought up to date since.

    A rollout of another group closes it, too: the host has moved there.
    """
    late: dict[str, Deferral] = {}
    for line in in_order(rollouts):
        for name, host in line.hosts.items():
            if host.result is Outcome.DEFERRED and line.group == group:
                before = late.get(name) or Deferral(name, group, line.started, line.commit, None, "", 0)
                late[name] = replace(
                    before,
                    commit=line.commit,
                    system=host.system,
                    reason=host.reason,
                    missed=before.missed + 1,
                    commits=before.commits | {line.commit},
                )
            elif host.result in (*_RUNS, Outcome.STAGED) and line.goal in _LASTING:
                late.pop(name, None)
    return [late[name] for name in sorted(late)]


def last_rollouts(rollouts: Iterable[Rollout], group: str, count: int) -> Sequence[Rollout]:
    """The group's newest rollouts, newest first."""
    return in_order(rollouts, group)[::-1][:count]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a host was seen with: a system, the commit that it came from, and the end of the rollout that says so."""

    commit: str
    system: str | None
    time: int


def last_ran(rollouts: Iterable[Rollout], group: str) -> dict[str, Ran]:
    """What each host last ran at the end of a rollout of the group, by name."""
    found: dict[str, Ran] = {}
    for line in in_order(rollouts, group):
        found |= {name: Ran(line.commit, system, line.ended) for name, system in line.running.items()}
    return found


def origins(rollouts: Iterable[Rollout], group: str, running: Mapping[str, str]) -> dict[str, Ran]:
    """Where the systems that hosts run came from: the group's newest rollout that had this system for the host.

    Whatever that rollout made of the host: it runs the system, so that it came to it.
    """
    found: dict[str, Ran] = {}
    for line in in_order(rollouts, group):
        for name, host in line.hosts.items():
            if host.system is not None and host.system == running.get(name):
                found[name] = Ran(line.commit, host.system, line.ended)
    return found


def is_news(rollouts: Sequence[Rollout], line: Rollout) -> bool:
    """False for a rollout that found everything as the ledger has it, so that one every night does not add a line every night.

    News are hosts that were touched, failed or held; a commit that hosts were not yet seen with; a proof; a host that is late, or
    missed another commit, or is no longer late; a landing, and whatever went wrong.
    """
    quiet = all(host.result in (Outcome.UNCHANGED, Outcome.DEFERRED) for host in line.hosts.values())
    if not quiet or line.landed or line.forced or (line.reason and line.outcome is not Ending.UNREACHED):
        return True
    ran, late = last_ran(rollouts, line.group), {found.host: found for found in deferred(rollouts, line.group)}
    if any(_is_news(name, host, line, ran, late) for name, host in line.hosts.items()):
        return True
    return proofs(rollouts, line.group)[-1:] != proofs([*rollouts, line], line.group)[-1:]


def _is_news(name: str, host: HostRecord, line: Rollout, ran: Mapping[str, Ran], late: Mapping[str, Deferral]) -> bool:
    if host.result is Outcome.DEFERRED:
        return name not in late or line.commit not in late[name].commits
    before = ran.get(name)
    if name in late or before is None or before.system != host.system:
        return True
    return before.commit != line.commit and line.source in (Source.HEAD, Source.CANDIDATE)
