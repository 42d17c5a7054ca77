# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: connections of an action to another inventory host than its task's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..module_utils.errors import BadInput
from .runners import LocalRunner
from .ssh_options import SshTarget
from .sweep import Presence, SweepResult, sweep, sweep_targets


def is_controller(host: str, task_vars: Mapping[str, Any]) -> bool:
    """True for localhost, and for a host whose connection is local."""
    variables = task_vars.get("hostvars", {})
    known = host in variables
    if not known and host not in ("localhost", "127.0.0.1", "::1"):
        raise BadInput(host, "there is no such host in the inventory", "Name an inventory host, or localhost.")
    implicit = "local" if host in ("localhost", "127.0.0.1", "::1") else "ssh"
    return str(variables[host].get("ansible_connection", implicit) if known else implicit).endswith("local")


def connection_to(action: ActionBase, host: str, task_vars: Mapping[str, Any]) -> Any:
    """A connection as Ansible would make it for that host, from its variables; without become."""
    variables = task_vars["hostvars"][host]
    kind = str(variables.get("ansible_connection", "ssh"))
    context = copy.copy(action._play_context)
    context.remote_addr = str(variables.get("ansible_host", host))
    connection = action._shared_loader_obj.connection_loader.get(kind, context)
    if connection is None:
        raise BadInput(host, f"there is no connection plugin {kind!r}", "Correct its ansible_connection.")
    for kind_of_plugin, plugin in (("connection", connection), ("shell", connection._shell)):
        names = constants.config.get_plugin_vars(kind_of_plugin, plugin._load_name)
        given = {name: variables[name] for name in (*names, "inventory_hostname") if name in variables}
        plugin.set_options(task_keys={"timeout": context.timeout}, var_options={"inventory_hostname": host} | given)
    return connection


def over(action: ActionBase, connection: Any) -> ActionBase:
    """The same action as if its task were for the other end of that connection."""
    other = copy.copy(action)
    other._connection = connection
    return other


def sweep_hosts(
    action: ActionBase, hosts: Sequence[str], task_vars: Mapping[str, Any], timeout: float | None = 5.0, workers: int = 64
) -> dict[str, SweepResult]:
    """Who of these inventory hosts is there, and with which host key, by name in the order given; see sweep.

    One whose connection is local is here; one that ssh does not reach with a key is unknown.
    """
    results: dict[str, SweepResult] = {}
    targets: list[SshTarget] = []
    for host in hosts:
        try:
            kind = _connection_kind(action, host, task_vars)
            if kind == "local":
                results[host] = SweepResult(host, Presence.HERE)
            elif kind not in ("ssh", "smart"):
                results[host] = SweepResult(host, Presence.UNKNOWN, message=f"{host}: its connection is {kind!r}.")
            else:
                targets.append(SshTarget.from_connection(connection_to(action, host, task_vars), host))
        except (BadInput, AnsibleError) as error:
            results[host] = SweepResult(host, Presence.UNKNOWN, message=str(error))
    results |= sweep(sweep_targets(targets, LocalRunner()), timeout, workers)
    return {host: results[host] for host in hosts}


def _connection_kind(action: ActionBase, host: str, task_vars: Mapping[str, Any]) -> str:
    """The host's own variable, else what play and command line (-c) say."""
    if is_controller(host, task_vars):
        return "local"
    given = task_vars["hostvars"][host].get("ansible_connection", action._task.connection or "ssh")
    return str(given).removeprefix("ansible.builtin.")
