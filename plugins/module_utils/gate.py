# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the plan of a rollout, and the gate that decides between its batches who goes on.

Ansible's own max_fail_percentage and any_errors_fatal leak in serial plays (a host that becomes unreachable in the task that
trips them lets the later batches run; ansible-core 2.19 to 2.21), and know nothing of update groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .outcome import HostOutcome, Outcome


@dataclass(frozen=True, slots=True)
class PlannedHost:
    """A host in the plan. `outcome` is None if it is to be updated, else what is known before anything is touched."""

    name: str
    group: str
    system: str | None = None
    previous: str | None = None
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """An update group in the plan: the commit to deploy; base and candidate if its lock moves; error if it cannot go on.

    dirty: the work tree is deployed, with changes that no commit has. soak: seconds until the commit is known-good.
    """

    name: str
    commit: str | None = None
    base: str | None = None
    candidate: str | None = None
    branch: str | None = None
    changes: Sequence[Mapping[str, Any]] = ()
    error: str = ""
    max_fail_percentage: float = 0
    dirty: bool = False
    soak: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is updated to what, and when."""

    groups: dict[str, PlannedGroup]
    hosts: dict[str, PlannedHost]
    batches: list[list[str]] = field(default_factory=list)

    def members(self, group: str) -> list[str]:
        """The group's hosts that the rollout is for, in inventory order."""
        return [host.name for host in self.hosts.values() if host.group == group]

    def parts(self, group: str) -> Iterator[list[str]]:
        """The group's part of each batch."""
        for batch in self.batches:
            yield [host for host in batch if self.hosts[host].group == group]

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, for an Ansible variable."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Plan:
        """The plan that `as_dict` gave."""
        hosts = {
            name: PlannedHost(**{**host, "outcome": Outcome(host["outcome"]) if host["outcome"] else None})
            for name, host in value["hosts"].items()
        }
        groups = {name: PlannedGroup(**group) for name, group in value["groups"].items()}
        return cls(groups, hosts, [list(batch) for batch in value["batches"]])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a group goes on, and why not."""

    group: str
    halted: bool = False
    reason: str = ""


def too_many(failures: int, size: int, percentage: float) -> bool:
    """Strictly more than the percentage of the batch, as Ansible's max_fail_percentage counts."""
    return size > 0 and failures * 100 > percentage * size


def judge(plan: Plan, group: str, outcomes: Mapping[str, HostOutcome], batches_done: int) -> Verdict:
    """Whether the group goes on after that many batches. A host that was let through and has no outcome counts as failed."""
    planned = plan.groups[group]
    if planned.error:
        return Verdict(group, True, planned.error)
    members = plan.members(group)
    before = [host for host in members if (known := plan.hosts[host].outcome) is not None and known.bad]
    if too_many(len(before), len(members), planned.max_fail_percentage):
        return Verdict(group, True, f"{_names(before)} failed before anything was touched")
    done = list(plan.parts(group))[:batches_done]
    for number, part in enumerate(done, 1):
        failed = [host for host in part if is_failure(outcomes.get(host))]
        if too_many(len(failed), len(part), planned.max_fail_percentage):
            return Verdict(group, True, _halt_reason(number, part, failed, outcomes))
    # Only the first part is asked, so that a group that halted stays halted.
    first = done[0] if done else []
    if first and all(outcomes[host].outcome is Outcome.DEFERRED for host in first if host in outcomes):
        return Verdict(group, True, f"{_names(first)} went away before the update, so nothing has been proven")
    return Verdict(group)


def is_failure(outcome: HostOutcome | None) -> bool:
    """True for a bad outcome, and for none: the host was let through and never heard of again."""
    return outcome is None or outcome.outcome.bad


def hold(plan: Plan, batch: Sequence[str], verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """The hosts of a batch that must not go on, with the reason."""
    return {host: held_because(verdict) for host in batch if (verdict := verdicts[plan.hosts[host].group]).halted}


def held_because(verdict: Verdict) -> str:
    """The reason to give for a host that is held."""
    return f"{verdict.group} halted: {verdict.reason}"


def batch_number(plan: Plan, hosts: Sequence[str]) -> int:
    """Which batch (from 0) these hosts are from."""
    wanted = set(hosts)
    return next(i for i, batch in enumerate(plan.batches) if wanted & set(batch))


def final_outcomes(plan: Plan, known: Mapping[str, HostOutcome], *, ran: bool = True) -> dict[str, HostOutcome]:
    """Every host's outcome at the end: planned, seen, or lost. ran: whether the batches were to run."""
    done: dict[str, HostOutcome] = {}
    for name, host in plan.hosts.items():
        if host.outcome is not None:
            done[name] = HostOutcome(name, host.outcome, host.reason)
        elif not ran:
            done[name] = HostOutcome(name, Outcome.PLANNED)
        else:
            done[name] = known.get(name) or HostOutcome(
                name, Outcome.FAILED, "it was lost during the rollout; its guard brings it back to the system before"
            )
    return done


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What becomes of a group's candidate: `accept` and `discard` are both False where there is none."""

    group: str
    halted: bool
    reason: str
    accept: bool
    discard: bool
    #: Hosts that run the new system although the group halted.
    mixed: list[str]


#: Outcomes of hosts that run the new system, or will at their next boot.
_MOVED = (Outcome.UPDATED, Outcome.REBOOTED, Outcome.STAGED)


def conclude(
    plan: Plan, group: str, outcomes: Mapping[str, HostOutcome], *, land: bool, roll_back_mixed: bool = False
) -> GroupResult:
    """Accept what was proven, discard what was not.

    The candidate of a halted group that some hosts run is kept, so that what they run has a name, unless they are rolled back.
    """
    verdict = judge(plan, group, outcomes, len(plan.batches))
    mine = {host: outcomes[host].outcome for host in plan.members(group)}
    proven = any(outcome.proves or outcome is Outcome.PLANNED for outcome in mine.values())
    candidate = plan.groups[group].candidate is not None and land
    accept = candidate and proven and not verdict.halted
    mixed = [host for host, outcome in mine.items() if outcome in _MOVED] if verdict.halted else []
    reason = verdict.reason or ("" if proven else "no host was reached")
    discard = candidate and not accept and (roll_back_mixed or not mixed)
    return GroupResult(group, verdict.halted, reason, accept, discard, mixed)


def _halt_reason(number: int, part: Sequence[str], failed: Sequence[str], outcomes: Mapping[str, HostOutcome]) -> str:
    kinds: dict[str, list[str]] = {}
    for host in failed:
        known = outcomes.get(host)
        kinds.setdefault(known.outcome.replace("_", " ") if known else "lost", []).append(host)
    told = ", ".join(f"{_names(hosts)} {kind}" for kind, hosts in kinds.items())
    return f"{told} in batch {number} ({len(failed)} of {len(part)})"


def _names(hosts: Sequence[str]) -> str:
    shown = ", ".join(hosts[:5])
    return shown if len(hosts) <= 5 else f"{shown} and {len(hosts) - 5} more"
