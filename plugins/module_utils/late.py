# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: which late hosts catch up now, and which cannot."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .outcome import without_subject


@dataclass(slots=True)
class Late:
    """What the ledger's late hosts come to. hosts: those that catch up. unknown: groups whose ledger could not be read.

    lines: all of it for a person to read.
    """

    hosts: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def choose(groups: Iterable[Mapping[str, Any]], ledger: Mapping[str, Mapping[str, Any]], inventory: Collection[str]) -> Late:
    """Who catches up. groups: with those of their hosts that are in the limit; ledger: what flake_ledger says of each.

    A host whose group has proven nothing yet waits: there is nothing that it could be brought to.
    """
    groups = list(groups)
    home = {host["name"]: group["name"] for group in groups for host in group["hosts"]}
    late = Late()
    for group in groups:
        standing = ledger.get(group["name"], {})
        if standing.get("failed"):
            late.unknown.append(group["name"])
            late.lines.append(
                f"{group['name']}: nobody knows who is late: {without_subject(group['name'], str(standing.get('msg')))}"
            )
        for found in standing.get("deferred") or []:
            _place(late, found, home, ledger, group["name"], inventory)
    if not late.lines:
        late.lines.append("No host is late.")
    return late


def _place(
    late: Late,
    found: Mapping[str, Any],
    home: Mapping[str, str],
    ledger: Mapping[str, Mapping[str, Any]],
    group: str,
    inventory: Collection[str],
) -> None:
    host = found["host"]
    told = f"{group}: {host} is late since {found['since']}"
    if host not in inventory:
        late.gone.append(host)
        late.lines.append(f"{told}, and no longer in the inventory")
        return
    if host not in home or host in late.hosts:
        return
    # Where it is now, if it has moved to another group meanwhile.
    standing = ledger[home[host]]
    commit = good_commit(standing)
    if commit is None:
        late.waiting.append(host)
        late.lines.append(f"{told}, and waits: {unproven(home[host], standing)}")
        return
    late.hosts.append(host)
    late.lines.append(f"{told}, and gets {commit[:12]}, which {home[host]} has proven")


def good_commit(standing: Mapping[str, Any]) -> str | None:
    """The commit that a group's result of flake_ledger says is known-good; None without one, or where it is not there.

    One that is there, but that the remote did not take, is as good as any.
    """
    good = (standing.get("known_good") or {}).get("commit")
    if good and standing.get("warnings") and standing.get("known_good_ref") != good:
        return None
    return good or standing.get("known_good_ref")


def unproven(group: str, standing: Mapping[str, Any]) -> str:
    """Why a group has nothing known-good that could be deployed."""
    if standing.get("failed"):
        return str(standing.get("msg"))
    if warnings := standing.get("warnings"):
        return str(warnings[0])
    if soaking := standing.get("soaking"):
        return f"{group} has proven no commit yet; {soaking['commit'][:12]} soaks until {soaking['since']}"
    return f"{group} has proven no commit yet. Roll out its branch first"


def at_known_good(groups: Iterable[Mapping[str, Any]], ledger: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same as flake_lock would give for each group, with its known-good commit; nothing of it can land."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        name, standing = group["name"], ledger.get(group["name"], {})
        commit = good_commit(standing)
        found[name] = {"failed": commit is None, "commit": commit, "candidate": None, "known_good": True, "changes": []}
        if commit is None:
            found[name]["msg"] = f"{name}: {unproven(name, standing)}."
    return found
