# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.closure_copy, which is an action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: closure_copy
short_description: Copy a built NixOS system to its host
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Copies a system and all store paths that it needs from the builder to the host of the task, with C(nix copy) over C(ssh-ng).
    Paths that the host has are not sent again, so a copy that was cut is taken up where it broke off by running it again.
  - One round trip tells what the host lacks. If that is nothing, nix is not started at all. If the host's disk has no room
    for it, the task fails before anything is sent.
  - Afterwards a GC root on the host, C(/nix/var/nix/gcroots/flotilla/NAME), keeps the system until the next one takes the
    root over, so that a garbage collection between the copy and the activation does no harm.
  - The ssh options are those that Ansible has for the host (port, user, key, jump host, known hosts, shared connection).
    The host must be reached with a key or an agent, because C(nix copy) opens a connection of its own.
  - Where the user that logs in is not root, the host is given a second C(nix-daemon) for the time of the copy, started through
    C(become), which only root and that user can talk to, and which takes unsigned paths from that user. So every
    kind of C(become) works, with a password or without, and nobody needs to be in C(trusted-users).
  - A copy that does not get on is ended and tried once more over a connection of its own.
  - A lost connection is a failure with C(unreachable=true) in the result, not Ansible's own unreachable.
requirements:
  - nix 2.26 or newer on the builder, and on the controller where O(via=controller)
  - nix, systemd and GNU grep on the host, as NixOS has them; no Python
  - root on the host, by C(ansible_user) or C(become)
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details: Asks the host what it lacks and leaves it as it is.
  diff_mode:
    support: none
    details: Store paths have no content to compare. RV(missing) lists what would be sent.
  idempotent:
    support: full
options:
  system:
    description: The system to copy, a store path that the builder has, as M(flotilla.nixos.flake_build) returns it.
    type: str
    required: true
  name:
    description: The name of the GC root on the host. Each name keeps one system.
    type: str
    default: system
  builder:
    description: The inventory host that has the system. C(localhost) is the controller.
    type: str
    default: localhost
  via:
    description:
      - The way from a O(builder) that is another machine. It does not matter if the builder is the controller.
      - V(controller) copies through the controller, which reaches both as Ansible does. Progress is shown.
      - V(builder) has the builder send it. Its own ssh keys, known hosts and configuration must let it in at the
        host; address, port and user are those of the inventory. The bytes do not pass the controller.
    type: str
    choices: [controller, builder]
    default: controller
  check_signatures:
    description:
      - Whether the host takes only paths that are signed by a key in its C(nix.settings.trusted-public-keys).
      - By default it takes what it is sent, because it is root who sends it.
    type: bool
    default: false
  signing_key:
    description: The path of a secret key on the builder, with which the system is signed before it is sent.
    type: str
  substitute:
    description: Whether the host fetches from its own substituters what these have, and only the rest is sent.
    type: bool
    default: false
  keep_free:
    description: Bytes that must be free in the host's C(/nix/store) after the copy, beside a twentieth of what is sent.
    type: int
    default: 33554432
  timeout:
    description: Seconds after which a copy is ended.
    type: int
    default: 3600
  stall_timeout:
    description:
      - Seconds without a byte after which a copy is ended and tried once more.
      - With O(via=builder) only O(timeout) holds.
    type: int
    default: 60
seealso:
  - module: flotilla.nixos.flake_build
  - module: flotilla.nixos.system_activate
"""

EXAMPLES = r"""
- name: Send each host its system
  flotilla.nixos.closure_copy:
    system: "{{ flotilla_built.groups[flotilla_update_group].hosts[inventory_hostname].system }}"

- name: See how much would be sent
  flotilla.nixos.closure_copy:
    system: /nix/store/6dkp4mh5nzvx1wmyihkj5a10k2jkb3lw-nixos-system-pi-7-25.05
  check_mode: true
  register: flotilla_copy

- name: Send what another machine has built, signed
  flotilla.nixos.closure_copy:
    system: "{{ flotilla_built.groups[flotilla_update_group].hosts[inventory_hostname].system }}"
    builder: build1
    check_signatures: true
    signing_key: /etc/nix/fleet.secret
"""

RETURN = r"""
changed:
  description: Whether something was sent, or would be in check mode.
  type: bool
  returned: always
system:
  description: The system.
  type: str
  returned: success
paths:
  description: How many store paths the host lacked.
  type: int
  returned: success
bytes:
  description: The size of these (as NAR, which is about what they take on the disk).
  type: int
  returned: success
free:
  description: Bytes that were free in the host's C(/nix/store) before.
  type: int
  returned: success
seconds:
  description: How long the copy itself took, 0 if there was none.
  type: float
  returned: success
rooted:
  description: Whether the system is on the host and the GC root stands. In check mode, false.
  type: bool
  returned: success
retried:
  description: Whether the copy got stuck and went through at the second try.
  type: bool
  returned: success
missing:
  description: The store paths that would be sent.
  type: list
  elements: str
  returned: in check mode, if there are any
phase:
  description: What the task was doing when it failed, V(copy).
  type: str
  returned: failure
unreachable:
  description: V(true) if the connection could not be made or was lost.
  type: bool
  returned: failure of the connection
"""
