# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what each update group has proven, who of it is late, and what is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .holds import parse_holds


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One update group. last: its last rollout, without hosts. known_good, soaking, growing, deferred: as flake_ledger says."""

    group: str
    known_good: Mapping[str, Any] | None
    soaking: Mapping[str, Any] | None
    growing: Mapping[str, Any] | None
    last: Mapping[str, Any] | None
    deferred: Sequence[Mapping[str, Any]]
    holds: Sequence[Mapping[str, Any]]
    note: str = ""


#: What is said of the last rollout; the ledger has the rest.
_TOLD = ("id", "outcome", "reason", "forced", "commit", "source", "goal", "branch", "landed", "by", "started", "ended")


def group_status(group: Mapping[str, Any], ledger: Mapping[str, Any], now: float) -> GroupStatus:
    """A group's status from its result of flake_ledger. group: as rollout_scope gives it."""
    last = next(iter(ledger.get("rollouts") or []), None)
    holds = parse_holds(group["name"], group.get("holds"))
    return GroupStatus(
        group["name"],
        ledger.get("known_good"),
        ledger.get("soaking"),
        ledger.get("growing"),
        last and {key: last[key] for key in _TOLD if key in last},
        list(ledger.get("deferred") or []),
        [
            {"input": hold.input, "reason": hold.reason, "until": hold.until.isoformat(), "expired": hold.over(now)}
            for hold in holds
        ],
        "; ".join([str(ledger["msg"])] if ledger.get("failed") else ledger.get("warnings") or []),
    )


def group_lines(groups: Sequence[GroupStatus]) -> list[str]:
    """The statuses for a person to read."""
    return [line for group in groups for line in (*_lines(group), "")]


def _lines(group: GroupStatus) -> list[str]:
    lines = [f"  {group.group}: known-good {_commit(group.known_good, 'proven')}"]
    if group.soaking:
        lines.append(f"    soaking: {_commit(group.soaking, 'proven')}, known-good from {minute(group.soaking['since'])}")
    if part := group.growing:
        missing = ", ".join(part["missing"])
        lines.append(f"    partly rolled out: {part['commit'][:12]} runs on {', '.join(part['systems'])}, not yet on {missing}")
    if group.last:
        lines.append(f"    last rollout: {_rollout(group.last)}")
    for late in group.deferred:
        missed = "1 rollout" if late["missed"] == 1 else f"{late['missed']} rollouts"
        why = f" ({late['reason']})" if late["reason"] else ""
        lines.append(f"    late: {late['host']} since {minute(late['since'])}, missed {missed}{why}")
    for hold in group.holds:
        what = hold["input"] or "the whole group"
        until = f"expired {hold['until']}, so it holds no longer" if hold["expired"] else f"until {hold['until']}"
        lines.append(f"    held: {what} {until}: {hold['reason']}")
    return [*lines, *([f"    {group.note}"] if group.note else [])]


def _commit(proof: Mapping[str, Any] | None, when: str) -> str:
    return f"{proof['commit'][:12]} ({minute(proof[when])})" if proof else "none yet"


def _rollout(line: Mapping[str, Any]) -> str:
    words = [str(line["outcome"]).replace("_", " ")]
    if line["outcome"] == "broken_off":
        words = ["goes on, or was broken off"]
    who = "@".join(str(line["by"][key]) for key in ("user", "controller") if line["by"].get(key))
    words.append(f"of {line['commit'][:12]} ({str(line['source']).replace('_', '-')})")
    words.append(f"{'since' if line['outcome'] == 'broken_off' else 'at'} {minute(line['ended'])}")
    words += [f"by {who}"] if who else []
    reason = f": {line['reason']}" if line["reason"] and line["outcome"] != "broken_off" else ""
    forced = f" (forced: {line['forced']})" if line.get("forced") else ""
    return f"{' '.join(words)}{reason}{forced}"


def minute(time: str) -> str:
    """A time of the ledger (`2026-11-20T08:00:00Z`) without its seconds, as the tables have it."""
    return time[:16].replace("T", " ")
