# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of hosts on this machine: up from whatever is there, down to nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from . import base, cgroups, controller_nix, faults, installer, keys, network, prerequisites, state
from .errors import TestbedError
from .host import Host
from .locks import EVERYTHING, locked
from .mounts import unmount_below
from .places import CACHE, STATE, checked_name
from .state import FleetState


@dataclass(frozen=True, slots=True)
class HostStatus:
    """How a host is: on (power), answers (sshd), and which system it booted (a store path, "" if it cannot be told)."""

    name: str
    address: str
    on: bool
    answers: bool
    system: str

    def plain(self) -> dict[str, str | bool]:
        """As JSON has it."""
        return asdict(self)


#: Seconds that a host which is on gets to answer before `up` takes it for broken (a reboot takes three).
_PATIENCE = 10.0


def _silent(_line: str) -> None:
    return None


class Fleet:
    """A named fleet; its state is on this machine, so that any number of objects may speak of the same one.

    name: of letters, digits and dashes. hosts: those that `up` brings up when it is told no others. say: is given progress lines.
    As a context manager it goes down at the end.
    """

    def __init__(self, name: str, hosts: Sequence[str] = (), *, say: Callable[[str], None] = _silent) -> None:
        self.name = checked_name("fleet", name)
        self.wanted = tuple(checked_name("host", host) for host in hosts)
        self.say = say

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.down()

    # -- what there is --------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The fleet's state: key, known_hosts, ssh_config, fleet.json, hosts/."""
        return STATE / self.name

    @property
    def hosts(self) -> dict[str, Host]:
        """The fleet's hosts by name, whether they are on or off."""
        known = state.load(self.folder)
        return self._hosts(known) if known else {}

    def host(self, name: str) -> Host:
        """The host of that name."""
        hosts = self.hosts
        if name not in hosts:
            raise TestbedError(name, f"fleet {self.name} has no such host", f"It has: {', '.join(hosts) or 'none'}.")
        return hosts[name]

    def status(self) -> list[HostStatus]:
        """How each host is, now."""
        hosts = list(self.hosts.values())
        with _workers(hosts) as pool:
            return list(pool.map(_status, hosts))

    def env(self) -> dict[str, str]:
        """The environment for a controller: nix on PATH, its configuration, and ssh's ways to the hosts, added to ours."""
        known = self._known()
        return {
            **controller_nix.environment(known.controller),
            "FLOTILLA_TESTBED": self.name,
            "FLOTILLA_TESTBED_SSH_CONFIG": str(self.folder / "ssh_config"),
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.folder / "key"),
            "ANSIBLE_SSH_COMMON_ARGS": f"-o UserKnownHostsFile={self.folder}/known_hosts -o GlobalKnownHostsFile=/dev/null",
        }

    def exports(self) -> dict[str, str]:
        """What `env` adds to our environment."""
        return {name: value for name, value in self.env().items() if os.environ.get(name) != value}

    # -- up and down ----------------------------------------------------------------------------------------------------

    def up(self, hosts: Sequence[str] = (), *, fresh: bool = False, boot_timeout: float = 60.0) -> Fleet:
        """Have these hosts up. One that is up already stays as it is, unless fresh; others of the fleet are left alone.

        Whatever a killed run left (processes, mounts, cables, half-written files) is found by what was recorded, and replaced.
        """
        names = [checked_name("host", host) for host in hosts] or list(self.wanted)
        prerequisites.check()
        with locked(self.name):
            known = self._settle(names)
            network.make_bridge(known.subnet)
            everyone = self._hosts(known)
            self._write_ssh_files(everyone)
            chosen = [everyone[name] for name in names]
            self._in_parallel(chosen, lambda host: self._bring_up(host, everyone, fresh, boot_timeout))
        return self

    def down(self) -> None:
        """Leave nothing of the fleet: no process, mount, bridge or file."""
        with locked(self.name):
            known = state.load(self.folder)
            hosts = self._hosts(known) if known else {}
            self._in_parallel(list(hosts.values()), Host.destroy)
            for left in self._left_cgroups():
                cgroups.end(left)
            if known:
                network.remove_link(known.subnet.bridge)
            base.remove_folder(self.folder)

    def reset(self, *names: str) -> None:
        """Give these hosts (none named: all) fresh disks and boot them: as new, same keys and addresses."""
        self.up(names or list(self._known().hosts), fresh=True)

    def fault(self, host: str, fault: str, *arguments: str) -> str:
        """Do something bad to a host, or mend it: see faults.FAULTS. Returns a clause that says what was done."""
        with locked(self.name):
            return faults.apply(self.host(host), fault, *arguments)

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _known(self) -> FleetState:
        known = state.load(self.folder)
        if known is None:
            raise TestbedError(f"fleet {self.name}", "it is not up", f"Run: tests/testbed/testbed --fleet {self.name} up HOST…")
        return known

    def _hosts(self, known: FleetState) -> dict[str, Host]:
        return {
            name: Host(name, index, known.subnet, self.folder, known.layers)
            for name, index in sorted(known.hosts.items(), key=lambda item: item[1])
        }

    def _settle(self, names: Sequence[str]) -> FleetState:
        """The fleet's state with these hosts in it, written down before anything is started."""
        with locked(EVERYTHING, timeout=1800):
            controller, layers = prepare(self.say)
            known = state.load(self.folder)
            if known is None or known.layers != layers:
                known = self._anew(known, layers, controller)
            for name in names:
                if name not in known.hosts:
                    known = replace(known, hosts={**known.hosts, name: network.free_index(known.hosts.values())})
            state.save(self.folder, known)
        return known

    def _anew(self, old: FleetState | None, layers: tuple[Path, ...], controller: Path) -> FleetState:
        """A new state; hosts that lie on other layers, or that nobody has a record of, are destroyed."""
        for host in self._hosts(old).values() if old else ():
            host.destroy()
        for left in self._left_cgroups():
            cgroups.end(left)
        unmount_below(self.folder)
        if old:
            return replace(old, layers=layers, controller=controller)
        taken = {fleet.subnet.number for fleet in state.all_fleets().values()} | network.taken_on_this_machine()
        return FleetState(network.free_subnet(taken), layers, controller)

    def _left_cgroups(self) -> list[Path]:
        parent = cgroups.host_cgroup(self.name, "any").parent
        return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []

    def _write_ssh_files(self, hosts: dict[str, Host]) -> None:
        keys.ensure_key(self.folder / "key", f"testbed-{self.name}")
        if user := os.environ.get("SUDO_UID"):
            # ssh refuses a key that is not the user's own.
            os.chown(self.folder / "key", int(user), -1)
        public = {name: (host.address, host.ensure_identity()) for name, host in hosts.items()}
        (self.folder / "known_hosts").write_text(keys.known_hosts(public))
        config = keys.ssh_config(self.folder, {name: host.address for name, host in hosts.items()})
        (self.folder / "ssh_config").write_text(config)

    def _bring_up(self, host: Host, everyone: dict[str, Host], fresh: bool, timeout: float) -> None:
        if fresh or not self._is_well(host):
            hosts_file = "127.0.0.1 localhost\n" + "".join(f"{h.address} {h.name}\n" for h in everyone.values())
            host.create((self.folder / "key.pub").read_text().strip(), hosts_file)
            host.power_on()
            host.wait_for_boot(timeout)
        self.say(f"{host.name} is up at {host.address}")

    def _is_well(self, host: Host) -> bool:
        """True if the host is on and answers; it may be in the middle of a reboot."""
        if not host.is_on():
            return False
        try:
            host.wait_for_boot(_PATIENCE)
        except TestbedError as error:
            self.say(f"{error} Replacing it.")
            return False
        return True

    @staticmethod
    def _in_parallel(hosts: Sequence[Host], work: Callable[[Host], None]) -> None:
        with _workers(hosts) as pool:
            list(pool.map(work, hosts))


def prepare(say: Callable[[str], None]) -> tuple[Path, tuple[Path, ...]]:
    """What all fleets share, built if need be: the controller's nix, the hosts' layers. The caller holds everything's lock."""
    root = base.ensure(say)
    controller = controller_nix.ensure(root)
    layers = (installer.ensure(root, controller, say), root.root)
    _prune(layers)
    return controller, layers


def _prune(layers: Sequence[Path]) -> None:
    """Remove what is cached and lies neither among these layers nor under any fleet."""
    used = {*layers, *(layer for fleet in state.all_fleets().values() for layer in fleet.layers)}
    for folder in (*CACHE.glob("base-*/installer-*"), *CACHE.glob("base-*")):
        if not any(layer.is_relative_to(folder) for layer in used):
            base.remove_folder(folder)


@contextmanager
def _workers(hosts: Sequence[Host]) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max(1, min(32, len(hosts)))) as pool:
        yield pool


def _status(host: Host) -> HostStatus:
    system = ""
    if on := host.init() is not None:
        system = host.inside(["readlink", "/run/booted-system"], check=False).stdout.strip()
    return HostStatus(host.name, host.address, on, on and host.answers(), system)
