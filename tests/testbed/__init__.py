# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed: a fleet of hosts with real systemd, sshd and nix on one machine, in seconds. See README.md beside this file."""

from .errors import TestbedError
from .fleet import Fleet, HostStatus
from .host import Host

__all__ = ["Fleet", "Host", "HostStatus", "TestbedError"]
