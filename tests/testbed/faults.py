# SPDX-License-Identifier: GPL-3.0-or-later
"""Real faults: cables, power, disks, sshd."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import disks, network
from .errors import TestbedError
from .host import Host

#: Every way in which systemd could start sshd, and the sessions that are open.
_SSHD_UNITS = ("sshd.socket", "sshd.service")


def link_down(host: Host) -> str:
    """Cut the cable; it stays cut over reboots."""
    (host.folder / "link-down").touch()
    if network.exists(host.link):
        network.set_link(host.link, up=False)
    return "its cable is cut"


def link_up(host: Host) -> str:
    """Mend the cable."""
    (host.folder / "link-down").unlink(missing_ok=True)
    if network.exists(host.link):
        network.set_link(host.link, up=True)
    return "its cable is mended"


def power_cut(host: Host) -> str:
    """Pull the power: every process is gone at one stroke, the disks stay as they are."""
    host.power_cut()
    return "it is off"


def power_on(host: Host) -> str:
    """Put the power back; does not wait for the host."""
    host.power_on()
    return "it is on"


def kill_sshd(host: Host) -> str:
    """Stop sshd, and end the sessions that are open."""
    host.inside(["systemctl", "stop", *_SSHD_UNITS], check=False)
    host.inside(["pkill", "-KILL", "-x", "sshd|sshd-session|sshd-auth"], check=False)
    if host.answers():
        raise TestbedError(host.name, "its sshd is still there after systemctl stop")
    return "its sshd is gone"


def start_sshd(host: Host) -> str:
    """Start sshd again."""
    host.inside(["systemctl", "start", "sshd.service"])
    return "its sshd is back"


def slow(host: Host, milliseconds: str = "100") -> str:
    """Slow what is sent to the host, until it reboots or `fast`."""
    if not milliseconds.isdecimal():
        raise TestbedError(host.name, f"{milliseconds!r} is no number of milliseconds", "Try: slow 100")
    return network.slow_link(host.link, int(milliseconds))


def fast(host: Host) -> str:
    """Take the slowness away."""
    network.fast_link(host.link)
    return "its link is as fast as it can be"


def fill_disk(host: Host, path: str = "/nix", free_kib: str = "0") -> str:
    """Fill the disk that is mounted at path (/, /nix or /boot) but for that many KiB."""
    if not free_kib.isdecimal():
        raise TestbedError(host.name, f"{free_kib!r} is no number of KiB", "Try: fill-disk /nix 64")
    return disks.fill(host.folder, path, int(free_kib))


def free_disk(host: Host, path: str = "/nix") -> str:
    """Give that disk its room back."""
    return disks.free(host.folder, path)


FAULTS: Mapping[str, Callable[..., str]] = {
    "link-down": link_down,
    "link-up": link_up,
    "power-cut": power_cut,
    "power-on": power_on,
    "fill-disk": fill_disk,
    "free-disk": free_disk,
    "kill-sshd": kill_sshd,
    "start-sshd": start_sshd,
    "slow": slow,
    "fast": fast,
}


def apply(host: Host, fault: str, *arguments: str) -> str:
    """Do it, and return one clause that says what was done."""
    if fault not in FAULTS:
        raise TestbedError(host.name, f"there is no fault {fault!r}", f"Choose one of {', '.join(FAULTS)}.")
    return FAULTS[fault](host, *arguments)
