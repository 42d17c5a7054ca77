# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the plan and the outcome of a rollout as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from .conclusion import Conclusion
from .gate import Plan, PlannedGroup, PlannedHost
from .outcome import HostOutcome, Outcome


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as aligned columns, with the header first."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def system_name(path: str | None) -> str:
    """A system's store path without the directory, its hash cut to eight characters."""
    if not path:
        return "-"
    digest, _dash, name = PurePosixPath(path).name.partition("-")
    return f"{digest[:8]}-{name}" if name else digest


def plan_lines(plan: Plan) -> list[str]:
    """What the rollout is about to do, for a person to read before it does it."""
    lines = ["", "Rollout plan"]
    for group in plan.groups.values():
        lines += _group_lines(plan, group)
    if not plan.batches:
        return [*lines, "  Nothing to do on any host.", ""]
    for number, batch in enumerate(plan.batches, 1):
        lines.append(f"  batch {number}: {', '.join(batch)}")
    return [*lines, ""]


def _group_lines(plan: Plan, group: PlannedGroup) -> list[str]:
    members = plan.members(group.name)
    commit = f" at {group.commit[:12]}" if group.commit else ""
    kind = f" (candidate on {group.branch})" if group.candidate else " (known-good)" if group.known_good else ""
    lines = [f"  {group.name}: {_count(members)}{commit}{kind}"]
    lines += [f"    {change_line(change)}" for change in group.changes]
    lines += [f"    {note}" for note in group.notes]
    for outcome in (Outcome.UNCHANGED, Outcome.DEFERRED, Outcome.FAILED, Outcome.HELD):
        hosts = [plan.hosts[m] for m in members if plan.hosts[m].outcome is outcome]
        if outcome is Outcome.UNCHANGED and hosts:
            lines.append(f"    unchanged: {', '.join(host.name for host in hosts)}")
        elif group.error and hosts:
            lines.append(f"    failed: {group.error}")
        else:
            lines += [f"  {line}" for line in _reason_lines(HostOutcome(host.name, outcome, host.reason) for host in hosts)]
    return lines


def change_line(change: Mapping[str, Any]) -> str:
    """One input's move: `nixpkgs 2026-11-02 (1a2b3c4) → 2026-11-20 (5d6e7f8)`, with the hosts if it is not for all."""
    hosts = f" on {', '.join(change['hosts'])}" if change.get("hosts") else ""
    return f"{change.get('input')} {_pin(change.get('old'))} → {_pin(change.get('new'))}{hosts}"


def _pin(pin: Mapping[str, Any] | None) -> str:
    if not pin:
        return "none"
    rev = str(pin.get("rev") or pin.get("narHash") or "")[:7]
    modified = pin.get("lastModified")
    day = datetime.fromtimestamp(int(modified), UTC).date().isoformat() if modified else ""
    return f"{day} ({rev})" if day and rev else day or rev or "?"


def outcome_lines(plan: Plan, end: Conclusion, seconds: Mapping[str, float] | None = None) -> list[str]:
    """The truth, host by host and group by group. seconds: how long each host took, if that is known."""
    header = ["host", "group", "outcome", "system"]
    rows = [_outcome_row(host, end.outcomes[host.name]) for host in plan.hosts.values()]
    if seconds:
        header.append("seconds")
        rows = [[*row, f"{seconds[row[0]]:.1f}" if row[0] in seconds else "-"] for row in rows]
    lines = ["", "Rollout result", *(f"  {line}" for line in table(header, rows))]
    lines += _reason_lines(end.outcomes.values())
    for result in end.results:
        if result.group in end.landed:
            lines.append(f"  {result.group}: {end.landed[result.group]}")
        lines += [f"  {result.group}: {note}" for note in plan.groups[result.group].notes if result.accept]
    if all(outcome.outcome is Outcome.UNCHANGED for outcome in end.outcomes.values()):
        lines.append("  Nothing to do: every host runs what it should.")
    if not end.results:
        lines.append("  The run was broken off: candidates were neither landed nor dropped. Run it again to go on.")
    return [*lines, ""]


def _outcome_row(host: PlannedHost, outcome: HostOutcome) -> list[str]:
    return [host.name, host.group, _words(outcome.outcome), _systems(host.previous, host.system, outcome.outcome)]


def _reason_lines(outcomes: Iterable[HostOutcome]) -> list[str]:
    """One line for each outcome and reason, whoever shares it."""
    hosts: dict[tuple[Outcome, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.reason:
            hosts.setdefault((outcome.outcome, outcome.reason), []).append(outcome.host)
    return [f"  {', '.join(names)} {_words(kind)}: {_indented(reason)}" for (kind, reason), names in hosts.items()]


def _systems(old: str | None, new: str | None, outcome: Outcome) -> str:
    if old != new and outcome in (Outcome.UPDATED, Outcome.REBOOTED, Outcome.STAGED, Outcome.PLANNED, Outcome.COPIED):
        return f"{system_name(old)} → {system_name(new)}"
    return system_name(old)


def _words(outcome: Outcome) -> str:
    return outcome.replace("_", " ")


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n      ")


def _count(hosts: Sequence[str]) -> str:
    return f"{len(hosts)} host" if len(hosts) == 1 else f"{len(hosts)} hosts"
