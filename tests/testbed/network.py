# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and links: one bridge and one 10.213.N.0/24 per fleet, one cable per host."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .commands import run
from .errors import TestbedError

#: Host numbers begin here; .1 is this machine.
FIRST_HOST = 11
MOST_HOSTS = 240


@dataclass(frozen=True, slots=True)
class Subnet:
    """The N-th subnet, with the names that derive from it (kernel: at most 15 characters)."""

    number: int

    @property
    def bridge(self) -> str:
        """The bridge's interface."""
        return f"flotilla{self.number}"

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge."""
        return f"10.213.{self.number}.1"

    def address(self, index: int) -> str:
        """The address of the host with that index."""
        return f"10.213.{self.number}.{FIRST_HOST + index}"

    def machine(self, index: int) -> str:
        """The name that systemd-nspawn knows the host by."""
        return f"f{self.number}h{index}"

    def link(self, index: int) -> str:
        """This machine's end of the host's cable, as systemd-nspawn names it."""
        return f"vb-{self.machine(index)}"


def free_subnet(taken: Collection[int]) -> Subnet:
    """The lowest subnet that nobody has."""
    for number in range(1, 255):
        if number not in taken:
            return Subnet(number)
    raise TestbedError("10.213.0.0/16", "all subnets are taken", "Take fleets down: tests/testbed/testbed --fleet NAME down")


def free_index(taken: Collection[int]) -> int:
    """The lowest host index that nobody in the fleet has."""
    for index in range(MOST_HOSTS):
        if index not in taken:
            return index
    raise TestbedError("fleet", f"it has {MOST_HOSTS} hosts already")


def subnets_in_use(ip_json: str) -> set[int]:
    """Numbers of our subnets that some interface of this machine has an address in, from `ip -json addr`."""
    found = set()
    for interface in json.loads(ip_json):
        for entry in interface.get("addr_info", []):
            parts = entry.get("local", "").split(".")
            if parts[:2] == ["10", "213"]:
                found.add(int(parts[2]))
    return found


def taken_on_this_machine() -> set[int]:
    """Subnets that interfaces of this machine have addresses in."""
    return subnets_in_use(run(["ip", "-json", "-4", "addr"]).stdout)


def exists(interface: str) -> bool:
    """True if this machine has that interface."""
    return Path("/sys/class/net", interface).exists()


def make_bridge(subnet: Subnet) -> None:
    """Have the bridge, up and with this machine's address; a killed run may have left any part of it."""
    if not exists(subnet.bridge):
        run(["ip", "link", "add", subnet.bridge, "type", "bridge"])
    run(["ip", "addr", "replace", f"{subnet.gateway}/24", "dev", subnet.bridge])
    run(["ip", "link", "set", subnet.bridge, "up"])


def remove_link(interface: str) -> None:
    """Remove the interface (a bridge, or a cable with both its ends) if it is there."""
    if exists(interface):
        run(["ip", "link", "delete", interface], check=False)


def set_link(interface: str, *, up: bool) -> None:
    """Mend or cut a cable at this machine's end."""
    run(["ip", "link", "set", interface, "up" if up else "down"])


def slow_link(interface: str, milliseconds: int) -> str:
    """Slow what goes to the host; say how. With netem each packet is late; without, a full packet takes that long to pass."""
    late = run(["tc", "qdisc", "replace", "dev", interface, "root", "netem", "delay", f"{milliseconds}ms"], check=False)
    if late.ok:
        return f"each packet to it is {milliseconds} ms late"
    rate = narrow_rate(milliseconds)
    limits = ["rate", f"{rate}bit", "burst", "1600", "latency", "5s"]
    run(["tc", "qdisc", "replace", "dev", interface, "root", "tbf", *limits])
    return f"this kernel has no netem, so the link to it is {rate // 1000} kbit/s: a full packet takes {milliseconds} ms"


def narrow_rate(milliseconds: int) -> int:
    """Bits per second at which a full Ethernet frame takes that long."""
    return max(8000, 1514 * 8 * 1000 // max(1, milliseconds))


def fast_link(interface: str) -> None:
    """Take the slowness away."""
    run(["tc", "qdisc", "delete", "dev", interface, "root"], check=False)
