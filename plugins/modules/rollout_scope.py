# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_scope, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_scope
short_description: Say who a rollout is for and how far it goes
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Gathers the hosts of the play into update groups, by their variables, and works out from C(--tags) and C(--skip-tags) which
    stages are to run. Part of the role P(flotilla.nixos.rollout#role).
  - Refuses a run without C(-l), so that a forgotten limit does not update the whole inventory, and a slice of an AWX job.
  - Checks the role's variables against its argument specification. A C(flotilla_) variable that there is not is refused where
    C(-e) gives it, and warned of in the inventory, with the nearest one that there is.
  - Runs on the controller and touches nothing. Use it with C(run_once).
options:
  all:
    description: Allow a run without a limit.
    type: bool
    default: false
  whole_groups:
    description:
      - Put all of the inventory's hosts of the groups into RV(build_groups), also those outside the limit.
      - For an update that is to land. It moves the lock of all of them, so that all of them have to build.
    type: bool
    default: false
  known_good:
    description: Whether what the groups have proven is to be deployed although their inputs are to be updated, which is refused.
    type: bool
    default: false
  result_file:
    description: A file on the controller to which C(running) or a refusal is written, see M(flotilla.nixos.rollout_result).
    type: path
  branch:
    description:
      - A branch that no update group has, such as one for development. RV(groups) then has one group that is named like it,
        with the hosts of all update groups whose flake and lock it has.
    type: str
  entry_point:
    description: The role's entry point whose variables are checked. For V(rollback), hosts need no update group.
    type: str
    choices: [prepare, status, update, rollback, catchup]
    default: prepare
attributes:
  check_mode:
    description: It changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: flotilla.nixos.rollout_plan
"""

EXAMPLES = r"""
- name: Find the update groups of the hosts in the limit
  flotilla.nixos.rollout_scope:
  run_once: true
  register: scope

- name: Build them
  flotilla.nixos.flake_build:
    groups: "{{ scope.groups }}"
  delegate_to: localhost
  run_once: true
  when: "'build' in scope.stages"
"""

RETURN = r"""
groups:
  description: The update groups, as the option O(flotilla.nixos.flake_build#module:groups) takes them.
  returned: success
  type: list
  elements: dict
build_groups:
  description: The update groups with all hosts that have to build.
  returned: success
  type: list
  elements: dict
other_groups:
  description:
    - The inventory's other update groups, as the option O(flotilla.nixos.flake_lock#module:others) takes them.
    - Hosts without an update group are passed over.
  returned: success
  type: list
  elements: dict
rollout:
  description: C(id), a word for this rollout that no other has, and C(started), the time in Unix seconds.
  returned: success
  type: dict
stages:
  description: The stages to run, in order.
  returned: success
  type: list
  elements: str
  sample: [lock, build, plan, copy, activate, confirm, finish]
msg:
  description: Why the run is refused, and what to do.
  returned: failure
  type: str
"""
