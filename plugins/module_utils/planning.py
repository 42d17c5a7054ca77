# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: from what lock, build and a look at the hosts have found to the plan of a rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .batches import Size, schedule
from .gate import Plan, PlannedGroup, PlannedHost, held_because, judge, too_many
from .outcome import Outcome, without_subject


@dataclass(frozen=True, slots=True)
class Findings:
    """Results of the stages before: groups as their modules take them; locked and built by group; info by host.

    ahead: hosts that run something newer than they would get, with what flake_ledger_info says of it. unchecked: groups of
    which that could not be found out, and why.
    """

    groups: Sequence[Mapping[str, Any]]
    locked: Mapping[str, Mapping[str, Any]]
    built: Mapping[str, Mapping[str, Any]]
    info: Mapping[str, Mapping[str, Any]]
    landing: bool = False
    ahead: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unchecked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a group goes: the sizes of its batches, the percentage of a batch that may fail, and its soak in seconds."""

    serial: Sequence[Size]
    max_fail_percentage: float
    soak: int = 0


def make_plan(findings: Findings, pace: Mapping[str, Pace]) -> Plan:
    """Only hosts that need the update and can have it come into batches, so that every batch proves something."""
    groups = {group["name"]: _group(group, findings, pace[group["name"]]) for group in findings.groups}
    hosts = {
        host["name"]: _host(host["name"], groups[group["name"]], findings) for group in findings.groups for host in group["hosts"]
    }
    plan = Plan(groups, hosts)
    verdicts = {name: judge(plan, name, {}, 0) for name in groups}
    for name, host in hosts.items():
        verdict = verdicts[host.group]
        if verdict.halted and host.outcome is None:
            hosts[name] = PlannedHost(
                host.name,
                host.group,
                host.system,
                host.previous,
                Outcome.HELD,
                held_because(verdict),
            )
    to_update = {group: [name for name in plan.members(group) if hosts[name].outcome is None] for group in groups}
    return Plan(groups, hosts, schedule(to_update, {group: pace[group].serial for group in groups}))


def _group(group: Mapping[str, Any], findings: Findings, pace: Pace) -> PlannedGroup:
    name = group["name"]
    locked, built = findings.locked.get(name, {}), findings.built.get(name, {})
    hosts = built.get("hosts") or {}
    error = ""
    if locked.get("failed"):
        error = str(locked.get("msg") or "its lock could not be made")
    elif findings.landing and locked.get("candidate") and not locked.get("branch"):
        error = "HEAD is detached, so there is no branch for the update to land on. Set flotilla_branch, or flotilla_land=false."
    elif built.get("failed") and not any(host.get("error") for host in hosts.values()):
        error = str(built.get("msg") or "it could not be built")
    else:
        error = _broken_outside(group, hosts, pace.max_fail_percentage)
    error = without_subject(name, error)
    return PlannedGroup(
        name,
        commit=built.get("commit") or locked.get("commit"),
        base=locked.get("base"),
        candidate=locked.get("candidate"),
        branch=locked.get("branch"),
        changes=list(locked.get("changes") or []),
        error=error,
        max_fail_percentage=pace.max_fail_percentage,
        dirty=bool(built.get("dirty")),
        known_good=bool(locked.get("known_good")),
        soak=pace.soak,
        notes=[*(locked.get("notes") or []), *([unchecked(findings.unchecked[name])] if name in findings.unchecked else [])],
    )


def unchecked(why: str) -> str:
    """What is said of a group whose hosts are updated although they may run something newer."""
    return f"not checked for downgrades, as the ledger could not be read: {why.rstrip('.')}"


def _broken_outside(group: Mapping[str, Any], built: Mapping[str, Mapping[str, Any]], percentage: float) -> str:
    """Why the group's lock must not move although the hosts in the limit build: its other hosts do not."""
    inside = {host["name"] for host in group["hosts"]}
    broken = [name for name, host in built.items() if host.get("failed") and name not in inside]
    if not too_many(len(broken), len(built), percentage):
        return ""
    first = without_subject(broken[0], str(built[broken[0]].get("error") or "its system was not built"))
    return f"{', '.join(broken)}, outside the limit, would not build any more ({broken[0]}: {first})"


def _host(name: str, group: PlannedGroup, findings: Findings) -> PlannedHost:
    build = (findings.built.get(group.name, {}).get("hosts") or {}).get(name, {})
    info = findings.info.get(name, {})
    system, running = build.get("system"), info.get("running")
    outcome, reason = _known(name, group, build, findings)
    return PlannedHost(name, group.name, system, running, outcome, reason)


def _known(name: str, group: PlannedGroup, build: Mapping[str, Any], findings: Findings) -> tuple[Outcome | None, str]:
    """The outcome that is certain before anything is touched, and why."""
    info = findings.info.get(name, {})
    if group.error:
        return Outcome.FAILED, group.error
    if build.get("failed") or not build.get("system"):
        return Outcome.FAILED, without_subject(name, str(build.get("error") or "its system was not built"))
    # Without any result, Ansible itself has dropped the host.
    if not info or info.get("unreachable") or not info.get("reachable", True):
        return Outcome.DEFERRED, without_subject(name, str(info.get("msg") or "it could not be reached"))
    if info.get("failed"):
        return Outcome.FAILED, without_subject(name, str(info.get("msg") or "it could not be looked at"))
    here, there = build.get("platform"), info.get("platform")
    if here and there and here != there:
        return Outcome.FAILED, f"its system is for {here}, and the host is {there}. Correct the host's platform in its flake."
    if _right(build["system"], info):
        return Outcome.UNCHANGED, ""
    if name in findings.ahead and info.get("running") != build["system"]:
        return Outcome.HELD, _downgrade(group, findings.ahead[name])
    return None, ""


def _downgrade(group: PlannedGroup, ran: Mapping[str, Any]) -> str:
    """Why a host is left alone that runs something newer. ran: what the ledger says of that."""
    what = f"it runs commit {str(ran['commit'])[:12]}, rolled out {ran['time']}"
    hint = "Bring the repository up to date (git pull), or allow it: -e flotilla_allow_downgrade=true"
    if ran.get("ahead") is None:
        return f"{what}, which this repository does not have: this may be a downgrade. {hint}"
    return f"{what}, which {str(group.commit)[:12]} comes before: this would be a downgrade. {hint}"


def _right(system: str, info: Mapping[str, Any]) -> bool:
    """True if the host runs the system, will boot it as far as can be known, and nothing waits: neither guard nor reboot."""
    here = info.get("running") == info.get("profile") == system and info.get("boot_default") in (None, system)
    return here and not info.get("guard") and not info.get("reboot_wanted")
