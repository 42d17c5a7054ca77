# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed keeps its promises: hosts are real, faults are real, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testbed import Fleet, Host, TestbedError, cgroups
from testbed.mounts import below, mounts, unmount_below
from testbed.network import Subnet, remove_link
from testbed.playbooks import PROJECT, Ansible, inventory

COMMAND = PROJECT / "tests/testbed/testbed"


def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> bool:
    """True as soon as the condition holds, False at the time limit."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def leftovers(fleet: Fleet) -> list[str]:
    """What there is of a fleet on this machine: mounts, processes, files."""
    found = below(fleet.folder, mounts())
    cgroup = cgroups.host_cgroup(fleet.name, "x").parent
    found += [str(path) for path in (cgroup, fleet.folder) if path.exists()]
    return found


def interfaces(subnet: Subnet) -> list[str]:
    """This machine's interfaces that belong to a fleet's subnet."""
    ours = (subnet.bridge, *(subnet.link(index) for index in range(10)))
    return [name for name in ours if Path("/sys/class/net", name).exists()]


@pytest.fixture
def other() -> Iterator[Fleet]:
    """A second fleet beside the session's."""
    fleet = Fleet(f"other-{os.getpid()}", ["one", "two"])
    yield fleet
    fleet.down()


def test_a_target_has_sshd_and_nix_but_no_python(hosts: Callable[..., list[Host]]) -> None:
    (host,) = hosts("web1")
    assert host.run("nix --version").stdout.startswith("nix (Nix) 2.")
    assert not host.run("command -v python python3 || ls /usr/bin/python* /usr/lib/python*", check=False).stdout.strip()


def test_users_can_become_root_as_promised(hosts: Callable[..., list[Host]]) -> None:
    (host,) = hosts("web1")
    assert host.run("sudo -n id -u", user="deploy").stdout == "0\n"
    assert not host.run("sudo -n id -u", user="operator", check=False).ok
    assert host.run("sudo -S -p '' id -u", user="operator", stdin="operator-secret\n").stdout == "0\n"


def test_a_reboot_is_real(host: Host) -> None:
    before = host.boot_id()
    host.write("/var/lib/kept", "kept")
    host.run("touch /run/gone; systemctl reboot", check=False)
    assert wait_until(lambda: host.init() is not None and host.answers() and host.boot_id() != before)
    assert host.wait_for_boot() == "running"
    assert host.run("cat /var/lib/kept; ls /run/gone", check=False).stdout == "kept"


def test_a_power_cut_is_real(fleet: Fleet, host: Host) -> None:
    before = host.boot_id()
    host.run("printf kept >/var/lib/kept")
    fleet.fault(host.name, "power-cut")
    assert not host.is_on()
    assert not host.answers()
    assert {status.name: status.on for status in fleet.status()}[host.name] is False
    fleet.fault(host.name, "power-on")
    assert host.wait_for_boot() == "running"
    assert host.boot_id() != before
    assert host.read("/var/lib/kept") == "kept"


def test_a_cut_link_stays_cut_over_a_reboot_until_it_is_mended(fleet: Fleet, host: Host) -> None:
    before = host.boot_id()
    fleet.fault(host.name, "link-down")
    assert not host.answers()
    host.inside(["systemctl", "--no-block", "reboot"], check=False)
    assert wait_until(lambda: host.init() is not None and host.boot_id() != before)
    assert host.inside(["systemctl", "is-system-running", "--wait"], check=False).stdout
    assert not host.answers()
    fleet.fault(host.name, "link-up")
    host.wait_for_sshd(10)


@pytest.mark.parametrize("path", ["/nix", "/boot", "/"])
def test_a_full_disk_is_full_and_then_is_not(fleet: Fleet, hosts: Callable[..., list[Host]], path: str) -> None:
    (host,) = hosts("web1")
    write = f"dd if=/dev/zero of={path}/big bs=64k count=16 2>&1; status=$?; rm -f {path}/big; exit $status"
    fleet.fault(host.name, "fill-disk", path)
    try:
        full = host.run(
            ["sh", "-c", f"if ! dd if=/dev/zero of={path}/big bs=64k count=16; then rm -f {path}/big; exit 28; fi"], check=False
        )
        assert (full.status, "No space left" in full.stderr) == (28, True)
    finally:
        fleet.fault(host.name, "free-disk", path)
    assert host.run(write).ok


def test_sshd_dies_and_comes_back(fleet: Fleet, hosts: Callable[..., list[Host]]) -> None:
    (host,) = hosts("web1")
    session = subprocess.Popen(host.ssh_command(["sleep", "60"]), stdin=subprocess.DEVNULL)
    assert wait_until(lambda: host.inside(["pgrep", "-x", "sleep"], check=False).ok)
    fleet.fault(host.name, "kill-sshd")
    assert session.wait(10) == 255
    fleet.fault(host.name, "start-sshd")
    assert host.run("true").ok


def test_a_slow_link_is_slow(fleet: Fleet, hosts: Callable[..., list[Host]]) -> None:
    (host,) = hosts("web1")
    fleet.fault(host.name, "slow", "100")
    slow = host.run("cat >/dev/null", stdin="x" * 30_000).seconds
    fleet.fault(host.name, "fast")
    assert slow > 3 * host.run("cat >/dev/null", stdin="x" * 30_000).seconds


def test_two_fleets_work_side_by_side_and_down_leaves_nothing(
    fleet: Fleet, other: Fleet, hosts: Callable[..., list[Host]]
) -> None:
    (host,) = hosts("web1")
    other.up()
    subnet = other.host("one").subnet
    assert other.host("one").read("/etc/hostname") == "one\n"
    assert subnet != host.subnet
    assert len(interfaces(subnet)) == 3
    other.down()
    assert (leftovers(other), interfaces(subnet)) == ([], [])
    assert host.run("true").ok
    assert fleet.host("web1") == host


@pytest.mark.parametrize("delay", [0.3, 0.6, 1.0])
def test_up_after_an_up_that_was_killed(other: Fleet, delay: float) -> None:
    killed = subprocess.Popen([sys.executable, COMMAND, "--fleet", other.name, "up", "one", "two"], stdout=subprocess.DEVNULL)
    time.sleep(delay)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    other.up()
    assert [(status.name, status.on, status.answers) for status in other.status()] == [("one", True, True), ("two", True, True)]


def test_up_after_the_supervisor_and_nspawn_were_killed(other: Fleet) -> None:
    other.up()
    one = other.host("one")
    before = one.boot_id()
    for name in ("supervisor", "nspawn"):
        os.kill(int((one.folder / f"{name}.pid").read_text().split()[0]), signal.SIGKILL)
    other.up()
    assert one.boot_id() != before
    assert one.run("cat /etc/hostname").stdout == "one\n"


def test_up_after_a_restart_of_the_machine(other: Fleet) -> None:
    other.up()
    one = other.host("one")
    for host in other.hosts.values():
        cgroups.end(host.cgroup)
        unmount_below(host.folder)
    remove_link(one.subnet.bridge)
    other.up()
    assert one.run("cat /etc/hostname").stdout == "one\n"


def test_a_host_that_is_on_but_cut_off_is_replaced(other: Fleet) -> None:
    other.up()
    other.fault("one", "link-down")
    other.up()
    assert other.host("one").run("cat /etc/hostname").stdout == "one\n"


def test_up_leaves_a_host_alone_that_is_up(other: Fleet) -> None:
    other.up()
    before = other.host("one").boot_id()
    other.up()
    assert other.host("one").boot_id() == before


def test_an_unknown_host_is_named(fleet: Fleet) -> None:
    with pytest.raises(TestbedError, match=r"nonesuch: fleet .* has no such host"):
        fleet.fault("nonesuch", "link-down")


def test_ansible_reaches_the_hosts(ansible: Ansible, hosts: Callable[..., list[Host]], tmp_path: Path) -> None:
    pair = hosts("web1", "web2")
    (tmp_path / "hosts.json").write_text(inventory(pair, {"servers": ["web1"]}))
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.raw": "cat /etc/hostname", "changed_when": False}]}
    played = ansible.playbook([play], inventory=tmp_path / "hosts.json")
    assert sorted((task.host, task.status, task.result["stdout"].strip()) for task in played.of("raw")) == [
        ("web1", "ok", "web1"),
        ("web2", "ok", "web2"),
    ]


def test_the_controllers_nix_copies_to_a_host(fleet: Fleet, hosts: Callable[..., list[Host]], tmp_path: Path) -> None:
    (host,) = hosts("web1")
    (tmp_path / "hello").write_text(f"hello {time.time()}\n")
    exports = subprocess.run([COMMAND, "--fleet", fleet.name, "env"], check=True, capture_output=True, text=True).stdout
    script = """eval "$1"; path=$(nix-store --add "$2") && nix copy --to "ssh-ng://root@$3" "$path" && echo "$path" """
    env = {**os.environ, "NIX_SSHOPTS": f"-F {fleet.folder}/ssh_config"}
    words = ["bash", "-c", script, "bash", exports, str(tmp_path / "hello"), host.name]
    path = subprocess.run(words, check=True, capture_output=True, text=True, env=env).stdout.strip()
    assert host.run(["cat", path]).stdout == (tmp_path / "hello").read_text()


@pytest.mark.parametrize(
    ("spoil", "said", "boots"),
    [
        (("/boot/loader/loader.conf", "default nothing.conf\n"), "default entry 'nothing.conf' is not there", True),
        (("/boot/loader/entries/nixos-generation-1.conf", "options init=/nix/store/gone/init\n"), "NO BOOTABLE SYSTEM", False),
    ],
    ids=["default-gone", "system-gone"],
)
def test_a_boot_loader_that_names_nothing(fleet: Fleet, host: Host, spoil: tuple[str, str], said: str, boots: bool) -> None:
    host.write(*spoil)
    fleet.fault(host.name, "power-cut")
    fleet.fault(host.name, "power-on")
    host.wait_for_boot()
    assert said in host.console.read_text(errors="replace")
    assert host.run("test -e /run/booted-system", check=False).ok is boots
