# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe and the sweep against real sshds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.plugin_utils.probe import probe
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_messages import SshProblem
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_options import SshTarget
from ansible_collections.flotilla.nixos.plugins.plugin_utils.sweep import Presence, sweep, sweep_targets
from testbed import Fleet, Host
from testbed.commands import run
from testbed.playbooks import Ansible

RUNNER = LocalRunner()


def ssh_target(fleet: Fleet, host: Host, *more: str, known_hosts: Path | None = None, user: str = "root") -> SshTarget:
    """As from a connection with the fleet's key and known hosts."""
    known = known_hosts or fleet.folder / "known_hosts"
    options = [f"UserKnownHostsFile={known}", f'IdentityFile="{fleet.folder}/key"', f'User="{user}"', "ConnectTimeout=5"]
    words = tuple(word for option in options for word in ("-o", option))
    return SshTarget(host.name, host.address, user=user, timeout=5, args=("-F", "none", *more, *words))


@pytest.fixture
def target(hosts: Callable[..., list[Host]]) -> Host:
    return hosts("ssh1")[0]


@pytest.fixture
def wrong_key(target: Host, tmp_path: Path) -> Path:
    """A known_hosts with another key for the host."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"])
    (tmp_path / "known").write_text(f"{target.address} {(tmp_path / 'other.pub').read_text()}")
    return tmp_path / "known"


@pytest.fixture
def no_listener(target: Host) -> Iterator[None]:
    """sshd takes no new connections; those that there are go on."""
    target.inside(["systemctl", "stop", "sshd.socket", "sshd.service"], check=False)
    yield
    target.inside(["systemctl", "start", "sshd.service"])


def test_the_probe_sees_what_runs(fleet: Fleet, target: Host) -> None:
    running = target.run(["readlink", "-f", "/run/current-system"]).stdout.strip()
    found = probe(ssh_target(fleet, target), running, 10, RUNNER)
    assert found.good, found.message
    assert found.running == running
    other = probe(ssh_target(fleet, target), "/nix/store/other", 10, RUNNER)
    assert (other.reachable, other.message) == (True, f"ssh1: it runs {running}, not /nix/store/other.")


def test_a_shared_connection_does_not_hide_a_dead_sshd(
    fleet: Fleet, target: Host, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shared = ssh_target(fleet, target, "-o", "ControlMaster=auto", "-o", "ControlPersist=30", "-o", f"ControlPath={tmp_path}/cp")
    # ssh's master is left behind: as Ansible does it, with options that we never use.
    run(["ssh", *shared.args, "-f", "-N", target.address])
    try:
        request.getfixturevalue("no_listener")
        assert RUNNER.run(shared.ssh_argv("echo alive")).stdout == "alive\n", "the shared connection was to go on"
        found = probe(shared, None, 10, RUNNER)
        assert (found.reachable, found.problem) == (False, SshProblem.REFUSED)
        assert found.message is not None
        assert found.message.startswith("ssh1: nothing listens on its ssh port (ssh: connect to host")
    finally:
        RUNNER.run(shared.control_argv("exit"))


def test_why_nobody_gets_in_is_told_apart(fleet: Fleet, target: Host, wrong_key: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    stranger = ssh_target(fleet, target, user="nobody")
    target.inside(["usermod", "-s", "/bin/false", "deploy"])
    try:
        found = {
            "changed": probe(ssh_target(fleet, target, known_hosts=wrong_key), None, 10, RUNNER),
            "unknown": probe(ssh_target(fleet, target, known_hosts=tmp_path / "empty"), None, 10, RUNNER),
            "denied": probe(stranger, None, 10, RUNNER),
            "shell": probe(ssh_target(fleet, target, user="deploy"), None, 10, RUNNER),
            "name": probe(replace(stranger, address="no-such-host.invalid"), None, 10, RUNNER),
        }
    finally:
        target.inside(["usermod", "-s", "/bin/bash", "deploy"])
    assert {name: result.problem for name, result in found.items()} == {
        "changed": SshProblem.HOST_KEY_CHANGED,
        "unknown": SshProblem.HOST_KEY_UNKNOWN,
        "denied": SshProblem.DENIED,
        "shell": SshProblem.SHELL,
        "name": SshProblem.NO_NAME,
    }


def test_a_cut_link_is_a_timeout_or_no_way(fleet: Fleet, target: Host) -> None:
    fleet.fault(target.name, "link-down")
    try:
        found = probe(ssh_target(fleet, target), None, 3, RUNNER)
    finally:
        fleet.fault(target.name, "link-up")
    assert found.problem in (SshProblem.TIMEOUT, SshProblem.NO_ROUTE)
    assert found.seconds < 5


def test_a_sweep_finds_a_changed_key_and_who_is_not_there(
    fleet: Fleet, hosts: Callable[..., list[Host]], wrong_key: Path
) -> None:
    target, other = hosts("ssh1", "ssh2")
    targets = [
        ssh_target(fleet, target),
        replace(ssh_target(fleet, target, known_hosts=wrong_key), name="changed"),
        replace(ssh_target(fleet, target, "-o", "Port=2299"), name="closed"),
        replace(ssh_target(fleet, target, "-J", "bastion"), name="behind"),
        ssh_target(fleet, other),
    ]
    fleet.fault(other.name, "link-down")
    try:
        found = sweep(sweep_targets(targets, RUNNER), timeout=2)
    finally:
        fleet.fault(other.name, "link-up")
    assert {name: result.presence for name, result in found.items()} == {
        "ssh1": Presence.HERE,
        "changed": Presence.KEY_CHANGED,
        "closed": Presence.ABSENT,
        "behind": Presence.UNKNOWN,
        "ssh2": Presence.ABSENT,
    }
    public = (target.folder / "identity/ssh_host_ed25519_key.pub").read_text()
    (fleet.folder / "probe.pub").write_text(public)
    fingerprint = run(["ssh-keygen", "-l", "-f", fleet.folder / "probe.pub"]).stdout.split()[1]
    assert found["ssh1"].fingerprint == fingerprint


def test_a_key_that_lives_in_ansibles_agent_alone_serves_nix_copy(
    fleet: Fleet, target: Host, ansible: Ansible, controller: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a system, for once as small as a file\n")
    system = run(["nix-store", "--add", tmp_path / "file"], env=controller).stdout.strip()
    host = {"ansible_host": target.address, "ansible_user": "root", "ansible_ssh_private_key": (fleet.folder / "key").read_text()}
    (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": {target.name: host}}}))
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"flotilla.nixos.closure_copy": {"system": system}}]}
    env = {"ANSIBLE_SSH_AGENT": "auto", "ANSIBLE_PRIVATE_KEY_FILE": "", "SSH_AUTH_SOCK": ""}
    played = ansible.playbook([play], inventory=tmp_path / "inventory.json", env=env, check=False)
    assert played.ok, played.text
    assert target.run(["nix-store", "--check-validity", system], check=False).ok
