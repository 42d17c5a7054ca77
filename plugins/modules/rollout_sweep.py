# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_sweep, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_sweep
short_description: Find out who of a fleet is there
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Knocks at the ssh port of all hosts at once, from one process. TCP and ssh's key exchange, without a log-in. Part of the role
    P(flotilla.nixos.rollout#role), which so need not wait for ssh's time limit host by host.
  - Shows at once whose host key is not the one in C(known_hosts).
  - Says of a host that it is absent only where ssh would find the same. What is behind a jump host or a proxy command, logs in
    with a password, has another connection than ssh, or speaks no ssh that is understood, is unknown. It never fails.
  - Runs on the controller, with the Python library C(paramiko). Without it, all hosts are unknown. Use it with C(run_once).
options:
  hosts:
    description: The inventory hosts to look for.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait for each host. By default as long as its ssh connection would.
    type: float
attributes:
  check_mode:
    description: It changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: flotilla.nixos.system_info
"""

EXAMPLES = r"""
- name: Find out who is there
  flotilla.nixos.rollout_sweep:
    hosts: "{{ ansible_play_hosts_all }}"
    timeout: 5
  run_once: true
  register: swept
"""

RETURN = r"""
absent:
  description: Hosts that nobody answers for, and why.
  returned: success
  type: dict
  sample: {pi-1: "pi-1: there is no way to it. Check that it is on, and the network between."}
impostors:
  description: Hosts whose host key is not the one in C(known_hosts), and what to do.
  returned: success
  type: dict
unknown:
  description: Hosts of which it cannot be told.
  returned: success
  type: list
  elements: str
msg:
  description: Why nothing could be told of any host.
  returned: when paramiko is missing
  type: str
"""
