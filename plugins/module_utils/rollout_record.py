# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: from the end of a rollout to what flake_ledger records of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .conclusion import Conclusion
from .gate import Plan, PlannedGroup, PlannedHost
from .ledger import Source
from .outcome import Outcome, is_back, without_subject

#: Outcomes of hosts that were let through to the batches, and yet not touched.
_UNTOUCHED = (Outcome.HELD, Outcome.PLANNED, Outcome.DEFERRED)


def records(plan: Plan, end: Conclusion, accepted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each group what the option `rollouts` of flake_ledger takes. accepted: result of flake_lock with that state."""
    landings = accepted.get("groups") or {}
    return [
        {
            "group": result.group,
            "commit": plan.groups[result.group].commit,
            "source": str(_source(plan.groups[result.group])),
            "halted": result.halted,
            "touched": _touched(plan, end, result.group),
            "reason": result.reason or _problem(result.group, landings),
            "soak": str(plan.groups[result.group].soak),
            "branch": plan.groups[result.group].branch,
            "landed": _landed(landings.get(result.group) or {}),
            "hosts": _hosts(plan, end, result.group),
        }
        for result in end.results
    ]


def beginnings(plan: Plan) -> list[dict[str, Any]]:
    """The same for those groups of which hosts are about to be touched, as far as it is known before."""
    return [
        {
            "group": name,
            "commit": group.commit,
            "source": str(_source(group)),
            "reason": "its end was not recorded",
            "soak": str(group.soak),
            "branch": group.branch,
            "hosts": [_beginning(plan.hosts[host]) for host in plan.members(name)],
        }
        for name, group in plan.groups.items()
        if any(plan.hosts[host].outcome is None for host in plan.members(name))
    ]


def failures(groups: Iterable[Mapping[str, Any]], reason: str) -> list[dict[str, Any]]:
    """The same for a rollout that failed before any host was looked at. groups: as flake_lock takes them."""
    return [
        {
            "group": group["name"],
            "commit": group.get("commit"),
            "touched": False,
            "reason": reason,
            "hosts": [{"name": host["name"], "result": str(Outcome.FAILED), "reason": reason} for host in group["hosts"]],
        }
        for group in groups
    ]


def rollbacks(groups: Iterable[Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]], reason: str) -> list[dict[str, Any]]:
    """The same for hosts that were brought back on demand. results: of system_rollback, by host."""
    found = []
    for group in groups:
        hosts = [_rollback(host["name"], results[host["name"]]) for host in group["hosts"] if results.get(host["name"])]
        if any(host["result"] != Outcome.UNCHANGED for host in hosts):
            found.append({"group": group["name"], "rollback": True, "reason": reason, "hosts": hosts})
    return found


def _rollback(host: str, result: Mapping[str, Any]) -> dict[str, Any]:
    outcome = Outcome.FAILED
    if is_back(result) or result.get("outcome") == "staged_for_boot":
        outcome = Outcome.ROLLED_BACK if result.get("changed") else Outcome.UNCHANGED
    back = outcome is not Outcome.FAILED
    reason = without_subject(host, str(result.get("msg") or ""))
    return {
        "name": host,
        "result": str(outcome),
        "system": result.get("previous"),
        "previous": result.get("system") if back else None,
        "reason": reason,
    }


def _beginning(host: PlannedHost) -> dict[str, Any]:
    return {
        "name": host.name,
        "result": str(host.outcome or Outcome.PLANNED),
        "system": host.system,
        "previous": host.previous,
        "reason": host.reason,
    }


def _source(group: PlannedGroup) -> Source:
    if group.dirty:
        return Source.WORKTREE
    if group.known_good:
        return Source.KNOWN_GOOD
    return Source.CANDIDATE if group.candidate and group.candidate == group.commit else Source.HEAD


def _touched(plan: Plan, end: Conclusion, group: str) -> bool:
    members = plan.members(group)
    return any(plan.hosts[host].outcome is None and end.outcomes[host].outcome not in _UNTOUCHED for host in members)


def _problem(group: str, landings: Mapping[str, Any]) -> str:
    result = landings.get(group) or {}
    return f"the candidate did not land: {result.get('msg')}" if result.get("failed") else ""


def _landed(result: Mapping[str, Any]) -> str | None:
    commit = result.get("commit")
    return str(commit) if commit and not result.get("failed") else None


def _hosts(plan: Plan, end: Conclusion, group: str) -> list[dict[str, Any]]:
    found = []
    for name in plan.members(group):
        host, outcome = plan.hosts[name], end.outcomes[name]
        found.append(
            {
                "name": name,
                "result": str(outcome.outcome),
                "system": host.system,
                "previous": host.previous,
                "reason": outcome.reason,
            }
        )
    return found
