# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_choice, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_choice
short_description: Say between which update groups a promotion or a restore is
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Finds the update groups of a promotion or a restore among all hosts of the inventory, and the hosts within the limit (C(-l))
    that it is for. Part of the role P(flotilla.nixos.rollout#role).
  - Refuses a group that there is not, and variables such as C(flotilla_update) that ask for other pins than those that were
    proven before.
  - Runs on the controller and touches nothing. Use it with C(run_once).
options:
  target:
    description: The update group that gets other pins.
    type: str
    default: ""
  source:
    description:
      - The update group whose pins they are. A name that no group has is taken for a branch of the target's repository.
      - Without it, as for a restore, there is no source. An empty one is an error.
    type: str
  to:
    description: What a restore is to go back to. The name of an update group is refused.
    type: str
    default: ""
  result_file:
    description: A file on the controller to write to that the run is refused, and why; see M(flotilla.nixos.rollout_result).
    type: path
attributes:
  check_mode:
    description: It changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: flotilla.nixos.rollout_proof
  - module: flotilla.nixos.flake_lock
"""

EXAMPLES = r"""
- name: Find the update groups to promote from and to
  flotilla.nixos.rollout_choice:
    source: canary
    target: stable
  run_once: true
  register: chose
"""

RETURN = r"""
chosen:
  description: The target's hosts within the limit.
  returned: success
  type: list
  elements: str
target:
  description: The target with all its hosts, as the option O(flotilla.nixos.flake_lock#module:groups) takes it.
  returned: success
  type: dict
source:
  description: The source with all its hosts, as O(flotilla.nixos.flake_lock#module:source) takes it; null if there is none.
  returned: success
  type: dict
source_hosts:
  description: The hosts of the source; none if it is a branch that no group has.
  returned: success
  type: list
  elements: str
looks:
  description: For each host of the play, the hosts of the source that it is to look at.
  returned: success
  type: dict
other_groups:
  description: All other update groups of the inventory, as the option O(flotilla.nixos.flake_clone#module:others) takes them.
  returned: success
  type: list
  elements: dict
groups:
  description: The names of all update groups.
  returned: success
  type: list
  elements: str
stages:
  description: The stages of the rollout that are to run, in order; see M(flotilla.nixos.rollout_scope).
  returned: success
  type: list
  elements: str
msg:
  description: Why the run is refused, and what to do.
  returned: failure
  type: str
"""
