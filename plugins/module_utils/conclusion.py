# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what a rollout ended with, and for which hosts it has to count as failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .gate import GroupResult, Plan
from .outcome import HostOutcome, Outcome


@dataclass(frozen=True, slots=True)
class Landing:
    """Results of accepting and of discarding (both of flake_lock)."""

    accepted: Mapping[str, Any]
    discarded: Mapping[str, Any]
    check: bool = False


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of a rollout. landed: each group's candidate's fate, in words. bad: host → why the run has failed for it."""

    outcomes: dict[str, HostOutcome]
    results: list[GroupResult]
    landed: dict[str, str]
    bad: dict[str, str]

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Conclusion:
        """The conclusion that dataclasses.asdict gave."""
        outcomes = {name: _outcome(name, given) for name, given in value["outcomes"].items()}
        return cls(outcomes, [GroupResult(**given) for given in value["results"]], value["landed"], value["bad"])


def conclude_report(plan: Plan, verdict: Mapping[str, Any], landing: Landing) -> Conclusion:
    """Put together what the gate said at the end and what was then done."""
    outcomes = {name: _outcome(name, value) for name, value in verdict["outcomes"].items()}
    results = [GroupResult(**value) for value in verdict["results"]]
    landed, problems = _landed(plan, results, landing)
    bad = {
        name: f"{name} {outcome.outcome.replace('_', ' ')}: {outcome.reason}"
        for name, outcome in outcomes.items()
        if outcome.outcome.bad or outcome.outcome is Outcome.HELD
    }
    for group, problem in problems.items():
        # A recap knows only hosts, so the group's first one carries the group's failure.
        bad.setdefault(plan.members(group)[0], problem)
    return Conclusion(outcomes, results, landed, bad)


def _outcome(name: str, value: Mapping[str, Any]) -> HostOutcome:
    return HostOutcome(name, Outcome(value["outcome"]), str(value["reason"]), bool(value.get("may_run_new")))


def _landed(plan: Plan, results: Sequence[GroupResult], landing: Landing) -> tuple[dict[str, str], dict[str, str]]:
    landed: dict[str, str] = {}
    problems: dict[str, str] = {}
    for result in results:
        group = plan.groups[result.group]
        if group.candidate is None:
            continue
        ref = f"refs/flotilla/candidate/{result.group}"
        if result.accept and landing.check:
            landed[result.group] = f"the candidate would be landed on {group.branch}"
        elif result.accept:
            problem = _problem(landing.accepted, result.group)
            commit = str(_group(landing.accepted, result.group).get("commit") or group.candidate)[:12]
            landed[result.group] = f"landed {commit} on {group.branch}"
            if problem:
                landed[result.group] = f"the candidate was proven, but did not land: {problem}"
                problems[result.group] = f"{result.group}: {landed[result.group]}"
        elif (result.mixed or result.unsure) and not result.discard:
            landed[result.group] = _kept(result, group.candidate, ref)
        elif result.discard:
            problem = _problem(landing.discarded, result.group) if not landing.check else ""
            why = "" if not result.reason or result.halted else f" ({result.reason})"
            with_it = [r.group for r in results if r.accept and plan.groups[r.group].candidate == group.candidate]
            fate = f"it is the same as that of {', '.join(with_it)}" if with_it else f"{group.branch} never had it"
            landed[result.group] = f"candidate dropped{why}; {fate}"
            if problem:
                problems[result.group] = f"{result.group}: the candidate could not be dropped: {problem}"
        else:
            landed[result.group] = f"candidate {group.candidate[:12]} left as {ref}"
    return landed, problems


def _kept(result: GroupResult, candidate: str, ref: str) -> str:
    """Why a candidate that was not proven keeps its name, and how its hosts go back."""
    why = "" if result.halted or not result.reason else f" ({result.reason})"
    told = [
        f"{', '.join(hosts)} {verb} the candidate {candidate[:12]}"
        for hosts, verb in ((result.mixed, "runs" if len(result.mixed) == 1 else "run"), (result.unsure, "may run"))
        if hosts
    ]
    hosts = ",".join([*result.mixed, *result.unsure])
    return (
        f"not landed{why}. {', and '.join(told)}, kept as {ref}. To go back: ansible-playbook flotilla.nixos.rollback -l {hosts}"
    )


def _group(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (result.get("groups") or {}).get(name) or {}
    return found


def _problem(result: Mapping[str, Any], name: str) -> str:
    """Why an accept or discard did not work for the group; "" if it did."""
    group = _group(result, name)
    if group and not group.get("failed"):
        return ""
    return str(group.get("msg") or result.get("msg") or "no result was given")
