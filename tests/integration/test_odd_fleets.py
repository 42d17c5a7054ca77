# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole rollouts to fleets that are not the tidy one of the book: users, ports, jump hosts, names, builders, losses, reboots.

Each fleet's tests are one story in the order of the file: a test goes on from where the one before has left the hosts.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from integration.repositories import but_for_the_ledger
from testbed import Fleet, Host, example, upstream
from testbed.base import OPERATOR_PASSWORD
from testbed.playbooks import PROJECT, Ansible, Played

UPDATE = ("-e", "flotilla_update=true")


def outcomes(played: Played) -> dict[str, str]:
    """What the report says of each host."""
    (report,) = played.of("rollout_report")
    return {host: value["outcome"] for host, value in report.result["hosts"].items()}


def running(host: Host) -> str:
    """What a host runs, by the release in the system's name; also if nobody gets in over the network."""
    return host.inside(["readlink", "-f", "/run/current-system"]).stdout.strip().rpartition("-")[2]


# -- users, ports, jump hosts, names, and a builder that is a host --------------------------------------------------------

#: Inventory name → (attribute, the testbed's host). No two of a host's three names are the same.
ODD = {"board-a": ("pi-1", "odd1"), "board-b": ("pi-2", "odd2"), "board-c": ("pi-3", "odd3"), "jumped": ("shop", "odd4")}
BUILDER = "odd5"
SUDO = {"ansible_become": True, "ansible_become_method": "ansible.builtin.sudo"}


@dataclass(frozen=True)
class Odd:
    """The fleet, its repository (`example` is what is left of it here; nix and git run on the builder), and its inventory."""

    fleet: Fleet
    example: example.Example
    inventory: Path

    def play(self, *arguments: str, venv: str = ".venv", check: bool = True) -> Played:
        ansible = Ansible(self.fleet, PROJECT / venv)
        words = ("--forks", "4", "-l", "sbcs,servers", *arguments)
        return ansible.playbook("flotilla.nixos.rollout", *words, inventory=self.inventory, check=check)

    def host(self, name: str) -> Host:
        return self.fleet.host(ODD[name][1])

    def git(self, *words: str) -> str:
        """What git prints on the builder."""
        return self.fleet.host(BUILDER).run(["git", "-C", str(self.example.path), *words]).stdout.strip()

    def release(self, name: str) -> None:
        revision = self.example.upstream.revision(f"refs/tags/{name}")
        words = ["git", "-C", str(self.example.upstream.path), "update-ref", "refs/heads/nixos-unstable", revision]
        self.fleet.host(BUILDER).run(words)


@pytest.fixture(scope="module")
def odd(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Odd:
    fleet.reset(BUILDER, *(host for _attribute, host in ODD.values()))
    path = tmp_path_factory.mktemp("odd")
    source = upstream.create(path / "home/nixpkgs.git")
    made = example.create(path / "home/fleet", source, env=fleet.env())
    made.replace("modules/base.nix", "services.openssh.enable = true;", "services.openssh.ports = [ 22 2222 ];")
    made.commit("Listen on a second port")
    move(path / "home", fleet.host(BUILDER))
    listen_on_2222(fleet.host(ODD["board-c"][1]))
    only_by_jump(fleet.host(ODD["jumped"][1]))
    (path / "known_hosts").write_text(known_hosts(fleet))
    (path / "hosts.json").write_text(json.dumps(odd_inventory(fleet, path, made.path)))
    return Odd(fleet, made, path / "hosts.json")


def move(home: Path, builder: Host) -> None:
    """Copy the repositories to the same place on the builder; the user's is gone here."""
    packed = subprocess.run(["tar", "-cz", "-C", "/", str(home).lstrip("/")], check=True, capture_output=True).stdout
    subprocess.run(builder.ssh_command(["tar", "-xz", "-C", "/", "--no-same-owner"]), input=packed, check=True)
    (home / "fleet").rename(home / "gone")


def listen_on_2222(host: Host) -> None:
    """Nobody listens on port 22 until the first rollout."""
    host.write("/etc/ssh/sshd_config.d/10-nixos.conf", "Port 2222\n")
    host.inside(["systemctl", "restart", "sshd"])
    assert not host.answers()


def only_by_jump(host: Host) -> None:
    """No packet of its finds the way to the controller; other hosts do."""
    host.inside(["ip", "route", "add", "blackhole", f"{host.subnet.gateway}/32"])
    assert not host.answers()


def known_hosts(fleet: Fleet) -> str:
    odd = fleet.host(ODD["board-c"][1])
    key = (odd.folder / "identity/ssh_host_ed25519_key.pub").read_text().split()[:2]
    return f"{(fleet.folder / 'known_hosts').read_text()}[{odd.address}]:2222 {' '.join(key)}\n"


def odd_inventory(fleet: Fleet, path: Path, repo: Path) -> dict[str, Any]:
    """As a user would write it."""
    common = f"-o UserKnownHostsFile={path}/known_hosts -o GlobalKnownHostsFile=/dev/null"
    own: dict[str, dict[str, Any]] = {
        "board-a": {"ansible_user": "deploy", **SUDO},
        "board-b": {"ansible_user": "operator", "ansible_become_password": OPERATOR_PASSWORD, **SUDO},
        "board-c": {"ansible_port": 2222},
        "jumped": {"ansible_ssh_common_args": f"{common} -F {fleet.folder}/ssh_config -J {BUILDER}"},
    }
    hosts = {
        name: {"ansible_host": fleet.host(host).address, "flotilla_attribute": attribute, **own[name]}
        for name, (attribute, host) in ODD.items()
    }
    groups = {"sbcs": ["board-a", "board-b", "board-c"], "servers": ["jumped"]}
    return {
        "all": {
            "hosts": {"builder": {"ansible_host": fleet.host(BUILDER).address}},
            "children": {
                group: {"hosts": {name: hosts[name] for name in names}, "vars": {"flotilla_update_group": group}}
                for group, names in groups.items()
            },
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_common_args": common,
                "flotilla_repo": str(repo),
                "flotilla_builder": "builder",
                "flotilla_serial": ["100%"],
            },
        }
    }


def test_odd_hosts_are_updated_and_rebooted(odd: Odd) -> None:
    """The first rollout brings a new kernel, so that all of them also reboot and come back as they are reached."""
    odd.release("25.05.4")
    before = {name: odd.host(name).boot_id() for name in ODD}
    played = odd.play(*UPDATE)
    assert outcomes(played) == dict.fromkeys(ODD, "rebooted")
    for name, (attribute, _host) in ODD.items():
        host = odd.host(name)
        assert host.boot_id() != before[name]
        booted = host.inside(["readlink", "-f", "/run/booted-system"]).stdout
        assert f"-nixos-system-{'web2' if attribute == 'shop' else attribute}-25.05.4" in booted
        assert host.inside(["readlink", "-f", "/run/current-system"]).stdout == booted
    landed = odd.git("log", "--no-merges", "--format=%s", "-2", "main").splitlines()
    assert sorted(landed) == [f"{group}: nixpkgs 2026-10-05 → 2026-11-09" for group in ("sbcs", "servers")]
    assert not odd.example.path.exists()


@pytest.mark.parametrize("venv", [".venv", ".venv-newest"])
def test_odd_hosts_again(odd: Odd, venv: str) -> None:
    head = odd.git("for-each-ref")
    played = odd.play(venv=venv)
    assert outcomes(played) == dict.fromkeys(ODD, "unchanged")
    assert [task.task for task in played.tasks if task.result.get("changed")] == []
    assert odd.git("for-each-ref") == head


def test_odd_hosts_come_back_from_a_bad_release(odd: Odd) -> None:
    head = but_for_the_ledger(odd.git("for-each-ref"))
    odd.release("bad-unit")
    played = odd.play(*UPDATE, "-e", "flotilla_confirm_timeout=30", check=False)
    assert not played.ok
    assert outcomes(played) == dict.fromkeys(ODD, "rolled_back")
    assert {name: running(odd.host(name)) for name in ODD} == dict.fromkeys(ODD, "25.05.4")
    assert but_for_the_ledger(odd.git("for-each-ref")) == head
    assert OPERATOR_PASSWORD not in played.text


# -- losses, with the inventory from the flakes ---------------------------------------------------------------------------

SBCS = ("pi-1", "pi-2", "pi-3")


@dataclass(frozen=True)
class Site:
    """The example as it is, with the inventory that the flakes themselves give."""

    fleet: Fleet
    ansible: Ansible
    example: example.Example

    def play(self, *arguments: str, check: bool = True) -> Played:
        path = self.example.path
        words = ("--forks", "4", "--timeout", "3", "-l", "sbcs", *arguments)
        return self.ansible.playbook(
            path / "rollout.yml", *words, inventory=path / "inventory/fleet.flotilla.yml", cwd=path, timeout=120, check=check
        )


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    fleet.reset(*SBCS)
    path = tmp_path_factory.mktemp("losses")
    source = upstream.create(path / "nixpkgs.git")
    made = example.create(path / "fleet", source, env=fleet.env(), addresses=example.addresses_of(fleet))
    yield Site(fleet, ansible, made)
    for host in SBCS:
        fleet.fault(host, "link-up")
        fleet.fault(host, "power-on")


def wait_for_guard(host: Host, *, held: bool) -> None:
    """Return when the host has a guard, or has none."""
    deadline = time.monotonic() + 100
    while host.inside(["test", "-e", "/run/flotilla/current"], check=False).ok is not held and time.monotonic() < deadline:
        time.sleep(0.05)


def cut_while_it_activates(fleet: Fleet, host: Host) -> threading.Thread:
    """Cut the host's link when it has a guard, and mend it when the guard is gone."""

    def cut() -> None:
        wait_for_guard(host, held=True)
        fleet.fault(host.name, "link-down")
        wait_for_guard(host, held=False)
        fleet.fault(host.name, "link-up")

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    return thread


def test_a_host_that_is_off_and_one_whose_link_is_cut(site: Site) -> None:
    site.fleet.fault("pi-3", "power-cut")
    cut = cut_while_it_activates(site.fleet, site.fleet.host("pi-2"))
    # pi-1 is in one batch with the host that is lost, and does not go back with it.
    limits = {"flotilla_activation_timeout": 30, "flotilla_confirm_timeout": 12, "flotilla_serial": ["100%"]}
    played = site.play("-e", json.dumps(limits), check=False)
    cut.join(5)
    assert not played.ok
    assert outcomes(played) == {"pi-1": "updated", "pi-2": "rolled_back", "pi-3": "deferred"}
    assert re.search(r"pi-2 rolled back: .*without a confirmation", played.text), played.text
    assert re.search(r"pi-3 deferred: (there is no way to it|it did not answer in time)", played.text), played.text
    assert running(site.fleet.host("pi-2")) == "25.05.1"


def test_they_come_later(site: Site) -> None:
    site.fleet.fault("pi-3", "power-on")
    site.fleet.host("pi-3").wait_for_boot()
    assert outcomes(site.play()) == {"pi-1": "unchanged", "pi-2": "updated", "pi-3": "updated"}
    assert "flotilla" not in site.fleet.host("pi-2").run("systemctl list-units --all --plain --no-legend 'flotilla*'").stdout


def test_goal_boot_and_a_reboot(site: Site) -> None:
    site.example.upstream.release("25.05.4")
    pi1 = site.fleet.host("pi-1")
    before = pi1.boot_id()
    staged = site.play(*UPDATE, "-l", "pi-1", "-e", "flotilla_goal=boot")
    assert outcomes(staged) == {"pi-1": "staged"}
    assert (pi1.boot_id(), running(pi1)) == (before, "25.05.1")
    assert outcomes(site.play("-l", "pi-1")) == {"pi-1": "rebooted"}
    assert pi1.boot_id() != before
    assert pi1.run("readlink -f /run/booted-system").stdout.strip().endswith("-nixos-system-pi-1-25.05.4")
