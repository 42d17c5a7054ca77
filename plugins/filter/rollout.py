# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter plugins of flotilla.nixos over update groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils import late, rollout_record
from ..module_utils.errors import FlotillaError
from ..module_utils.report import change_line
from ..plugin_utils.fleet import update_groups
from ..plugin_utils.group_options import flake_of
from ..plugin_utils.values import plain


def _update_groups(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    try:
        return update_groups(hosts, hostvars)
    except FlotillaError as error:
        raise AnsibleFilterError(str(error)) from None


def at_commits(groups: Iterable[Mapping[str, Any]], locked: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The groups with the commits that flake_lock gave them; without those whose lock failed."""
    results = plain((locked or {}).get("groups") or {})
    found = []
    for group in plain(list(groups)):
        result = results.get(group["name"])
        if result is None:
            found.append(group)
        elif not result.get("failed"):
            found.append({**group, "commit": result["commit"]})
    return found


def with_failed(locked: Mapping[str, Any] | None, cloned: Mapping[str, Any] | None) -> dict[str, Any]:
    """A result of flake_lock with those groups, too, that failed in flake_clone and so never came to it."""
    found = plain(dict(locked or {}))
    failed = {name: result for name, result in plain((cloned or {}).get("groups") or {}).items() if result.get("failed")}
    return {**found, "groups": {**(found.get("groups") or {}), **failed}}


def with_sharing(
    groups: Iterable[Mapping[str, Any]], locked: Mapping[str, Any] | None, others: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The groups with the hosts of the others for which their candidates move inputs, too: they have to build with these."""
    results = plain((locked or {}).get("groups") or {})
    by_name = {other["name"]: other for other in plain(list(others))}
    found = []
    for group in plain(list(groups)):
        sharing = [by_name[name] for name in results.get(group["name"], {}).get("shared") or {} if name in by_name]
        theirs = [host for other in sharing if flake_of(other) == flake_of(group) for host in other["hosts"]]
        found.append({**group, "hosts": [*group["hosts"], *theirs]})
    return found


def built_system(built: Mapping[str, Any] | None, host: str) -> str:
    """The host's system (store path) in a result of flake_build; "" if it has none."""
    for group in ((built or {}).get("groups") or {}).values():
        if host in (group.get("hosts") or {}):
            return str(group["hosts"][host].get("system") or "")
    return ""


def judge_update(locked: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """What became of an update that is not rolled out: groups whose candidate builds, those whose does not, and all in words."""
    good, red, problems, lines = [], [], [], []
    builds = plain(built.get("groups") or {})
    locks = plain(locked.get("groups") or {})
    for name, lock in locks.items():
        if lock.get("failed"):
            problems.append(str(lock.get("msg")))
        elif not lock.get("candidate"):
            lines += [f"{name}: nothing to update", *(f"{name}: {note}" for note in lock.get("notes") or [])]
        elif builds.get(name, {}).get("failed", True):
            red.append(name)
            problems.append(f"{name}: the candidate does not build, and was dropped. {builds.get(name, {}).get('msg', '')}")
        else:
            good.append(name)
            moves = [f"{name}: {change_line(change)}" for change in lock.get("changes") or []]
            lines += [*moves, *(f"{name}: {note}" for note in lock.get("notes") or [])]
            lines += [f"{name}: every host builds at {lock['candidate']}"]
    groups = {
        name: {"candidate": lock.get("candidate"), "commit": lock.get("commit"), "branch": lock.get("branch")}
        for name, lock in locks.items()
    }
    return {"good": good, "red": red, "problems": problems, "lines": lines, "groups": groups}


def wants_reboot(activated: Mapping[str, Any], policy: str, goal: str) -> bool:
    """Whether a host is to be rebooted now. With goal boot, `if_needed` leaves the time of the reboot to the host's owner."""
    if goal not in ("switch", "boot"):
        return False
    if policy == "always":
        return activated.get("outcome") != "unchanged"
    needed = activated.get("reboot_needed") or activated.get("outcome") == "staged_for_boot"
    return policy == "if_needed" and goal == "switch" and bool(needed)


def at_known_good(groups: Iterable[Mapping[str, Any]], ledger: Mapping[str, Any] | None) -> dict[str, Any]:
    """The groups' known-good commits, in the shape of a result of flake_lock. ledger: a result of flake_ledger."""
    return {"groups": late.at_known_good(plain(list(groups)), plain((ledger or {}).get("groups") or {}))}


def running_systems(groups: Iterable[Mapping[str, Any]], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What those of the groups' hosts run that were looked at (flotilla_info)."""
    names = [str(host["name"]) for group in plain(list(groups)) for host in group["hosts"]]
    found = {name: (plain(hostvars[name].get("flotilla_info")) or {}).get("running") for name in names}
    return {name: str(system) for name, system in found.items() if system}


def failed_rollouts(groups: Iterable[Mapping[str, Any]], reason: str) -> list[dict[str, Any]]:
    """What flake_ledger records of a rollout that failed before any host was looked at."""
    return rollout_record.failures(plain(list(groups)), str(reason))


def rollbacks(
    groups: Iterable[Mapping[str, Any]], hostvars: Mapping[str, Mapping[str, Any]], reason: str
) -> list[dict[str, Any]]:
    """What flake_ledger records of hosts that were brought back on demand (flotilla_rolled_back)."""
    found = plain(list(groups))
    names = [str(host["name"]) for group in found for host in group["hosts"]]
    results = {name: plain(hostvars[name].get("flotilla_rolled_back") or {}) for name in names}
    return rollout_record.rollbacks(found, results, str(reason))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "update_groups": _update_groups,
            "at_commits": at_commits,
            "at_known_good": at_known_good,
            "built_system": built_system,
            "with_failed": with_failed,
            "with_sharing": with_sharing,
            "judge_update": judge_update,
            "failed_rollouts": failed_rollouts,
            "rollbacks": rollbacks,
            "running_systems": running_systems,
            "wants_reboot": wants_reboot,
        }
