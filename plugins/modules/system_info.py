# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.system_info, which is an action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: system_info
short_description: See which system a NixOS host runs, booted, would boot, and how it is
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Asks a host, in one round trip, for the systems that it runs, booted, has in its profile and would boot, and for what
    one wants to know before and after a change.
  - A boot default is named only where it can be read (systemd-boot, extlinux). It is never guessed.
  - Without root everything but the guard is known.
requirements:
  - NixOS on the host; no Python
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.attributes.info_module
options:
  system:
    description: The system that the host should run, a store path. RV(reboot_needed), RV(inhibitors) and RV(drift) are then
      about it.
    type: str
  allow_unreachable:
    description:
      - Have RV(reachable=false) for a host that does not answer, instead of a failure.
      - A host whose key is unknown or has changed, or that lets nobody in, does answer. That is always a failure.
    type: bool
    default: false
seealso:
  - module: flotilla.nixos.system_activate
"""

EXAMPLES = r"""
- name: See how the hosts are
  flotilla.nixos.system_info:
    allow_unreachable: true
  register: seen
"""

RETURN = r"""
reachable:
  description: Whether the host answered.
  type: bool
  returned: success
msg:
  description: Why it did not.
  type: str
  returned: when it did not
running:
  description: The system that runs, the store path behind C(/run/current-system).
  type: str
  returned: when reachable
booted:
  description: The system that was booted, "" if that is not known (as in some containers).
  type: str
  returned: when reachable
profile:
  description: The system of the system profile.
  type: str
  returned: when reachable
boot_default:
  description: The system that a power cycle would boot, null where that cannot be known.
  type: str
  returned: when reachable
loader:
  description: The boot loader, V(systemd-boot), V(extlinux), V(grub) or V(unknown).
  type: str
  returned: when reachable
generation:
  description: The number of the profile's generation.
  type: int
  returned: when reachable
boot_id:
  description: The kernel's id for this boot.
  type: str
  returned: when reachable
since:
  description: When the running system was activated, in seconds since 1970.
  type: int
  returned: when reachable
uptime:
  description: Seconds since the boot.
  type: int
  returned: when reachable
state:
  description: What C(systemctl is-system-running) says.
  type: str
  returned: when reachable
platform:
  description: The platform of the running system.
  type: str
  returned: when reachable
  sample: aarch64-linux
machine:
  description: The machine's architecture as C(uname -m) names it.
  type: str
  returned: when reachable
version:
  description: The NixOS version that runs.
  type: str
  returned: when reachable
nix_version:
  description: The version of nix on the host.
  type: str
  returned: when reachable
revision:
  description: The configuration's revision, "" if the system does not say.
  type: str
  returned: when reachable
specialisation:
  description: The specialisation that runs, "" for none.
  type: str
  returned: when reachable
failed_units:
  description: Units that failed or are restarted again and again.
  type: list
  elements: str
  returned: when reachable
free:
  description: Free bytes of the file systems of V(/nix/store) and V(/boot).
  type: dict
  returned: when reachable
  contains:
    nix: {description: Of V(/nix/store)., type: int}
    boot: {description: Of V(/boot)., type: int}
wanted_present:
  description: Whether O(system) is on the host. Null without O(system).
  type: bool
  returned: when reachable
reboot_needed:
  description: Whether only a restart brings all of the wanted system, or without O(system) of the running one and the profile's.
  type: bool
  returned: when reachable
reboot_reasons:
  description: Why. Names of what differs from the booted system, and inhibitors.
  type: list
  elements: str
  returned: when reachable
inhibitors:
  description: Why O(system) must not be switched to live.
  type: list
  elements: str
  returned: when reachable
guard:
  description: The transaction that holds the host, null if none does.
  type: dict
  returned: when reachable
  contains:
    id: {description: Its name., type: str}
    kind: {description: "V(activate), V(stage) or V(reboot).", type: str}
    owner: {description: Who began it., type: str}
    goal: {description: The goal of the activation., type: str}
    new: {description: The system that is activated., type: str}
    old: {description: The system that the host would go back to., type: str}
    phase: {description: How far it is., type: str}
    reason: {description: Why it goes back., type: str}
    ends_in: {description: Seconds until its deadline., type: int}
    armed: {description: Whether its guard runs., type: bool}
last:
  description: The transaction that was begun last since the boot, ended or not. Null if none was.
  type: dict
  returned: when reachable
  contains:
    id: {description: Its name., type: str}
    phase: {description: "How it ended: V(confirmed), V(rolled_back), V(staged), V(refused), V(failed).", type: str}
    reason: {description: Why it went back., type: str}
    new: {description: The system that it was about., type: str}
drift:
  description: Sentences on how the host is not what its profile and O(system) say.
  type: list
  elements: str
  returned: when reachable
unreachable:
  description: That the host does not answer.
  type: bool
  returned: when it does not and O(allow_unreachable=false)
phase:
  description: What the module was doing when it failed.
  type: str
  returned: on failure
"""
