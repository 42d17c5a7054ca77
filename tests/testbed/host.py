# SPDX-License-Identifier: GPL-3.0-or-later
"""One host of a fleet: a systemd-nspawn container with its own disks, address and keys, under a supervisor."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cgroups, disks, keys, network, processes
from .commands import Result, run
from .errors import TestbedError
from .mounts import unmount_below
from .places import HERE

#: What systemd-nspawn keeps of its containers, and leaves behind when it is killed.
_NSPAWN = Path("/run/systemd/nspawn")

_NETWORK = """[Match]
Name=host0

[Network]
Address={address}/24
LinkLocalAddressing=no
IPv6AcceptRA=no
LLMNR=no
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A host by what never changes while its fleet lives. `folder` is its state on this machine, `fleet` that of its fleet."""

    name: str
    index: int
    subnet: network.Subnet
    fleet: Path
    layers: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """The host's state on this machine."""
        return self.fleet / "hosts" / self.name

    @property
    def root(self) -> Path:
        """The host's file system as this machine sees it."""
        return self.folder / "root"

    @property
    def address(self) -> str:
        """The host's address."""
        return self.subnet.address(self.index)

    @property
    def link(self) -> str:
        """This machine's end of the host's cable."""
        return self.subnet.link(self.index)

    @property
    def cgroup(self) -> Path:
        """The cgroup of everything that runs for the host."""
        return cgroups.host_cgroup(self.fleet.name, self.name)

    @property
    def console(self) -> Path:
        """What the host wrote to its console."""
        return self.folder / "console.log"

    # -- life -----------------------------------------------------------------------------------------------------------

    def ensure_identity(self) -> str:
        """Have an ssh host key and a machine id, which outlive resets; return the public key."""
        public = keys.ensure_key(self.folder / "identity/ssh_host_ed25519_key", f"root@{self.name}")
        machine_id = self.folder / "identity/machine-id"
        if not machine_id.exists():
            machine_id.write_text(f"{uuid.uuid4().hex}\n")
        return public

    def create(self, authorized_key: str, hosts_file: str) -> None:
        """Fresh disks with the host's identity on them; whatever ran or lay there before is gone."""
        self.destroy()
        disks.attach(self.folder, self.layers)
        etc = self.root / "etc"
        for file in (self.folder / "identity").iterdir():
            shutil.copy(file, etc / ("machine-id" if file.name == "machine-id" else f"ssh/{file.name}"))
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(hosts_file)
        (etc / "systemd/network/10-testbed.network").write_text(_NETWORK.format(address=self.address))
        (etc / "ssh/authorized_keys.d").mkdir(exist_ok=True)
        for user in keys.USERS:
            (etc / "ssh/authorized_keys.d" / user).write_text(f"{authorized_key}\n")

    def destroy(self) -> None:
        """Power off, and throw the disks away."""
        self.power_cut()
        for flag in ("link-down", "slow"):
            (self.folder / flag).unlink(missing_ok=True)
        disks.detach(self.folder)

    def power_on(self) -> None:
        """Start the supervisor, unless the host is on."""
        if self.is_on():
            return
        self.power_cut()
        cgroups.make(self.cgroup)
        command = [HERE / "supervisor.sh", self.folder, self.cgroup, self.link, *self._nspawn()]
        with self.console.open("ab") as console:
            # setsid forks: the supervisor is init's child, not that of whoever happens to turn the host on.
            subprocess.run(
                ["setsid", "--fork", *(str(word) for word in command)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd="/",
                check=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )

    def _nspawn(self) -> list[str]:
        return [
            *("systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--console=read-only"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off", "--capability=all", "--kill-signal=SIGRTMIN+3"),
            *(f"--machine={self.subnet.machine(self.index)}", f"--hostname={self.name}"),
            *(f"--uuid={(self.folder / 'identity/machine-id').read_text().strip()}",),
            *(f"--directory={self.root}", f"--network-bridge={self.subnet.bridge}", "/sbin/stage-1"),
        ]

    def power_cut(self) -> None:
        """End everything that runs for the host at one stroke, as when the power goes."""
        cgroups.end(self.cgroup)
        # Nothing of it is left but what the kernel or systemd-nspawn would have tidied up.
        for name in ("supervisor", "nspawn"):
            if process := processes.recorded(self.folder / f"{name}.pid"):
                processes.kill(process)
                (self.folder / f"{name}.pid").unlink(missing_ok=True)
        network.remove_link(self.link)
        for kind in ("propagate", "unix-export"):
            # systemd-nspawn 257 mounts something there, and refuses to start while it is.
            unmount_below(_NSPAWN / kind / self.subnet.machine(self.index))
            shutil.rmtree(_NSPAWN / kind / self.subnet.machine(self.index), ignore_errors=True)
        if self.root.exists():
            identity = self.root.stat()
            (_NSPAWN / f"locks/inode-{identity.st_dev}:{identity.st_ino}").unlink(missing_ok=True)

    def is_on(self) -> bool:
        """True while its supervisor runs and its disks are there: also while it reboots."""
        return self._supervised() and disks.attached(self.folder)

    def _supervised(self) -> bool:
        supervisor = processes.recorded(self.folder / "supervisor.pid")
        return supervisor is not None and processes.alive(supervisor)

    def wait_for_sshd(self, timeout: float = 60.0) -> None:
        """Return once sshd answers."""
        deadline = time.monotonic() + timeout
        while not self.answers():
            if time.monotonic() > deadline:
                raise TestbedError(self.name, f"its sshd has not answered within {timeout:.0f} s", f"Look: {self.console}")
            time.sleep(0.05)

    def wait_for_boot(self, timeout: float = 60.0) -> str:
        """Return once systemd has started everything: `running` or `degraded`."""
        self.wait_for_sshd(timeout)
        state = self.inside(["systemctl", "is-system-running", "--wait"], timeout=timeout, check=False)
        return state.stdout.strip()

    def answers(self, timeout: float = 1.0) -> bool:
        """True if sshd says hello."""
        try:
            with socket.create_connection((self.address, 22), timeout) as connection:
                connection.settimeout(timeout)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    # -- access ---------------------------------------------------------------------------------------------------------

    def ssh_command(self, words: Sequence[str] = (), *, user: str = "root") -> list[str]:
        """The ssh command for a shell there, or for running words there."""
        return ["ssh", "-F", str(self.fleet / "ssh_config"), "-l", user, self.name, *([shlex.join(words)] if words else [])]

    def run(
        self,
        command: str | Sequence[str],
        *,
        user: str = "root",
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
    ) -> Result:
        """Run a shell command (text) or argv there, over a fresh ssh connection."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        return run(self.ssh_command(words, user=user), stdin=stdin, timeout=timeout, check=check)

    def inside(self, argv: Sequence[str], *, timeout: float = 60.0, check: bool = True) -> Result:
        """Run argv there without the network, as from the console."""
        init = self.init()
        if init is None:
            raise TestbedError(self.name, "it is off", f"Turn it on: fault {self.name} power-on")
        fence = ["nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--"]
        return run(
            [*fence, *argv], timeout=timeout, check=check, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        )

    def init(self) -> int | None:
        """The id here of the host's PID 1, None while it is off."""
        nspawn = processes.recorded(self.folder / "nspawn.pid")
        return processes.namespace_init(nspawn) if nspawn else None

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the host's disk, whether it is on or off; not in /run and /tmp, which only the running host has."""
        # chroot: an absolute link in the host must not lead to a file of this machine.
        script = 'mkdir -p "$(dirname "$0")" && cat >"$0" && chmod "$1" "$0"'
        run(["chroot", self.root, "/bin/sh", "-c", script, path, f"{mode:o}"], stdin=text)

    def read(self, path: str) -> str:
        """A file on the host's disk."""
        return run(["chroot", self.root, "/bin/cat", path]).stdout

    def boot_id(self) -> str:
        """The kernel's boot id as the host sees it: systemd-nspawn gives it a new one for each boot."""
        return self.inside(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
