# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to other inventory hosts than the task's own, and sweeping them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.plugin_utils.machines import connection_to, is_controller, over, sweep_hosts
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_messages import SshProblem
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_options import SshTarget
from ansible_collections.flotilla.nixos.plugins.plugin_utils.sweep import Presence

HOSTVARS: dict[str, dict[str, Any]] = {
    "here": {"ansible_connection": "local"},
    "build1": {"ansible_host": "192.0.2.7", "ansible_user": "nix", "ansible_port": 2222, "ansible_ssh_common_args": "-J bastion"},
    "closed": {"ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_ssh_args": "-F none"},
    "container": {"ansible_connection": "community.docker.docker"},
    "password": {"ansible_host": "127.0.0.1", "ansible_password": "x"},
}
TASK_VARS = {"hostvars": HOSTVARS, "inventory_hostname": "target"}


@pytest.fixture
def action() -> Any:
    context = PlayContext()
    context.remote_addr = "203.0.113.1"
    return SimpleNamespace(
        _play_context=context,
        _shared_loader_obj=SimpleNamespace(connection_loader=connection_loader),
        _connection="its own",
        _task=SimpleNamespace(connection="ssh"),
    )


def test_a_connection_is_made_from_the_other_hosts_variables(action: Any) -> None:
    target = SshTarget.from_connection(connection_to(action, "build1", TASK_VARS), "build1")
    assert (target.address, target.user, target.port) == ("192.0.2.7", "nix", 2222)
    assert " -J bastion " in f" {' '.join(target.args)} "
    assert action._play_context.remote_addr == "203.0.113.1", "the task's own host was to stay as it is"


def test_an_action_over_another_connection_is_another_action(action: Any) -> None:
    other = over(action, "another")
    assert (other._connection, action._connection) == ("another", "its own")


def test_a_sweep_says_of_each_host_what_it_can(action: Any) -> None:
    found = sweep_hosts(action, ["password", "here", "closed", "container"], TASK_VARS, timeout=2)
    assert [(name, result.presence) for name, result in found.items()] == [
        ("password", Presence.UNKNOWN),
        ("here", Presence.HERE),
        ("closed", Presence.ABSENT),
        ("container", Presence.UNKNOWN),
    ]
    assert found["closed"].surely_away
    assert found["closed"].problem is SshProblem.REFUSED
    assert str(found["password"].message).startswith("password: it logs in with a password")


@pytest.mark.parametrize(
    ("host", "hostvars", "expected"),
    [
        ("localhost", {}, True),
        ("localhost", {"localhost": {}}, True),
        ("localhost", {"localhost": {"ansible_connection": "ssh"}}, False),
        ("build1", {"build1": {}}, False),
        ("build1", {"build1": {"ansible_connection": "local"}}, True),
        ("build1", {"build1": {"ansible_connection": "ansible.builtin.local"}}, True),
    ],
)
def test_who_is_the_controller(host: str, hostvars: dict[str, dict[str, str]], expected: bool) -> None:
    assert is_controller(host, {"hostvars": hostvars}) is expected


def test_a_host_that_is_not_in_the_inventory_is_named() -> None:
    with pytest.raises(
        BadInput, match=r"^nobody: there is no such host in the inventory\. Name an inventory host, or localhost\.$"
    ):
        is_controller("nobody", {"hostvars": {}})
