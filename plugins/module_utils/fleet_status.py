# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what each host runs beside what it should run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from .outcome import without_subject
from .report import system_name, table


class Standing(StrEnum):
    """A host beside what the repository says."""

    CURRENT = "current"  # runs and boots what the repository says
    BEHIND = "behind"  # runs another system
    PENDING = "pending"  # runs it, but does not boot it, or the other way round, or a guard is armed
    UNKNOWN = "unknown"  # what it should run could not be evaluated
    UNREACHABLE = "unreachable"
    FAILED = "failed"  # could not be looked at


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host. since: when the running system was activated, in seconds since 1970; lock_age: in days."""

    host: str
    group: str
    standing: Standing
    running: str | None = None
    wanted: str | None = None
    since: int | None = None
    lock_age: float | None = None
    reboot_needed: bool = False
    failed_units: tuple[str, ...] = ()
    note: str = ""


def host_status(host: str, group: str, build: Mapping[str, Any], pins: Mapping[str, Any], info: Mapping[str, Any]) -> HostStatus:
    """A host's status from the results of flake_build, of flake_info for its group, and of system_info."""
    wanted, age = build.get("system"), _lock_age(host, pins)
    if not info or info.get("unreachable") or not info.get("reachable", True):
        why = without_subject(host, str(info.get("msg") or "it could not be reached"))
        return HostStatus(host, group, Standing.UNREACHABLE, wanted=wanted, lock_age=age, note=why)
    if info.get("failed"):
        why = without_subject(host, str(info.get("msg") or "it could not be looked at"))
        return HostStatus(host, group, Standing.FAILED, wanted=wanted, lock_age=age, note=why)
    return HostStatus(
        host,
        group,
        _standing(wanted, info),
        running=info.get("running"),
        wanted=wanted,
        since=info.get("since"),
        lock_age=age,
        reboot_needed=bool(info.get("reboot_needed")),
        failed_units=tuple(info.get("failed_units") or ()),
        note=_note(host, build, info),
    )


def _lock_age(host: str, pins: Mapping[str, Any]) -> float | None:
    """The age of the lock that is this host's."""
    own = [lock for lock in (pins.get("locks") or {}).values() if host in (lock.get("hosts") or ())]
    age = own[0].get("age") if len(own) == 1 else pins.get("lock_age")
    return None if age is None else float(age)


def _note(host: str, build: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    if not build.get("system"):
        return without_subject(host, str(build.get("error") or "what it should run is not known"))
    behind = _standing(build["system"], info) is Standing.BEHIND
    return "" if behind else "; ".join(info.get("drift") or ())


def _standing(wanted: str | None, info: Mapping[str, Any]) -> Standing:
    if not wanted:
        return Standing.UNKNOWN
    places = [info.get("running"), info.get("profile"), info.get("boot_default") or wanted]
    if info.get("guard") or (wanted in places and any(place != wanted for place in places)):
        return Standing.PENDING
    return Standing.CURRENT if info.get("running") == wanted else Standing.BEHIND


def status_lines(hosts: Sequence[HostStatus]) -> list[str]:
    """The statuses as a table, and below it what does not fit into one."""
    header = ("host", "group", "state", "runs", "since", "lock", "reboot", "failed units")
    lines = table(header, [_row(host) for host in hosts])
    lines += [f"{host.host}: should run {system_name(host.wanted)}" for host in hosts if host.standing is Standing.BEHIND]
    lines += [f"{host.host}: {host.note}" for host in hosts if host.note]
    return ["", *(f"  {line}" for line in lines), ""]


def _row(host: HostStatus) -> tuple[str, ...]:
    return (
        host.host,
        host.group,
        host.standing,
        system_name(host.running),
        datetime.fromtimestamp(host.since, UTC).strftime("%Y-%m-%d %H:%M") if host.since else "-",
        f"{host.lock_age:.0f} d" if host.lock_age is not None else "-",
        "needed" if host.reboot_needed else "-",
        ", ".join(host.failed_units) or "-",
    )
