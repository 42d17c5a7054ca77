# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_plan, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_plan
short_description: Plan the batches of a rollout
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Puts together what was locked, what was built and what the hosts run, and decides who is updated to what and when.
    Part of the role P(flotilla.nixos.rollout#role).
  - A host that already runs and boots its system, that was not there, or whose system could not be built, comes into no batch.
    So every batch proves something, and the first host of the first batch is a canary that really changes.
  - The batches are made for each update group by itself and then merged, so that every group begins with its own canary.
  - Shows the plan. Runs on the controller and touches nothing. Use it with C(run_once).
options:
  groups:
    description: The update groups, as RV(flotilla.nixos.rollout_scope#module:groups) gives them.
    type: list
    elements: dict
    required: true
  locked:
    description: The result of M(flotilla.nixos.flake_lock), if inputs were updated.
    type: dict
    default: {}
  built:
    description: The result of M(flotilla.nixos.flake_build).
    type: dict
    default: {}
  absent:
    description: Hosts that M(flotilla.nixos.rollout_sweep) did not find, so that nobody has looked at them.
    type: dict
    default: {}
  ledger:
    description:
      - The result of M(flotilla.nixos.flake_ledger_info) with what the hosts run. Groups whose ledger could not be read are
        not checked for downgrades, which the plan and a warning say.
      - A host that runs a commit which its group's comes before, or one that the repository does not have, is held, unless it
        would get the same system.
    type: dict
    default: {}
  serial:
    description:
      - The size of each batch, as Ansible's C(serial) takes them. Percentages are of the hosts of a group that are to be updated,
        rounded down, at least one host. The last size repeats.
      - For a group whose hosts have C(flotilla_serial), that is taken instead.
    type: list
    elements: raw
    default: [1, "25%", "100%"]
  max_fail_percentage:
    description:
      - A group halts when more than this percentage of its hosts in a batch fail, also before anything was touched.
      - For a group whose hosts have C(flotilla_max_fail_percentage), that is taken instead.
    type: float
    default: 0.0
  soak:
    description:
      - How long a group has to run well before the commit counts as known-good, in seconds or as in V(2d).
      - For a group whose hosts have C(flotilla_soak), that is taken instead.
    type: str
    default: "0"
  reboot:
    description:
      - With V(if_needed), a host on which a reboot waits is not right yet, although it runs its system.
      - For a host that has C(flotilla_reboot), that is taken instead.
    type: str
    choices: [if_needed, never, always]
    default: never
  goal:
    description: What is done with the systems. A reboot that waits is of interest to V(switch) alone.
    type: str
    choices: [switch, boot, test, dry-activate]
    default: switch
  landing:
    description: Whether candidates are to land, so that a group without a branch to land on must not begin.
    type: bool
    default: false
attributes:
  check_mode:
    description: It changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
notes:
  - Reads the results of M(flotilla.nixos.system_info) that are registered as C(flotilla_info) for each host.
seealso:
  - module: flotilla.nixos.rollout_gate
"""

EXAMPLES = r"""
- name: Say who is updated to what, and when
  flotilla.nixos.rollout_plan:
    groups: "{{ scope.groups }}"
    built: "{{ built }}"
    serial: [1, "50%"]
  run_once: true
  register: planned
"""

RETURN = r"""
plan:
  description: The plan, for M(flotilla.nixos.rollout_gate) and M(flotilla.nixos.rollout_report).
  returned: success
  type: dict
  contains:
    groups:
      description: By name, the commit to deploy, the candidate and what it changes, or why the group cannot go on.
      type: dict
    hosts:
      description: By name, the host's group, its system, the one that it runs, and its outcome if that is known already.
      type: dict
    batches:
      description: The hosts of each batch.
      type: list
      elements: list
order:
  description: The hosts to update, batch after batch; a pattern that matches nothing if there are none.
  returned: success
  type: list
  elements: str
serial:
  description: The sizes of the batches.
  returned: success
  type: list
  elements: int
rollouts:
  description: What M(flotilla.nixos.flake_ledger) records with C(state=begun), for those groups of which hosts are to be touched.
  returned: success
  type: list
  elements: dict
lines:
  description: The plan as it was shown.
  returned: success
  type: list
  elements: str
"""
