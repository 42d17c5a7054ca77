# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: which hosts and groups a user wants, from an option as people write it, or from the inventory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.errors import BadInput
from ..module_utils.group_layout import GroupWish, HostWish
from .values import plain

_GROUP_KEYS = ("hosts", "inputs", "modules", "system")
_HOST_KEYS = ("name", "address", "attribute", "modules", "system")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def wished_groups(given: Mapping[str, Any]) -> tuple[GroupWish, ...]:
    """The groups of the option: each a list of hosts, or a mapping that has one; BadInput for what is neither."""
    if not given:
        raise BadInput("groups", "there are none", 'Name some: {"servers": ["web1"], "sbcs": ["pi-1", "pi-2"]}.')
    return tuple(_group(str(name), value) for name, value in given.items())


def _group(name: str, value: Any) -> GroupWish:
    fields: Any = {"hosts": value} if isinstance(value, (list, str)) else value
    _require_keys(f"group {name}", fields, _GROUP_KEYS)
    hosts = fields.get("hosts", [])
    listed = [hosts] if isinstance(hosts, str) else hosts
    if not isinstance(listed, Sequence):
        raise BadInput(f"group {name}", "its hosts are no list", "Write them as [one, two].")
    return GroupWish(
        name,
        tuple(_host(name, host) for host in listed),
        inputs=_mapping(f"group {name}", "inputs", fields.get("inputs")),
        modules=_texts(f"group {name}", "modules", fields.get("modules")),
        system=fields.get("system"),
    )


def _host(group: str, value: Any) -> HostWish:
    fields: Any = {"name": value} if isinstance(value, str) else value
    _require_keys(f"a host of group {group}", fields, _HOST_KEYS)
    if not isinstance(fields.get("name"), str):
        raise BadInput(f"group {group}", "one of its hosts has no name", "Write its name, or {name: …, address: …}.")
    modules = _texts(f"host {fields['name']}", "modules", fields.get("modules"))
    return HostWish(fields["name"], fields.get("attribute"), modules, fields.get("system"))


def _require_keys(subject: str, fields: Any, keys: Sequence[str]) -> None:
    if not isinstance(fields, Mapping):
        raise BadInput(subject, f"{fields!r} cannot be used", f"Write a mapping of {', '.join(keys)}.")
    if unknown := sorted(set(map(str, fields)) - set(keys)):
        raise BadInput(subject, f"there is no {', '.join(unknown)}", f"Use {', '.join(keys)}.")
    for key in ("system", "attribute", "address"):
        if fields.get(key) is not None and not isinstance(fields[key], str):
            raise BadInput(subject, f"its {key} {fields[key]!r} is not text", "Put it into quotes.")


def _texts(subject: str, name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadInput(subject, f"its {name} are no list of texts", "Write them as [one, two].")
    return tuple(value)


def _mapping(subject: str, name: str, value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise BadInput(subject, f"its {name} are no mapping", "Write them as {nixpkgs: URL}.")
    return None if value is None else dict(value)


def inventory_groups(task_vars: Mapping[str, Any]) -> tuple[GroupWish, ...]:
    """The inventory's groups with their hosts, each of which is in one; hosts that are in none are left out."""
    found: dict[str, list[str]] = {}
    hostvars = task_vars.get("hostvars", {})
    for host in map(str, task_vars.get("groups", {}).get("all", [])):
        names = [str(name) for name in plain(hostvars[host].get("group_names", [])) if name != "ungrouped"]
        named = plain(hostvars[host].get("flotilla_update_group"))
        update_groups = plain(hostvars[host].get("flotilla_update_groups")) or names
        inside = [str(named)] if named else [name for name in names if name in update_groups]
        if host in _LOCAL or not inside:
            continue
        if len(inside) > 1:
            raise BadInput(
                host,
                f"the inventory has it in {', '.join(inside)}, and which of these is its update group is not known",
                "List the update groups in the inventory's flotilla_update_groups, or give flotilla_groups.",
            )
        found.setdefault(inside[0], []).append(host)
    return tuple(GroupWish(name, tuple(map(HostWish, hosts))) for name, hosts in found.items())


def addresses_of(given: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, str]:
    """The addresses that are known: the inventory's, and those that the option has."""
    hostvars = task_vars.get("hostvars", {})
    hosts = [str(host) for host in task_vars.get("groups", {}).get("all", [])]
    known = {host: str(hostvars[host]["ansible_host"]) for host in hosts if "ansible_host" in hostvars[host]}
    for value in given.values():
        listed = value.get("hosts", []) if isinstance(value, Mapping) else value
        known |= {h["name"]: h["address"] for h in listed if isinstance(h, Mapping) and h.get("address") and h.get("name")}
    return known
