# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: from inventory hosts and their variables to update groups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..module_utils.clones import checked_url, clone_path, is_url
from ..module_utils.errors import BadInput, masked
from ..module_utils.holds import as_options, parse_holds
from ..module_utils.update_group import HOST, lock_for_each_host
from .values import plain

#: The fields of an update group that variables may set; every host of a group must agree on them.
FIELDS = ("repo", "strategy", "branch", "flake", "lock", "inputs")
_VARIABLES = {**{field: f"flotilla_{field}" for field in FIELDS}, "holds": "flotilla_hold"}

#: Where clones of ours are, on the controller and on another builder.
_CLONES_HERE = "~/.local/state/flotilla/clones"
_CLONES_THERE = "/var/lib/flotilla/clones"


def update_groups(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The update groups of these hosts, in the shape of the option `groups` of the builder's modules.

    Raises BadInput naming the host if it is in no update group or in two, or if hosts of one group disagree.
    """
    groups: dict[str, dict[str, Any]] = {}
    for host in map(str, hosts):
        variables = hostvars[host]
        name = group_of(host, variables)
        fields = _fields(host, variables, hostvars)
        group = groups.setdefault(name, {"name": name, **fields, "hosts": []})
        _agree(name, group, fields, host)
        group["hosts"].append({"name": host, "attribute": _attribute(host, variables)})
    return list(groups.values())


def with_others(
    groups: Iterable[Mapping[str, Any]], others: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The same groups with those of the other hosts that have the same lock, too. Hosts without a group are passed over."""
    whole = {group["name"]: {**group, "hosts": list(group["hosts"])} for group in groups}
    shared = {name for name, group in whole.items() if not lock_for_each_host(group.get("strategy"), group.get("lock"))}
    for host in others:
        try:
            name = group_of(host, hostvars[host])
        except BadInput:
            continue
        if name in shared:
            whole[name]["hosts"].append({"name": host, "attribute": _attribute(host, hostvars[host])})
    return list(whole.values())


def other_groups(
    groups: Iterable[Mapping[str, Any]], others: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The update groups of the other hosts, but for these groups. Hosts without a group or repository are passed over.

    Where hosts of one disagree, its first one counts: what is wrong with a group that nobody asked for is not reported here.
    """
    known = {group["name"] for group in groups}
    found: dict[str, dict[str, Any]] = {}
    for host in others:
        variables = hostvars[host]
        try:
            name = group_of(host, variables)
            if name not in known:
                group = found.get(name) or {"name": name, **_fields(host, variables, hostvars), "hosts": []}
                group["hosts"].append({"name": host, "attribute": _attribute(host, variables)})
                found[name] = group
        except BadInput:
            continue
    return list(found.values())


def members(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """The hosts of each update group, by name. Hosts without a group are passed over."""
    found: dict[str, frozenset[str]] = {}
    for host in map(str, hosts):
        with contextlib.suppress(BadInput):
            name = group_of(host, hostvars[host])
            found[name] = found.get(name, frozenset()) | {host}
    return found


def group_of(host: str, variables: Mapping[str, Any]) -> str:
    """The host's update group: flotilla_update_group, or the one of its inventory groups that flotilla_update_groups lists."""
    named = _value(variables, "flotilla_update_group")
    listed = _value(variables, "flotilla_update_groups")
    inside = [group for group in plain(variables.get("group_names", [])) if group in (listed or [])]
    if len(inside) > 1:
        raise BadInput(
            host,
            f"the host is in {len(inside)} update groups: {', '.join(inside)}",
            "A host has one lock, so leave it in one of them.",
        )
    if named and listed and inside and inside[0] != named:
        raise BadInput(
            host,
            f"flotilla_update_group says {named!r}, and the inventory has the host in {inside[0]!r}",
            "Move the host, or remove the variable.",
        )
    if not named and not inside:
        among = f" (flotilla_update_groups: {', '.join(listed)})" if listed else ""
        raise BadInput(
            host,
            f"the host is in no update group{among}",
            "Set flotilla_update_group for its inventory group, or leave the host out with -l.",
        )
    return str(named or inside[0])


def repository_above(path: str) -> str:
    """The git work tree that holds this directory; the directory itself if there is none (git will then say so)."""
    start = Path(path)
    return str(next((p for p in (start, *start.parents) if (p / ".git").exists()), start))


def _fields(host: str, variables: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    fields = {field: _value(variables, variable) for field, variable in _VARIABLES.items()}
    fields["holds"] = as_options(parse_holds(host, fields["holds"])) or None
    if not fields["repo"]:
        inventory = _value(variables, "inventory_dir")
        if not inventory:
            raise BadInput(
                host, "the repository is not known", "Set flotilla_repo to the path of the git work tree on the builder."
            )
        fields["repo"] = repository_above(str(inventory))
    elif is_url(str(fields["repo"])):
        fields |= _clone(checked_url(str(fields["repo"])), variables, hostvars)
    return {field: value for field, value in fields.items() if value not in (None, "")}


def _clone(url: str, variables: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Where the clone of a URL is on the builder. A password stays where the user has put it; see whole_url."""
    builder = str(_value(variables, "flotilla_builder") or "localhost")
    connection = hostvars[builder].get("ansible_connection", "ssh") if builder in hostvars else "local"
    here = builder in ("localhost", "127.0.0.1", "::1") or str(connection).endswith("local")
    folder = str(_value(variables, "flotilla_clones") or (_CLONES_HERE if here else _CLONES_THERE))
    path = clone_path(url, os.path.expanduser(os.path.expandvars(folder)) if here else folder)
    return {"repo": path, "remote": masked(url)}


def whole_url(group: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]]) -> str:
    """The URL of a group's repository with the password that its hosts' variables have in it."""
    given = (str(_value(hostvars[host["name"]], "flotilla_repo")) for host in group["hosts"] if host["name"] in hostvars)
    return next((url for url in given if masked(url) == group["remote"]), str(group["remote"]))


def _attribute(host: str, variables: Mapping[str, Any]) -> str:
    return str(_value(variables, "flotilla_attribute") or host)


def _value(variables: Mapping[str, Any], name: str) -> Any:
    return plain(variables.get(name))


def _agree(name: str, group: Mapping[str, Any], fields: Mapping[str, Any], host: str) -> None:
    for field, variable in _VARIABLES.items():
        if group.get(field) != fields.get(field):
            first = group["hosts"][0]["name"]
            own = (
                f" (for a lock per host, write {HOST} where its name is to be, as in locks/{HOST}.lock)"
                if field == "lock"
                else ""
            )
            raise BadInput(
                name,
                f"its hosts disagree on {variable}: {first} has {group.get(field)!r}, {host} has {fields.get(field)!r}",
                f"An update group has one lock: set the variable for the group, not for a host{own}.",
            )
