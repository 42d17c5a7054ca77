# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh options are those of Ansible's own connection plugin, word for word, on the ansible-core that runs this."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_options import SshTarget, store_url


def connection(kind: str = "ssh", password: str | None = None, **variables: Any) -> Any:
    """A connection as Ansible makes it for a host with these variables."""
    context = PlayContext()
    context.remote_addr = variables.get("ansible_host", "web1")
    plugin = connection_loader.get(kind, context)
    plugin.set_options(
        task_keys={"password": password} if password else None, var_options={"inventory_hostname": "web1", **variables}
    )
    return plugin


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"ansible_host": "192.0.2.1", "ansible_port": 2222, "ansible_user": "deploy", "ansible_ssh_timeout": 33},
        {"ansible_ssh_private_key_file": "~/keys/my key", "ansible_host_key_checking": False},
        {"ansible_ssh_common_args": "-J 'jump@bastion:2200' -o ProxyCommand=\"nc -x 'a b' %h\"", "ansible_ssh_extra_args": "-4"},
        {"ansible_ssh_args": "-C -o ControlMaster=auto -o ControlPersist=30s -o ControlPath=/tmp/x-%C"},
        {"ansible_ssh_args": ""},
        {"ansible_ssh_args": "-o ControlMaster=auto"},
        {"ansible_control_path": "%(directory)s/%%h-%%r", "ansible_control_path_dir": "~/.cp"},
        {"ansible_ssh_common_args": "-o ControlPersist=5m", "ansible_ssh_args": "-F none"},
        {"ansible_ssh_password_mechanism": "sshpass"},
    ],
    ids=lambda variables: ",".join(variables) or "nothing set",
)
def test_arguments_are_ansibles_own(variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    plugin = connection(**variables)
    target = SshTarget.from_connection(plugin, "web1")
    assert ["ssh", *target.args] == [word.decode() for word in plugin._build_command("ssh", "ssh")]
    assert target.address == variables.get("ansible_host", "web1")
    assert target.port == variables.get("ansible_port")
    assert target.user == variables.get("ansible_user")


TARGET = SshTarget(
    name="web1",
    address="192.0.2.1",
    user="deploy",
    port=2222,
    args=("-o", "ControlMaster=auto", "-S", "/x", "-M", "-o", 'User="deploy"', "-o", "ProxyCommand=a 'b c'"),
)
ALIVE = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]


def test_a_shared_connection_is_used_but_never_made() -> None:
    batch = ["-o", "BatchMode=yes", "-o", "ControlMaster=no"]
    assert TARGET.ssh_argv("true") == ["ssh", *batch, *TARGET.args, *ALIVE, "192.0.2.1", "true"]


def test_a_fresh_connection_comes_first_among_ssh_options_and_drops_what_ssh_would_obey_anyhow() -> None:
    fresh = ["-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"]
    rest = ["-o", "ControlMaster=auto", "-o", 'User="deploy"', "-o", "ProxyCommand=a 'b c'"]
    assert TARGET.ssh_argv("true", fresh=True) == ["ssh", *fresh, *rest, *ALIVE, "192.0.2.1", "true"]


@pytest.mark.parametrize("fresh", [False, True])
def test_nix_gets_the_same_words(fresh: bool) -> None:
    assert shlex.split(TARGET.nix_sshopts(fresh=fresh)) == list(TARGET.options(fresh=fresh))


def test_another_machine_gets_address_port_and_user_alone() -> None:
    other = TARGET.elsewhere()
    assert other.args == ("-o", "Port=2222", "-o", 'User="deploy"', "-o", "ConnectTimeout=10")
    assert other.address == TARGET.address


@pytest.mark.parametrize(
    ("address", "program", "url"),
    [
        ("web1", (), "ssh-ng://web1"),
        ("fd00::2", (), "ssh-ng://[fd00::2]"),
        ("web1", ("env", "A=b", "nix-daemon"), "ssh-ng://web1?remote-program=env%20A=b%20nix-daemon"),
    ],
)
def test_store_urls(address: str, program: tuple[str, ...], url: str) -> None:
    assert store_url(address, program) == url


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (lambda: connection("local"), "web1: its connection is 'local'"),
        (lambda: connection(ansible_password="x"), "web1: it logs in with a password"),
        (lambda: connection(password="from -k"), "web1: it logs in with a password"),
        (lambda: connection(ansible_host="-oProxyCommand=evil"), "web1: '-oProxyCommand=evil' is not an address"),
        (lambda: connection(ansible_host="a b"), "web1: 'a b' is not an address"),
        (lambda: connection(ansible_host="a;b"), None),
    ],
)
def test_what_cannot_be_carried_over_is_named(plugin: Any, message: str | None) -> None:
    if message is None:
        # No shell sees it: odd, but ssh's own affair.
        assert SshTarget.from_connection(plugin(), "web1").address == "a;b"
        return
    with pytest.raises(BadInput) as caught:
        SshTarget.from_connection(plugin(), "web1")
    assert str(caught.value).startswith(message)
