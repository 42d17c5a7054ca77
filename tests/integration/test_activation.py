# SPDX-License-Identifier: GPL-3.0-or-later
"""The activation protocol on real hosts: whatever is cut, a host ends on its old system or on one that was proven."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testbed import Fleet, Host, upstream
from testbed.base import OPERATOR_PASSWORD
from testbed.commands import run
from testbed.playbooks import Ansible, inventory

_FLAKE = """{
  inputs.nixpkgs.url = "%(url)s";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.target = nixpkgs.lib.nixosSystem {
      system = "%(platform)s";
      modules = [ { networking.hostName = "target"; services.nscd.enable = false; } %(module)s ];
    };
  };
}
"""


@dataclass
class Systems:
    """Systems of the stand-in nixpkgs, built when they are first asked for."""

    env: Mapping[str, str]
    scratch: Path
    built: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def of(self, release: str, module: str = "", platform: str = f"{os.uname().machine}-linux") -> str:
        """The store path of a minimal host's system at a release, with one more module."""
        key = (release, module, platform)
        if key not in self.built:
            repository = upstream.create(self.scratch / "nixpkgs.git")
            flake = self.scratch / f"flake{len(self.built)}"
            flake.mkdir()
            words = {"url": repository.url(f"refs/tags/{release}"), "platform": platform, "module": module}
            (flake / "flake.nix").write_text(_FLAKE % words)
            wanted = f"path:{flake}#nixosConfigurations.target.config.system.build.toplevel"
            argv = ["nix", "build", "--no-link", "--print-out-paths", "--no-write-lock-file", wanted]
            self.built[key] = run(argv, env=self.env, timeout=300).stdout.strip()
        return self.built[key]


@pytest.fixture(scope="session")
def systems(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Systems:
    """Systems to activate."""
    return Systems(fleet.env(), tmp_path_factory.mktemp("systems"))


@dataclass
class Bench:
    """A fresh host, systems for it, and Ansible's way to it."""

    host: Host
    systems: Systems
    ansible: Ansible
    folder: Path
    text: str = ""

    def have(self, release: str, module: str = "", platform: str = f"{os.uname().machine}-linux") -> str:
        """A system that is in the host's store."""
        system = self.systems.of(release, module, platform)
        options = f"-F {self.ansible.fleet.env()['FLOTILLA_TESTBED_SSH_CONFIG']} -o ControlPath=none"
        env = {**self.systems.env, "NIX_SSHOPTS": options}
        run(["nix", "copy", "--no-check-sigs", "--to", f"ssh-ng://root@{self.host.name}", system], env=env, timeout=300)
        return system

    def inventory(self) -> Path:
        file = self.folder / "inventory.yml"
        file.write_text(inventory([self.host]))
        return file

    def task(self, module: str, *arguments: str, variables: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Run one of our modules on the host; its result."""
        tasks = [{f"flotilla.nixos.{module}": options}]
        play = {"hosts": "all", "gather_facts": False, "vars": dict(variables or {}), "tasks": tasks}
        where = self.inventory()
        played = self.ansible.playbook([play], *arguments, inventory=where, check=False, timeout=300)
        self.text = played.text
        found = played.of(module)
        assert len(found) == 1, played.text
        return {**found[0].result, "failed": found[0].status == "failed"}

    def activate(self, system: str, *arguments: str, **options: Any) -> dict[str, Any]:
        return self.task("system_activate", *arguments, system=system, **{"confirm_timeout": 10, **options})

    def confirm(self, system: str, **options: Any) -> dict[str, Any]:
        return self.task("system_confirm", system=system, **options)

    def info(self, **options: Any) -> dict[str, Any]:
        return self.task("system_info", **options)

    def running(self) -> str:
        """Seen as from the console, so that a dead network hides nothing."""
        return self.host.inside(["readlink", "-f", "/run/current-system"]).stdout.strip()

    def booted(self) -> str:
        return self.host.inside(["readlink", "-f", "/run/booted-system"]).stdout.strip()

    def profile(self) -> str:
        return self.host.inside(["readlink", "-f", "/nix/var/nix/profiles/system"]).stdout.strip()

    def boot_default(self) -> str:
        entry = self.host.inside(["sh", "-c", "cat /boot/loader/entries/$(sed -n 's/^default //p' /boot/loader/loader.conf)"])
        return entry.stdout.partition("init=")[2].partition("/init")[0]

    def start(self, system: str, **options: Any) -> threading.Thread:
        """Activate in the background; the thread's `result` is there when it has ended."""

        def work() -> None:
            thread.result = self.activate(system, **options)  # type: ignore[attr-defined]

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def bench(host: Host, systems: Systems, ansible: Ansible, tmp_path: Path) -> Bench:
    """A fresh host, ready for activations."""
    return Bench(host, systems, ansible, tmp_path)


def eventually(condition: Callable[[], bool], timeout: float = 60.0) -> bool:
    """True as soon as the condition holds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except Exception:
            pass
        time.sleep(0.2)
    return False


def is_as_before(bench: Bench, old: str) -> bool:
    """Everything names the old system, and nothing of a transaction is left."""
    assert bench.running() == old
    assert bench.profile() == old
    assert bench.boot_default() == old
    left = "ls -d /run/flotilla/current; find -L /nix/var/nix/gcroots/auto -maxdepth 1 -name 'flotilla-*' -type d"
    assert bench.host.inside(["sh", "-c", left], check=False).stdout == ""
    return True


# ---- the main way


_PROOF = """{
  systemd.services.proof = {
    wantedBy = [ "multi-user.target" ];
    script = "exec sleep infinity";
  };
}"""


def test_a_system_is_activated_then_confirmed_and_then_there_is_nothing_to_do(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2", _PROOF)
    done = bench.activate(new, confirm_timeout=60)
    assert (done["outcome"], done["changed"], done["failed"], done["previous"]) == ("activated", True, False, old)
    assert done["exit_code"] == 0
    assert "proof.service" in [unit for units in done["units"].values() for unit in units]
    # Activated, but neither the profile nor the boot default moved yet.
    assert (bench.running(), bench.profile(), bench.boot_default()) == (new, old, old)
    guard = bench.info()["guard"]
    assert guard["id"] == done["guard"]
    assert guard["armed"]
    assert 0 < guard["ends_in"] <= 60
    kept = bench.confirm(new, guard=done["guard"])
    assert (kept["outcome"], kept["changed"]) == ("confirmed", True)
    assert (bench.running(), bench.profile(), bench.boot_default()) == (new, new, new)
    assert bench.info()["guard"] is None
    for again in (bench.activate(new), bench.confirm(new)):
        assert (again["outcome"], again["changed"], again["failed"]) == ("unchanged", False, False)
    bench.host.power_cut()
    bench.host.power_on()
    bench.host.wait_for_boot()
    assert (bench.booted(), bench.running()) == (new, new)


def test_one_task_does_it_all(bench: Bench) -> None:
    new = bench.have("25.05.2")
    done = bench.activate(new, confirm=True, health_checks=[{"command": "test -e /run/current-system"}, {"port": 22}])
    assert (done["outcome"], done["changed"]) == ("confirmed", True), done.get("msg")
    assert (bench.running(), bench.profile(), bench.boot_default()) == (new, new, new)
    assert bench.activate(new, confirm=True)["changed"] is False


def test_who_was_cut_off_takes_up_what_waits(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    first = bench.activate(new, confirm_timeout=20)
    again = bench.activate(new, confirm_timeout=60)
    assert (again["outcome"], again["guard"], again["previous"]) == ("activated", first["guard"], old)
    assert again["confirm_within"] > 20
    assert bench.confirm(new)["outcome"] == "confirmed"


def test_the_goal_test_keeps_nothing(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    assert bench.activate(new, goal="test")["outcome"] == "activated"
    done = bench.confirm(new)
    assert (done["outcome"], done["changed"]) == ("confirmed", False)
    for again in (bench.activate(new, goal="test"), bench.confirm(new)):
        assert (again["outcome"], again["changed"], again["failed"]) == ("unchanged", False, False)
    assert (bench.running(), bench.profile(), bench.boot_default()) == (new, old, old)


def test_check_mode_and_dry_run_change_nothing_and_say_what_would(bench: Bench) -> None:
    old, new = bench.have("25.05.2", _PROOF), bench.have("25.05.2", _PROOF.replace("infinity", "86400"))
    assert bench.activate(old, confirm=True)["outcome"] == "confirmed"
    plan = bench.activate(new, "--check", "--diff")
    assert (plan["outcome"], plan["changed"]) == ("would_activate", True)
    assert "proof.service" in [unit for units in plan["units"].values() for unit in units]
    assert f"-{old}\n+{new}\n" in bench.text
    assert ": proof.service" in bench.text
    dry = bench.activate(new, goal="dry-activate")
    assert (dry["outcome"], dry["changed"]) == ("would_activate", False)
    absent = bench.activate(bench.systems.of("25.05.3"), "--check")
    assert (absent["changed"], absent["units"]) == (True, None)
    assert is_as_before(bench, old)


@pytest.mark.parametrize(("user", "become"), [("deploy", True), ("operator", True), ("deploy", False)])
def test_root_is_needed_and_become_gives_it(bench: Bench, user: str, become: bool) -> None:
    new = bench.have("25.05.2")
    password = OPERATOR_PASSWORD if user == "operator" else None
    variables = {"ansible_user": user, "ansible_become": become, "ansible_become_password": password}
    done = bench.activate(new, confirm=True, variables=variables)
    if become:
        assert done["outcome"] == "confirmed"
    else:
        assert done["failed"]
        assert done["msg"] == f"{bench.host.name}: this needs root there and the connection's user is deploy. " + (
            "Set `become: true` for the task or host."
        )


# ---- refused before anything was changed


def test_what_cannot_be_activated_is_refused_with_a_sentence(bench: Bench) -> None:
    old = bench.running()
    other = "aarch64-linux" if os.uname().machine == "x86_64" else "x86_64-linux"
    foreign = bench.have("25.05.2", f'{{ nixpkgs.hostPlatform = "{other}"; }}', other)
    not_there = bench.systems.of("25.05.2")
    package = bench.host.inside(["readlink", "-f", "/run/current-system/sw"]).stdout.strip()
    for system, said in (
        (foreign, f"the system is for {other}, and this machine is {os.uname().machine}"),
        (not_there, "is not (or not completely) in its nix store"),
        (package, "is not a NixOS system"),
        ("--help", "this is not a path in the nix store"),
        ("/nix/store/../../etc", "this is not a path in the nix store"),
        ("/nix/store/x; touch /root/owned", "this is not a path in the nix store"),
    ):
        refused = bench.activate(system)
        assert refused["failed"], system
        assert said in refused["msg"]
        assert refused["changed"] is False
    assert is_as_before(bench, old)


def test_a_failed_check_of_the_new_system_changes_nothing(bench: Bench) -> None:
    old, new = bench.running(), bench.have("bad-check")
    refused = bench.activate(new)
    assert refused["failed"]
    assert "pre-switch check failed" in refused["msg"]
    assert is_as_before(bench, old)


def test_a_boot_partition_that_is_too_small_is_seen_before(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.4")
    bench.ansible.fleet.fault(bench.host.name, "fill-disk", "/boot", "1")
    refused = bench.activate(new)
    assert refused["failed"]
    assert "/boot has" in refused["msg"]
    assert is_as_before(bench, old)


def test_the_second_of_two_is_refused_and_learns_who_is_first(bench: Bench) -> None:
    old, first, second = bench.running(), bench.have("25.05.2"), bench.have("25.05.3")
    assert bench.activate(first, owner="anna@desk", confirm_timeout=60)["outcome"] == "activated"
    refused = bench.activate(second, owner="ben@desk")
    assert refused["failed"]
    assert f"anna@desk activates {first} there at this moment, and it ends in " in refused["msg"]
    assert bench.running() == first
    back = bench.task("system_rollback")
    assert (back["outcome"], back["changed"], back["system"]) == ("rolled_back", True, old)
    assert is_as_before(bench, old)
    assert bench.task("system_rollback")["changed"] is False


# ---- a new system that is bad


@pytest.mark.parametrize(
    ("release", "exit_code", "said"),
    [
        ("bad-unit", 4, "units that did not fail before fail now: fleet-agent.service"),
        ("bad-activation", 2, "the activation script failed (exit code 2)"),
    ],
)
def test_a_bad_system_is_undone_at_once(bench: Bench, release: str, exit_code: int, said: str) -> None:
    old, new = bench.running(), bench.have(release)
    begun = time.monotonic()
    done = bench.activate(new, confirm_timeout=120)
    assert time.monotonic() - begun < 30
    assert (done["outcome"], done["failed"], done["exit_code"]) == ("rolled_back", True, exit_code)
    assert said in done["msg"]
    assert is_as_before(bench, old)
    if release == "bad-unit":
        assert done["failed_units"] == ["fleet-agent.service"]
        assert any("cannot read /etc/fleet-agent.conf" in line for line in done["journal"])
        allowed = bench.activate(new, ignored_units=["fleet-agent.service"], confirm=True)
        assert allowed["outcome"] == "confirmed"


def test_a_unit_that_dies_later_is_seen_by_the_confirmation(bench: Bench) -> None:
    old, new = bench.running(), bench.have("bad-late-unit")
    assert bench.activate(new, confirm_timeout=60)["outcome"] == "activated"
    time.sleep(4)
    done = bench.confirm(new)
    assert (done["outcome"], done["failed"]) == ("rolled_back", True)
    assert "fleet-agent.service" in done["msg"]
    assert is_as_before(bench, old)


def test_a_unit_that_dies_while_the_host_settles_is_waited_for(bench: Bench) -> None:
    old, new = bench.running(), bench.have("bad-late-unit")
    assert bench.activate(new, confirm_timeout=60)["outcome"] == "activated"
    done = bench.confirm(new, settle=8)
    assert (done["outcome"], done["failed"]) == ("rolled_back", True)
    assert "fleet-agent.service" in done["msg"]
    assert is_as_before(bench, old)


def test_a_failed_health_check_takes_the_host_back(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    checks = [{"command": "test -e /run/not-there", "retries": 1, "delay": 0.1}]
    done = bench.activate(new, confirm=True, health_checks=checks, confirm_timeout=60)
    assert (done["outcome"], done["failed"]) == ("rolled_back", True)
    assert "command `test -e /run/not-there`: exit status 1" in done["msg"]
    assert is_as_before(bench, old)


def test_a_hung_activation_is_ended(bench: Bench) -> None:
    old, new = bench.running(), bench.have("bad-hang")
    done = bench.activate(new, activation_timeout=6)
    assert (done["outcome"], done["failed"]) == ("rolled_back", True)
    assert "the activation was still running after 6 s" in done["msg"]
    assert is_as_before(bench, old)


@pytest.mark.parametrize("release", ["bad-sshd", "bad-sshd-port", "bad-network"])
def test_a_system_that_locks_everybody_out_comes_back_by_itself(bench: Bench, release: str) -> None:
    old, new = bench.running(), bench.have(release)
    done = bench.activate(new, confirm_timeout=12, activation_timeout=60)
    assert (done["outcome"], done["failed"], done["changed"]) == ("rolled_back", True, True)
    assert is_as_before(bench, old)
    assert bench.host.answers()


def test_a_way_in_that_stays_shut_after_going_back_ends_in_a_restart(bench: Bench) -> None:
    old = bench.running()
    boot_id = bench.host.boot_id()
    cut = '{ system.activationScripts.cut.text = "networkctl down host0 || true; ip link set host0 down"; }'
    done = bench.activate(bench.have("25.05.2", cut), confirm_timeout=6, activation_timeout=30)
    assert done.get("outcome") == "rolled_back", bench.text[-3000:]
    assert (done["failed"], done["restarted"]) == (True, True)
    assert is_as_before(bench, old)
    assert bench.host.boot_id() != boot_id


# ---- cuts


_SLOW = '{ system.activationScripts.slow.text = "touch /run/slow-began; sleep 12"; }'


def began(bench: Bench) -> bool:
    """The slow activation is running."""
    return eventually(lambda: bench.host.inside(["test", "-e", "/run/slow-began"], check=False).ok, 30)


def test_a_link_that_is_cut_and_mended_in_the_middle_does_no_harm(bench: Bench) -> None:
    new = bench.have("25.05.2", _SLOW)
    thread = bench.start(new, confirm_timeout=120, activation_timeout=120, confirm=True)
    assert began(bench)
    bench.ansible.fleet.fault(bench.host.name, "link-down")
    time.sleep(6)
    bench.ansible.fleet.fault(bench.host.name, "link-up")
    thread.join(180)
    assert thread.result["outcome"] == "confirmed"  # type: ignore[attr-defined]
    assert (bench.running(), bench.profile(), bench.boot_default()) == (new, new, new)


def test_a_link_that_stays_cut_takes_the_host_back(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2", _SLOW)
    thread = bench.start(new, confirm_timeout=6, activation_timeout=30)
    assert began(bench)
    bench.ansible.fleet.fault(bench.host.name, "link-down")
    assert eventually(lambda: bench.running() == new, 60)
    assert eventually(lambda: is_as_before(bench, old), 60)
    bench.ansible.fleet.fault(bench.host.name, "link-up")
    thread.join(120)
    assert thread.result["outcome"] == "rolled_back"  # type: ignore[attr-defined]


@pytest.fixture
def controller_process(bench: Bench) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A controller that can be killed."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="a-", dir="/tmp") as home:

        def start(system: str, confirm: int = 5) -> subprocess.Popen[bytes]:
            play = bench.folder / "activate.yml"
            task = f"flotilla.nixos.system_activate: {{system: {system}, confirm_timeout: {confirm}, activation_timeout: 60}}"
            pause = "ansible.builtin.wait_for: {timeout: 120}\n      delegate_to: localhost"
            play.write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n    - {task}\n    - {pause}\n")
            words = [str(bench.ansible.venv / "bin/ansible-playbook"), "-i", str(bench.inventory()), str(play)]
            env = bench.ansible.environment(Path(home))
            process = subprocess.Popen(words, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
            started.append(process)
            return process

        yield start
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_dead_controller_takes_the_host_back_at_the_deadline(
    bench: Bench, controller_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    old, new = bench.running(), bench.have("25.05.2", _SLOW)
    process = controller_process(new)
    assert began(bench)
    os.killpg(process.pid, signal.SIGKILL)
    assert eventually(lambda: bench.running() == new, 60)
    assert eventually(lambda: is_as_before(bench, old), 60)
    last = bench.info()["last"]
    assert last["phase"] == "rolled_back"
    assert last["reason"] == "the deadline passed without a confirmation"


def test_only_a_run_that_is_over_has_an_heir(bench: Bench, controller_process: Callable[..., subprocess.Popen[bytes]]) -> None:
    new = bench.have("25.05.2")
    first = controller_process(new, confirm=60)
    assert eventually(lambda: bench.host.inside(["grep", "-qx", "tested", "/run/flotilla/current/phase"], check=False).ok, 30)
    refused = bench.activate(new)
    assert refused["failed"]
    assert f"activates {new} there at this moment" in refused["msg"]
    os.killpg(first.pid, signal.SIGKILL)
    done = bench.activate(new, confirm=True, confirm_timeout=60)
    assert (done["outcome"], bench.profile()) == ("confirmed", new)


def test_a_killed_guard_is_started_again_and_keeps_its_word(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    done = bench.activate(new, confirm_timeout=8)
    bench.host.inside(["systemctl", "kill", "--signal=KILL", f"flotilla-guard-{done['guard']}.service"])
    assert eventually(lambda: is_as_before(bench, old), 30)


def test_a_full_run_does_not_keep_the_host_from_going_back(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    assert bench.activate(new, confirm_timeout=8)["outcome"] == "activated"
    fill = "mount -o remount,size=64m /run && cat /dev/zero >/run/fill"
    assert "No space left" in bench.host.inside(["sh", "-c", fill], check=False).stderr
    assert eventually(lambda: bench.running() == old, 40)
    bench.host.inside(["rm", "/run/fill"])
    assert eventually(lambda: is_as_before(bench, old), 20)
    # Full from the start, it is left alone.
    bench.host.inside(["sh", "-c", "cat /dev/zero >/run/fill"], check=False)
    refused = bench.activate(new)
    bench.host.inside(["rm", "/run/fill"])
    assert "/run has 0 bytes free" in refused["msg"]
    assert is_as_before(bench, old)


def test_power_that_is_cut_before_the_confirmation_boots_the_old_system(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    assert bench.activate(new, confirm_timeout=60)["outcome"] == "activated"
    assert bench.running() == new
    bench.host.power_cut()
    bench.host.power_on()
    bench.host.wait_for_boot()
    assert (bench.running(), bench.booted(), bench.profile()) == (old, old, old)
    late = bench.confirm(new)
    assert late["failed"]
    assert "no activation of" in late["msg"]
    assert is_as_before(bench, old)


@pytest.mark.parametrize("delay", [0.0, 0.15])
def test_power_that_is_cut_while_it_is_confirmed_boots_one_of_the_two(bench: Bench, delay: float) -> None:
    old, new = bench.running(), bench.have("25.05.4")
    assert bench.activate(new, confirm_timeout=60)["outcome"] == "activated"
    thread = threading.Thread(target=lambda: bench.confirm(new), daemon=True)
    thread.start()
    phase = ["sh", "-c", "cat /run/flotilla/current/phase /run/flotilla/tx.*/phase"]
    assert eventually(lambda: "confirm" in bench.host.inside(phase, check=False).stdout, 30)
    time.sleep(delay)
    bench.host.power_cut()
    bench.host.power_on()
    bench.host.wait_for_boot()
    assert bench.running() == bench.booted()
    assert bench.running() in (old, new)
    thread.join(120)
    # Run again, it ends where it should.
    assert bench.activate(new, confirm=True)["outcome"] in ("confirmed", "unchanged")
    assert (bench.running(), bench.profile(), bench.boot_default()) == (new, new, new)


def test_a_boot_partition_that_fills_up_before_the_confirmation_takes_the_host_back(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.4")
    assert bench.activate(new, confirm_timeout=60)["outcome"] == "activated"
    bench.ansible.fleet.fault(bench.host.name, "fill-disk", "/boot")
    done = bench.confirm(new)
    assert (done["outcome"], done["failed"]) == ("rolled_back", True)
    assert "the boot loader could not be set" in done["msg"]
    assert is_as_before(bench, old)


# ---- what only a restart can bring


@pytest.mark.parametrize(("release", "inhibitor"), [("25.11.1", "dbus-implementation"), ("26.05.1", "init-interface-version")])
def test_an_inhibitor_changes_nothing_or_stages_and_a_restart_brings_it(bench: Bench, release: str, inhibitor: str) -> None:
    old, new = bench.running(), bench.have(release)
    report = bench.activate(new)
    assert (report["outcome"], report["changed"], report["failed"]) == ("inhibited", False, False)
    assert report["reboot_needed"]
    assert any(inhibitor in line for line in report["inhibitors"])
    assert is_as_before(bench, old)
    staged = bench.activate(new, on_inhibitor="boot")
    assert (staged["outcome"], staged["changed"], staged["reboot_needed"]) == ("staged_for_boot", True, True)
    assert (bench.running(), bench.profile(), bench.boot_default()) == (old, new, new)
    info = bench.info(system=new)
    assert info["reboot_needed"]
    for again in (bench.activate(new, on_inhibitor="boot", goal="boot"), bench.confirm(new)):
        assert (again["outcome"], again["changed"], again["failed"]) == ("unchanged", False, False)
    restarted = bench.task("system_reboot", system=new, timeout=90)
    assert (restarted["outcome"], restarted["changed"], restarted["failed"]) == ("rebooted", True, False)
    assert (bench.running(), bench.booted()) == (new, new)
    assert bench.task("system_reboot", system=new)["changed"] is False


def test_a_new_kernel_is_activated_and_asks_for_a_restart(bench: Bench) -> None:
    new = bench.have("25.05.4")
    done = bench.activate(new, confirm=True)
    assert (done["outcome"], done["reboot_needed"]) == ("confirmed", True)
    assert "kernel" in done["reboot_reasons"]
    assert bench.task("system_reboot", "--check", system=new)["changed"] is True
    assert bench.task("system_reboot", system=new, timeout=90)["outcome"] == "rebooted"
    assert bench.info(system=new)["reboot_needed"] is False


def test_a_host_that_does_not_come_back_is_a_clear_failure(bench: Bench) -> None:
    new = bench.have("bad-boot")
    assert bench.activate(new, goal="boot")["outcome"] == "staged_for_boot"
    lost = bench.task("system_reboot", system=new, timeout=15)
    assert (lost["outcome"], lost["failed"], lost["unreachable"]) == ("lost", True, True)
    assert "did not come back within 15 s" in lost["msg"]


# ---- back by name


def test_back_to_the_previous_generation(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    assert bench.activate(new, confirm=True)["outcome"] == "confirmed"
    back = bench.task("system_rollback", to="previous")
    assert (back["outcome"], back["changed"], back["system"]) == ("rolled_back", True, old)
    assert (bench.running(), bench.profile(), bench.boot_default()) == (old, old, old)
    for _time in ("the second", "the third"):
        again = bench.task("system_rollback", to="previous")
        assert (again["outcome"], again["changed"], again["failed"], again["system"]) == ("unchanged", False, False, old)
        assert f"it went back from {new} to {old} already" in again["msg"]
    assert bench.task("system_rollback", to=old)["changed"] is False
    # What was left is not what comes before the next one.
    third = bench.have("25.05.3")
    assert bench.activate(third, confirm=True)["outcome"] == "confirmed"
    assert bench.task("system_rollback", to="previous")["system"] == old
    assert bench.task("system_rollback", to=new)["outcome"] == "rolled_back"
    assert (bench.running(), bench.profile(), bench.boot_default()) == (new, new, new)


def test_a_host_that_went_back_by_itself_goes_no_further(bench: Bench) -> None:
    old, new = bench.running(), bench.have("25.05.2")
    assert bench.activate(new, confirm=True)["outcome"] == "confirmed"
    assert bench.activate(bench.have("bad-unit"))["outcome"] == "rolled_back"
    kept = bench.task("system_rollback", to="previous")
    assert (kept["outcome"], kept["changed"], kept["system"]) == ("unchanged", False, new)
    assert bench.activate(bench.have("25.05.3"))["outcome"] == "activated"
    back = bench.task("system_rollback", to="previous")
    assert (back["outcome"], back["system"]) == ("rolled_back", new)
    assert bench.task("system_rollback", to="1")["system"] == old


def test_an_unreachable_host_is_a_result(bench: Bench) -> None:
    bench.ansible.fleet.fault(bench.host.name, "link-down")
    slow = {"ansible_ssh_timeout": 2}
    gone = bench.info(variables=slow)
    assert (gone["failed"], gone["unreachable"]) == (True, True)
    absent = bench.info(allow_unreachable=True, variables=slow)
    assert (absent["failed"], absent["reachable"]) == (False, False)
