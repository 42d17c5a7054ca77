# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a rollout's results as the role's tasks registered them in the hosts' variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils.gate import Plan, final_outcomes
from ..module_utils.outcome import HostOutcome, Outcome, StageResults, outcome_of
from .values import plain

#: Field of StageResults → the variable that the role registers.
REGISTERED = {
    "copied": "flotilla_copied",
    "activated": "flotilla_activated",
    "confirmed": "flotilla_confirmed",
    "rebooted": "flotilla_rebooted",
    "rolled_back": "flotilla_rolled_back",
    "error": "flotilla_error",
}


def known_outcomes(plan: Plan, hostvars: Mapping[str, Mapping[str, Any]], *, check: bool) -> dict[str, HostOutcome]:
    """The outcomes of those planned hosts of which something is known."""
    found: dict[str, HostOutcome] = {}
    for name, host in plan.hosts.items():
        if host.outcome is not None:
            found[name] = HostOutcome(name, host.outcome, host.reason)
            continue
        variables = hostvars[name]
        held = (variables.get("flotilla_gate") or {}).get("held") or {}
        if name in held:
            found[name] = HostOutcome(name, Outcome.HELD, str(held[name]))
            continue
        results = StageResults(**{field: plain(variables.get(variable) or {}) for field, variable in REGISTERED.items()})
        outcome = outcome_of(name, results, check=check)
        if outcome:
            found[name] = outcome
    return found


def broken_off(plan: Plan, results: Mapping[str, Mapping[str, Any]], held: Mapping[str, str]) -> dict[str, HostOutcome]:
    """The outcomes when Ansible broke the run off, from the results of each host's stages."""
    known = {host: HostOutcome(host, Outcome.HELD, reason) for host, reason in held.items()}
    for host in plan.hosts:
        if host in known:
            continue
        outcome = outcome_of(host, StageResults(**results[host])) if host in results else None
        known[host] = outcome or HostOutcome(host, Outcome.HELD, "the run was broken off before its turn")
    return final_outcomes(plan, known)
