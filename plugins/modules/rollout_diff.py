# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_diff, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_diff
short_description: Show what a rollout changes on each host
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Compares the system that each host runs with the one that the plan gives it, by packages, by systemd units, and by what asks
    for a reboot. Part of the role P(flotilla.nixos.rollout#role), which uses it in diff mode.
  - Runs on the machine that the task is for or is delegated to (the builder), and needs both systems in its store. Where it no
    longer has the system that a host runs, it says so. No host is asked. Use it with C(run_once).
options:
  plan:
    description: The plan, as RV(flotilla.nixos.rollout_plan#module:plan) gives it.
    type: dict
    required: true
attributes:
  check_mode:
    description: It changes nothing in any case.
    support: full
  diff_mode:
    description: The comparison is what it shows.
    support: full
seealso:
  - module: flotilla.nixos.rollout_plan
"""

EXAMPLES = r"""
- name: Show what would change
  flotilla.nixos.rollout_diff:
    plan: "{{ planned.plan }}"
  delegate_to: localhost
  run_once: true
  when: ansible_diff_mode
"""

RETURN = r"""
hosts:
  description: Lines that say what changes, by host.
  returned: success
  type: dict
  sample:
    pi-1:
      - "curl: 8.14.0 → 8.14.1, +12.3 KiB"
      - "units that change: sensor.service"
      - "needs a reboot: kernel"
"""
