# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in nixpkgs behaves as NixOS does where the collection leans on it: actions, messages, exit codes, boot."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testbed import Fleet, Host, TestbedError, upstream
from testbed.commands import Result, run

PROFILE = "/nix/var/nix/profiles/system"
SERVICES = "services.nginx.enable = true; services.nginx.config = pkgs.nginx.version; services.postgresql.enable = true;"
FLAKE = """{
  inputs.nixpkgs.url = "%s";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.target = nixpkgs.lib.nixosSystem {
      system = "%s";
      modules = [ ({ config, lib, pkgs, ... }: { networking.hostName = lib.mkDefault "target"; %s }) ];
    };
  };
}
"""
MACHINE = f"{os.uname().machine}-linux"


@dataclass
class Forge:
    """Builds systems of the stand-in, each once."""

    env: Mapping[str, str]
    folder: Path
    source: upstream.Upstream
    built: dict[tuple[str, str], str] = field(default_factory=dict)

    def flake(self, release: str, module: str, platform: str = MACHINE) -> str:
        """The installable of a system."""
        folder = self.folder / f"flake{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        (folder / "flake.nix").write_text(FLAKE % (self.source.pinned_url(release), platform, module))
        return f"path:{folder}#nixosConfigurations.target.config.system.build.toplevel"

    def nix(self, *argv: str, check: bool = True) -> Result:
        return run(["nix", *argv], env=self.env, timeout=120, check=check)

    def build(self, release: str, module: str = SERVICES) -> str:
        """A system's store path."""
        if (release, module) not in self.built:
            out = self.nix(
                "build", "--no-write-lock-file", "--no-link", "--print-out-paths", self.flake(release, module)
            ).stdout.strip()
            self.built[release, module] = out
        return self.built[release, module]


@pytest.fixture(scope="module")
def forge(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Forge:
    """The stand-in's systems."""
    folder = tmp_path_factory.mktemp("standin")
    (folder / "flakes").mkdir()
    return Forge(fleet.env(), folder / "flakes", upstream.create(folder / "nixpkgs.git"))


@dataclass
class Machine:
    """A host whose systems we switch by hand, seen from its console so that a dead network hides nothing."""

    host: Host
    forge: Forge
    fleet: Fleet

    def console(self, script: str, *args: str, check: bool = True) -> Result:
        return self.host.inside(["sh", "-c", script, "sh", *args], check=check)

    def has(self, system: str) -> str:
        """Copies the system there, if need be: a test before may have cut the network."""
        if self.console("test -e $1", system, check=False).ok:
            return system
        ssh = {"NIX_SSHOPTS": f"-F {self.fleet.folder}/ssh_config"}
        run(
            ["nix", "copy", "--no-check-sigs", "--to", f"ssh-ng://root@{self.host.name}", system],
            env={**self.forge.env, **ssh},
            timeout=60,
        )
        return system

    def have(self, release: str, module: str = SERVICES) -> str:
        return self.has(self.forge.build(release, module))

    def switch(self, system: str, *args: str, env: str = "") -> Result:
        return self.console(f'system=$1; shift; {env} "$system/bin/switch-to-configuration" "$@"', system, *args, check=False)

    def set_profile(self, system: str) -> None:
        self.console(f"nix-env -p {PROFILE} --set $1", system)

    def at(self, release: str, module: str = SERVICES) -> str:
        """Brings the host to this system, running, boot default and profile."""
        system = self.have(release, module)
        self.set_profile(system)
        assert self.switch(system, "switch", env="NIXOS_NO_CHECK=1").status == 0
        return system

    def running(self) -> str:
        return self.console("readlink -f /run/current-system").stdout.strip()

    def boot_default(self) -> str:
        """The system that the boot loader's default entry starts."""
        script = r"""
            entry=$(sed -n 's/^default //p' /boot/loader/loader.conf)
            sed -n 's|^options init=\(.*\)/init .*|\1|p' "/boot/loader/entries/$entry"
        """
        return self.console(script).stdout.strip()

    def pid(self, unit: str) -> str:
        return self.console(f"systemctl show -p MainPID --value {unit}").stdout.strip()

    def is_active(self, unit: str) -> bool:
        return self.console(f"systemctl is-active --quiet {unit}", check=False).status == 0

    def reboot(self) -> None:
        before = self.host.boot_id()
        self.console("systemctl --no-block reboot")
        deadline = time.monotonic() + 60
        while not self._has_started(before):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _has_started(self, before: str) -> bool:
        try:
            # A system that is going down or coming up may leave systemctl without an answer.
            state = self.host.inside(["systemctl", "is-system-running"], timeout=3, check=False).stdout.strip()
            return self.host.boot_id() != before and state in {"running", "degraded"}
        except TestbedError:
            return False  # off, between two boots


@pytest.fixture(scope="module")
def shared(fleet: Fleet, forge: Forge) -> Machine:
    """One host for the module."""
    fleet.reset("standin") if "standin" in fleet.hosts else fleet.up(["standin"])
    return Machine(fleet.host("standin"), forge, fleet)


@pytest.fixture
def machine(shared: Machine) -> Machine:
    """The host, at the second release with a web server and a database."""
    if {shared.running(), shared.boot_default()} != {shared.forge.build("25.05.2")}:
        shared.at("25.05.2")
    return shared


# -- refusing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["sideways"], ["test", "boot"]])
def test_usage(machine: Machine, args: list[str]) -> None:
    refused = machine.switch(machine.running(), *args)
    assert refused.status == 1
    assert refused.stderr.startswith("Usage: ")


def test_only_root_switches(machine: Machine) -> None:
    refused = machine.host.run([f"{machine.running()}/bin/switch-to-configuration", "test"], user="deploy", check=False)
    assert (refused.status, refused.stderr) == (1, "Error: This program must be run as root\n")


def test_only_nixos_is_switched(machine: Machine) -> None:
    machine.console("rm /etc/NIXOS")
    refused = machine.switch(machine.running(), "check")
    machine.console("touch /etc/NIXOS")
    assert (refused.status, refused.stderr) == (1, "Error: This is not a NixOS installation!\n")


def test_one_switch_at_a_time(machine: Machine) -> None:
    lock = "/run/nixos/switch-to-configuration.lock"
    script = f'flock {lock} "$1/bin/switch-to-configuration" test'
    refused = machine.console(script, machine.running(), check=False)
    assert (refused.status, refused.stderr) == (11, "Error: Could not acquire lock\n")


@pytest.mark.parametrize("action", ["check", "test", "switch"])
def test_an_inhibitor_refuses_a_live_switch(machine: Machine, action: str) -> None:
    before = machine.running()
    refused = machine.switch(machine.have("25.11.1"), action)
    assert refused.status == 1
    assert "There are changes to critical components of the system:\n\ndbus-implementation : dbus -> broker\n" in refused.stderr
    assert "Pre-switch check 'switchInhibitors' failed\n" in refused.stderr
    assert (machine.running(), machine.boot_default()) == (before, before)


@pytest.mark.parametrize(
    ("release", "action", "env", "status"),
    [
        ("25.05.3", "check", "", 0),
        ("bad-check", "check", "", 1),
        ("bad-check", "boot", "", 1),
        ("bad-check", "check", "NIXOS_NO_CHECK=1", 0),
        ("25.11.1", "boot", "", 0),
        ("25.11.1", "dry-activate", "", 0),
        ("25.11.1", "test", "NIXOS_NO_CHECK=1", 0),
        ("26.05.1", "test", "NIXOS_NO_CHECK=1", 100),
        ("26.05.1", "dry-activate", "", 100),
    ],
)
def test_checks_and_the_init_interface(machine: Machine, release: str, action: str, env: str, status: int) -> None:
    assert machine.switch(machine.have(release), action, env=env).status == status


def test_a_new_init_interface_is_installed_but_not_activated(machine: Machine) -> None:
    before = machine.running()
    system = machine.have("26.05.1")
    machine.set_profile(system)
    assert machine.switch(system, "switch", env="NIXOS_NO_CHECK=1").status == 100
    assert (machine.running(), machine.boot_default()) == (before, system)
    machine.set_profile(before)


# -- activating ------------------------------------------------------------------------------------------------------------


def test_dry_activate_tells_and_changes_nothing(machine: Machine) -> None:
    before, nscd = machine.at("25.05.1"), machine.pid("nscd")
    told = machine.switch(machine.have("25.05.2"), "dry-activate")
    assert told.stderr == (
        "would stop the following units: nscd.service\n"
        "would NOT stop the following changed units: postgresql.service\n"
        "would activate the configuration...\n"
        "would restart systemd\n"
        "would reload the following units: nginx.service\n"
        "would start the following units: nscd.service\n"
    )
    assert (machine.running(), machine.pid("nscd")) == (before, nscd)


def test_units_are_restarted_reloaded_and_left_alone(machine: Machine) -> None:
    machine.at("25.05.1")
    units = ("nscd", "nginx", "postgresql", "sshd", "systemd-networkd")
    machine.console("rm -f /run/nginx-reloaded")
    before = {unit: machine.pid(unit) for unit in units}
    done = machine.switch(machine.have("25.05.2"), "test")
    assert done.stderr == (
        "stopping the following units: nscd.service\n"
        "NOT restarting the following changed units: postgresql.service\n"
        "activating the configuration...\n"
        "restarting systemd...\n"
        "reloading the following units: nginx.service\n"
        "starting the following units: nscd.service\n"
    )
    assert {unit for unit in units if machine.pid(unit) != before[unit]} == {"nscd"}
    machine.console("test -e /run/nginx-reloaded")


def test_units_come_and_go(machine: Machine) -> None:
    here = machine.running()
    module = """
        systemd.services.job = { wantedBy = [ "multi-user.target" ]; script = "exec sleep infinity"; };
        systemd.sockets.page = { wantedBy = [ "sockets.target" ]; listenStreams = [ "8080" ]; socketConfig.Accept = true; };
        systemd.services."page@" = { serviceConfig.StandardInput = "socket"; script = "echo hello"; };
        systemd.services.clean = { startAt = "hourly"; script = "true"; };
    """
    came = machine.switch(machine.have("25.05.2", SERVICES + module), "test")
    assert came.status == 0
    assert came.stderr.endswith("the following new units were started: clean.timer, job.service, page.socket\n")
    with socket.create_connection((machine.host.address, 8080), 5) as page:
        assert page.recv(100) == b"hello\n"
    went = machine.switch(here, "test")
    assert "stopping the following units: clean.timer, job.service, page.socket\n" in went.stderr
    assert not any(machine.is_active(unit) for unit in ("job.service", "page.socket", "clean.timer"))


def test_a_service_behind_a_socket_is_stopped_with_it_and_the_socket_started(machine: Machine) -> None:
    module = """
        systemd.sockets.echo = { wantedBy = [ "sockets.target" ]; listenStreams = [ "8081" ]; };
        systemd.services.echo = { script = "exec sleep %s"; };
        systemd.timers.tick = { wantedBy = [ "timers.target" ]; timerConfig.OnUnitActiveSec = %s; };
        systemd.services.tick.script = "true";
    """
    machine.at("25.05.2", SERVICES + module % (1000, 60))
    machine.console("systemctl start echo.service")
    done = machine.switch(machine.have("25.05.2", SERVICES + module % (2000, 90)), "test")
    assert "stopping the following units: echo.service, echo.socket, tick.timer\n" in done.stderr
    assert "starting the following units: echo.socket, tick.timer\n" in done.stderr
    assert machine.is_active("echo.socket")
    assert not machine.is_active("echo.service")


def test_etc_follows_the_system_and_leaves_other_files_alone(machine: Machine) -> None:
    listing = "cd /etc && find . -path ./static -prune -o -printf '%p %y %l\\n' | sort"
    here, before = machine.running(), machine.console(listing).stdout
    machine.console("echo mine > /etc/mine; mkdir -p /etc/app; echo mine > /etc/app/conf")
    module = 'environment.etc = { mine.text = "theirs"; "app/conf".text = "theirs"; "app/other".text = "x"; };'
    system = machine.have("25.05.2", SERVICES + module)
    changed = machine.switch(system, "test")
    assert "warning: /etc/mine is not managed by this system; leaving it alone\n" in changed.stderr
    assert machine.console("cat /etc/mine /etc/app/conf /etc/app/other; readlink /etc/app/other").stdout == (
        "mine\nmine\nx" + "/etc/static/app/other\n"
    )
    assert machine.switch(here, "test").status == 0
    machine.console("rm /etc/mine /etc/app/conf; rmdir /etc/app")
    assert machine.console(listing).stdout == before


@pytest.mark.parametrize(
    ("release", "status", "message"),
    [
        ("bad-unit", 4, "warning: the following units failed: fleet-agent.service\n"),
        ("bad-late-unit", 0, "the following new units were started: fleet-agent.service\n"),
        ("bad-activation", 2, "Activation script snippet 'secrets' failed (1)\n"),
        ("bad-sshd", 4, "warning: the following units failed: sshd.service\n"),
        ("bad-sshd-port", 0, "restarting the following units: sshd.service\n"),
        ("bad-network", 0, "restarting the following units: systemd-networkd.service\n"),
    ],
)
def test_bad_releases_and_the_way_back(machine: Machine, release: str, status: int, message: str) -> None:
    before, system = machine.running(), machine.have(release)
    done = machine.switch(system, "test")
    assert done.status == status, done.stderr
    assert message in done.stderr
    assert (machine.running(), machine.boot_default()) == (system, before)
    assert machine.host.answers() is (release not in {"bad-sshd", "bad-sshd-port", "bad-network"})
    assert machine.switch(before, "test").status == 0
    machine.host.wait_for_sshd(10)
    assert machine.console("systemctl list-units --failed --plain --no-legend").stdout == ""


def test_a_late_failure_is_seen_afterwards(machine: Machine) -> None:
    machine.switch(machine.have("bad-late-unit"), "test")
    deadline = time.monotonic() + 10
    while not machine.console("systemctl is-failed --quiet fleet-agent", check=False).ok:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_units_that_fail_hide_a_failed_activation(machine: Machine) -> None:
    module = SERVICES + 'system.activationScripts.bad = "exit 5";'
    done = machine.switch(machine.have("bad-unit", module), "test")
    assert done.status == 4
    assert "Activation script snippet 'bad' failed (5)\n" in done.stderr


def test_an_interrupted_switch_is_finished_by_the_next(machine: Machine) -> None:
    hanging = machine.have("bad-hang")
    machine.at("25.05.1")
    here, back = machine.running(), machine.have("25.05.2")
    script = """
        setsid "$1/bin/switch-to-configuration" test > /dev/null 2>&1 &
        until pgrep -fx "sleep 86400"; do sleep 0.1; done
        /bin/kill -KILL -- "-$!"
    """
    machine.console(script, hanging, check=False)
    assert not machine.is_active("nscd")
    assert machine.console("cat /run/nixos/start-list").stdout.splitlines() == ["multi-user.target", "nscd.service"]
    assert machine.running() == here
    assert machine.switch(back, "test").status == 0
    assert machine.is_active("nscd")
    assert not machine.console("ls /run/nixos/*-list", check=False).stdout


def test_a_specialisation_and_back(machine: Machine) -> None:
    module = SERVICES + 'specialisation.quiet.configuration.boot.kernelParams = [ "quiet" ];'
    system = machine.at("25.05.2", module)
    child = machine.console("readlink -f $1/specialisation/quiet", system).stdout.strip()
    assert child != system
    assert machine.switch(f"{system}/specialisation/quiet", "test").status == 0
    assert machine.running() == child
    assert machine.switch(system, "test").status == 0
    assert machine.running() == system
    number = machine.console(f"readlink {PROFILE}").stdout.strip().split("-")[1]
    entry = machine.console(f"cat /boot/loader/entries/nixos-generation-{number}-specialisation-quiet.conf").stdout
    assert f"options init={child}/init loglevel=4 quiet\n" in entry


# -- booting ---------------------------------------------------------------------------------------------------------------


def test_the_boot_default_is_a_generation_of_the_profile(machine: Machine) -> None:
    here, system = machine.running(), machine.have("25.05.5")
    assert machine.switch(system, "boot").status == 0
    assert machine.boot_default() == here, "a system that is not in the profile has no entry"
    machine.set_profile(system)
    assert machine.switch(system, "boot").status == 0
    assert (machine.running(), machine.boot_default()) == (here, system)
    machine.set_profile(here)
    assert machine.switch(here, "boot").status == 0


def test_a_full_boot_partition_fails_before_anything_else(machine: Machine) -> None:
    here, system = machine.running(), machine.have("25.05.3", SERVICES + "boot.kernelPackages = pkgs.linuxPackages;")
    machine.set_profile(system)
    machine.fleet.fault(machine.host.name, "fill-disk", "/boot", "100")
    failed = machine.switch(system, "switch")
    machine.fleet.fault(machine.host.name, "free-disk", "/boot")
    assert failed.status == 1
    assert failed.stderr.endswith("Error: Failed to install bootloader\n")
    assert (machine.running(), machine.boot_default()) == (here, here)
    machine.set_profile(here)
    assert machine.console("ls -A /boot/EFI/nixos | grep -c tmp", check=False).stdout == "0\n"


@pytest.mark.parametrize("release", ["25.05.5", "26.05.1"])
def test_what_needs_a_reboot_gets_it(machine: Machine, release: str) -> None:
    before, system = machine.running(), machine.have(release)
    machine.set_profile(system)
    assert machine.switch(system, "boot").status == 0
    kernels = machine.console("readlink -f /run/booted-system/kernel $1/kernel", system).stdout.split()
    assert kernels[0] != kernels[1]
    machine.reboot()
    booted = machine.console("readlink -f /run/booted-system /run/current-system; hostname").stdout.split()
    assert booted == [system, system, "target"]
    assert machine.host.answers()
    # Back, by the boot loader: another init interface lets no other way.
    machine.set_profile(before)
    assert machine.switch(before, "boot").status == 0
    machine.reboot()
    assert machine.running() == before


def test_bad_boot_is_bad_only_once_booted(machine: Machine) -> None:
    here = machine.running()
    machine.at("bad-boot")
    assert machine.is_active("sshd")
    machine.reboot()
    assert not machine.is_active("sshd")
    assert machine.console("systemctl list-units --failed --plain --no-legend").stdout.startswith("boot-breaker.service")
    machine.set_profile(here)


# -- building --------------------------------------------------------------------------------------------------------------


def test_a_toplevel_has_what_nixos_gives_it(forge: Forge) -> None:
    system = Path(forge.build("25.05.2"))
    assert {path.name for path in system.iterdir()} >= {
        *("activate", "append-initrd-secrets", "bin", "boot.json", "dry-activate", "etc", "firmware", "init", "initrd"),
        *("init-interface-version", "kernel", "kernel-modules", "kernel-params", "nixos-version", "specialisation"),
        *("sw", "switch-inhibitors", "system", "systemd"),
    }
    assert (system / "nixos-version").read_text() == "25.05.2"
    assert (system / "init-interface-version").read_text() == "systemd 2"
    assert json.loads((system / "switch-inhibitors").read_text()) == {"dbus-implementation": "dbus"}
    bootspec = json.loads((system / "boot.json").read_text())["org.nixos.bootspec.v1"]
    assert bootspec["toplevel"] == str(system)
    assert Path(bootspec["kernel"]) == (system / "kernel").resolve()


def test_another_architecture_builds_here(forge: Forge) -> None:
    system = forge.nix(
        "build", "--no-write-lock-file", "--no-link", "--print-out-paths", forge.flake("25.05.2", "", "aarch64-linux")
    ).stdout.strip()
    assert (Path(system) / "system").read_text() == "aarch64-linux"
    assert (Path(system) / "kernel").resolve().name == "Image"


def test_documentation_changes_no_system(forge: Forge) -> None:
    assert forge.build("docs-only") == forge.build("25.05.3")


@pytest.mark.parametrize(
    ("release", "module", "message"),
    [
        ("bad-eval", "", "attribute 'openssl_1_1' missing"),
        ("bad-assertion", SERVICES, "Failed assertions:\n.*- PostgreSQL 13 has reached its end of life."),
        ("bad-build", "", "curl: 1 of 318 tests failed"),
        ("bad-build-nginx", SERVICES, "nginx: 1 of 318 tests failed"),
        ("25.05.1", "services.opnessh.enable = true;", "The option `services.opnessh' does not exist."),
        ("25.05.1", 'services.nginx.enable = "yes";', "`services.nginx.enable' is not of type `boolean'"),
        ("25.05.1", "system.nixos.label = lib.mkMerge [ ''1'' ''2'' ];", "`system.nixos.label' has conflicting definition"),
    ],
)
def test_what_does_not_build_says_why(forge: Forge, release: str, module: str, message: str) -> None:
    failed = forge.nix("build", "--no-write-lock-file", "--no-link", forge.flake(release, module), check=False)
    assert failed.status == 1
    assert re.search(message.replace("`", "[`]"), failed.stderr, re.DOTALL), failed.stderr


@pytest.mark.parametrize("release", ["bad-assertion", "bad-build-nginx"])
def test_some_bad_releases_spare_plain_hosts(forge: Forge, release: str) -> None:
    assert forge.build(release, "")


def test_closures_differ_by_versions(forge: Forge) -> None:
    told = forge.nix("store", "diff-closures", forge.build("25.05.1"), forge.build("25.05.2"), check=False)
    plain = re.sub("\x1b\\[[0-9;]*m", "", told.stdout)
    assert "openssl: 3.4.1 → 3.4.2" in plain
    assert "nginx: 1.28.0 → 1.28.1" in plain
