# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: whether what an update group runs may go on to another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import git
from .durations import in_words
from .errors import BadInput
from .git_branches import branches
from .outcome import without_subject


@dataclass(frozen=True, slots=True)
class Seen:
    """A host of the source as it is now: what system_info found, and units whose failure does not count."""

    info: Mapping[str, Any]
    ignored: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Proven:
    """What may be promoted. commit None: nothing is proven, so the head of the branch. against: what speaks against it."""

    commit: str | None
    against: tuple[str, ...] = ()
    hint: str = ""


def proven(standing: Mapping[str, Any], seen: Mapping[str, Seen], now: int) -> Proven:
    """What a group may pass on. standing: its result of flake_ledger. seen: its hosts of the inventory, by name."""
    if soaks := standing.get("soaking"):
        left = in_words(int(datetime.fromisoformat(soaks["since"]).timestamp()) - now)
        what = f"commit {soaks['commit'][:12]} soaks until {soaks['since']} ({left} left)"
        return Proven(soaks["commit"], (what, *_unwell(soaks["systems"], seen)), "Wait until then.")
    good = standing.get("known_good")
    if part := standing.get("growing"):
        others = {name: system for name, system in good["systems"].items() if name not in part["systems"]} if good else {}
        against = (_mixed(part), *(_unwell(others, seen) if others else ()))
        hint = "Roll it out to all hosts of the group, or bring those that have it back."
        return Proven(good and good["commit"], against, hint)
    if good is None:
        return Proven(None, (_nothing(standing),), "Roll it out first, to every host that is there.")
    against = _unwell(good["systems"], seen)
    return Proven(good["commit"], against, "Mend them, or bring them back with a rollout." if against else "")


def _mixed(part: Mapping[str, Any]) -> str:
    """That some hosts run one commit and others another, naming each."""
    found: dict[str | None, list[str]] = {part["commit"]: list(part["systems"])}
    for name, commit in part["missing"].items():
        found.setdefault(commit, []).append(name)
    runs = [
        f"{', '.join(names)} {'run' if len(names) > 1 else 'runs'} {f'commit {commit[:12]}' if commit else 'nobody knows what'}"
        for commit, names in found.items()
    ]
    return f"its hosts run different commits: {'; '.join(runs)}"


def _nothing(standing: Mapping[str, Any]) -> str:
    rollouts = standing.get("rollouts") or []
    if not rollouts:
        return "it has proven nothing yet: no rollout of it is recorded"
    last = rollouts[0]
    why = f": {last['reason']}" if last.get("reason") else ""
    return f"it has proven nothing yet: its last rollout, of {last['ended']}, was {last['outcome'].replace('_', ' ')}{why}"


def _unwell(systems: Mapping[str, str | None], seen: Mapping[str, Seen]) -> tuple[str, ...]:
    """What is wrong with the hosts that are to show it. Those that have left the inventory show nothing any more."""
    here = [name for name in systems if name in seen]
    if not here:
        return (f"none of the hosts that proved it ({', '.join(systems) or 'none'}) is in the group any more",)
    return tuple(f"{name} {problem}" for name in here if (problem := _problem(name, systems[name], seen[name])))


def _problem(name: str, system: str | None, seen: Seen) -> str:
    info = seen.info
    if info.get("failed") or not info.get("reachable"):
        return f"could not be looked at ({without_subject(name, str(info.get('msg') or 'no reason was given')).rstrip('.')})"
    if info.get("running") != system:
        return f"runs {info.get('running')}, and what it has proven is {system}"
    if info.get("guard"):
        return f"is in the middle of an activation or restart by {info['guard'].get('owner') or 'somebody'}"
    failed = [unit for unit in info.get("failed_units") or [] if unit not in set(seen.ignored)]
    return f"has failed units ({', '.join(failed)})" if failed else ""


def require_proven(group: str, found: Proven, reason: str) -> str:
    """BadInput if anything speaks against it and no reason is given to go on; else what to record, "" if nothing does."""
    if not found.against:
        return ""
    what = "; ".join(found.against)
    if reason:
        return f"{reason} (although {what})"
    hint = f'{found.hint} To go on all the same: -e flotilla_force_reason="why".'
    raise BadInput(group, f"what it runs must not be promoted: {what}", hint)


def branch_commit(repo: git.Repository, branch: str | None, groups: Collection[str]) -> str:
    """The head of a branch (None: of the one that is checked out); BadInput that names groups and branches if there is none."""
    if commit := git.commit_of(repo, f"refs/heads/{branch}" if branch else "HEAD"):
        return commit
    raise BadInput(
        f"promotion from {branch}",
        f"there is neither an update group of that name ({', '.join(groups)}) nor a branch in {repo.path}",
        f"Its branches are {', '.join(branches(repo)) or 'none'}.",
    )
