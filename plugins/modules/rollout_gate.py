# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_gate, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_gate
short_description: Decide between the batches of a rollout which update groups go on
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Judges every update group by what its hosts' tasks have registered in the batches before.
    Part of the role P(flotilla.nixos.rollout#role).
  - A group halts when more than its C(max_fail_percentage) of its hosts in a batch failed or were rolled back. The percentage
    is of the group's part of the batch, and must be exceeded, as with Ansible's own C(max_fail_percentage). Other groups go on.
  - A host that was let through and has no outcome counts as failed. A host that could not be reached before anything was sent to
    it does not; but a group whose hosts so far were all like that halts as well, because nothing has been proven.
  - Ansible's C(max_fail_percentage) and C(any_errors_fatal) must stay unset in the play. When a host fails and another becomes
    unreachable in one task, Ansible goes on with the next batch in spite of them.
  - Runs on the controller and touches nothing. Never fails for what hosts did. Use it with C(run_once).
options:
  plan:
    description: The plan, as RV(flotilla.nixos.rollout_plan#module:plan) gives it.
    type: dict
    required: true
  at:
    description: V(batch) at the head of each batch, V(end) after the last one.
    type: str
    choices: [batch, end]
    default: batch
  stages:
    description: The stages that the run has, as RV(flotilla.nixos.rollout_scope#module:stages) gives them.
    type: list
    elements: str
    default: [lock, build, plan, copy, activate, confirm, finish]
  land:
    description: Whether candidates are to be landed or dropped at the end.
    type: bool
    default: true
  rollback_confirmed:
    description: Whether hosts that were updated are to be brought back if their group halts later.
    type: bool
    default: false
  brought_back:
    description:
      - The results of M(flotilla.nixos.system_rollback) for the hosts in RV(roll_back), from a loop over them.
        A group's candidate is dropped only if all hosts that ran it are back.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    description: It changes nothing in any case. Under check mode, hosts count as planned.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: flotilla.nixos.rollout_plan
  - module: flotilla.nixos.rollout_report
"""

EXAMPLES = r"""
- name: Decide which hosts of this batch go on
  flotilla.nixos.rollout_gate:
    plan: "{{ planned.plan }}"
  run_once: true
  register: gate

- name: Pass over a batch that is held as a whole
  ansible.builtin.meta: end_batch
  when: gate.going | length == 0
"""

RETURN = r"""
batch:
  description: The number of this batch, from 1.
  returned: when O(at=batch)
  type: int
held:
  description: The hosts of this batch that must not go on, with the reason.
  returned: when O(at=batch)
  type: dict
going:
  description: The hosts of this batch that go on.
  returned: when O(at=batch)
  type: list
  elements: str
halted:
  description: The groups that have halted, with the reason.
  returned: when O(at=batch)
  type: dict
outcomes:
  description: Every host's outcome and the reason for it.
  returned: when O(at=end)
  type: dict
results:
  description: Every group's end.
  returned: when O(at=end)
  type: list
  elements: dict
accept:
  description: The groups whose candidate is to be landed.
  returned: when O(at=end)
  type: list
  elements: str
discard:
  description: The groups whose candidate is to be dropped.
  returned: when O(at=end)
  type: list
  elements: str
roll_back:
  description: The hosts to bring back, if O(rollback_confirmed).
  returned: when O(at=end)
  type: list
  elements: str
"""
