# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the plan of a rollout, and the gate that decides between its batches who goes on.

Ansible's own max_fail_percentage and any_errors_fatal leak in serial plays (a host that becomes unreachable in the task that
trips them lets the later batches run; ansible-core 2.19 to 2.21), and know nothing of update groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .outcome import HostOutcome, Outcome, is_back, why_not_back


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

    dirty: the work tree is deployed, with changes that no commit has. known_good: what is deployed is what the group had proven.
    soak: seconds until the commit is known-good.
    notes: what else there is to know of the update, as clauses.
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
    known_good: bool = False
    soak: int = 0
    notes: Sequence[str] = ()


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
                name,
                Outcome.FAILED,
                "it was lost during the rollout; unless it was confirmed, its guard brings it back to the system before",
                may_run_new=True,
            )
    return done


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What becomes of a group's candidate: `accept` and `discard` are both False where there is none, or where it is kept."""

    group: str
    halted: bool
    reason: str
    accept: bool
    discard: bool
    #: Hosts that run the new system although it was not proven for the group.
    mixed: list[str]
    #: Hosts that failed, of which nothing shows that they do not.
    unsure: list[str] = field(default_factory=list)


def conclude_all(
    plan: Plan, outcomes: Mapping[str, HostOutcome], *, land: bool, back: Iterable[str] = ()
) -> dict[str, GroupResult]:
    """What becomes of each group's candidate. back: hosts that were brought back since the batches.

    A commit that is the candidate of several groups lands if none of them halted: it moves the lock of all of them.
    """
    verdicts = {name: judge(plan, name, outcomes, len(plan.batches)) for name in plan.groups}
    halted = {name for name, verdict in verdicts.items() if verdict.halted}
    for name in plan.groups.keys() - halted:
        if sharing := [other for other in _sharing(plan, name) if other in halted]:
            verdicts[name] = Verdict(name, False, f"{_names(sharing)} halted, with which it has its candidate in common")
    return {name: _conclude(plan, name, verdict, outcomes, set(back), land=land) for name, verdict in verdicts.items()}


def _sharing(plan: Plan, group: str) -> list[str]:
    """The other groups with the same candidate."""
    mine = plan.groups[group].candidate
    return [name for name, other in plan.groups.items() if mine is not None and name != group and other.candidate == mine]


def _conclude(
    plan: Plan, group: str, verdict: Verdict, outcomes: Mapping[str, HostOutcome], back: set[str], *, land: bool
) -> GroupResult:
    """Accept what was proven, discard what was not.

    A candidate that was not proven, and that some host runs, or may run, is kept: what they run has to have a name.
    """
    mine = [outcomes[host] for host in plan.members(group)]
    proven = any(known.outcome.proves or known.outcome is Outcome.PLANNED for known in mine)
    good = proven and not verdict.reason
    candidate = plan.groups[group].candidate is not None and land
    mixed = [known.host for known in mine if known.moved and known.host not in back and not good]
    unsure = [known.host for known in mine if known.may_run_new and known.host not in back and not good]
    discard = candidate and not good and not mixed and not unsure
    reason = verdict.reason or ("" if proven else _unproven(mine))
    return GroupResult(group, verdict.halted, reason, candidate and good, discard, mixed, unsure)


def _unproven(outcomes: Iterable[HostOutcome]) -> str:
    failed = any(known.outcome.bad for known in outcomes)
    return "it worked on no host" if failed else "no host was reached"


def brought_back(outcomes: Mapping[str, HostOutcome], results: Iterable[Mapping[str, Any]]) -> dict[str, HostOutcome]:
    """The outcomes of hosts that were to be brought back, from the results of system_rollback in a loop over them."""
    found: dict[str, HostOutcome] = {}
    for result in results:
        host = str(result["item"])
        known = outcomes[host]
        why = "its group halted" if known.moved else known.reason
        if is_back(result):
            told = f"{why} (flotilla_rollback_confirmed)" if known.moved else why
            found[host] = HostOutcome(host, Outcome.ROLLED_BACK, told)
        else:
            told = f"{why}, and going back failed: {why_not_back(host, result)}"
            found[host] = HostOutcome(host, Outcome.FAILED, told, may_run_new=True)
    return found


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
