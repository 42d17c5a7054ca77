# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_late, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_late
short_description: Choose the late hosts that catch up
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Says which hosts a rollout has missed, and which of them can be brought to what their group has proven since. Part of the role
    P(flotilla.nixos.rollout#role).
  - A host that is no longer in the inventory is named, and nothing else. So is one whose group has proven nothing yet.
  - Shows it. Runs on the controller and touches nothing. Use it with C(run_once).
options:
  groups:
    description: The update groups with their hosts in the limit, as RV(flotilla.nixos.rollout_scope#module:groups) gives them.
    type: list
    elements: dict
    required: true
  ledger:
    description: What M(flotilla.nixos.flake_ledger) says of them, by name. One that it failed on is named, and the others go on.
    type: dict
    required: true
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.attributes.info_module
seealso:
  - module: flotilla.nixos.flake_ledger
"""

EXAMPLES = r"""
- name: Choose the late hosts
  flotilla.nixos.rollout_late:
    groups: "{{ scope.groups }}"
    ledger: "{{ ledger.groups }}"
  run_once: true
  register: late
"""

RETURN = r"""
chosen:
  description: The hosts that catch up; a pattern that matches nothing if there are none.
  returned: success
  type: list
  elements: str
hosts:
  description: The hosts that catch up.
  returned: success
  type: list
  elements: str
gone:
  description: Late hosts that are no longer in the inventory.
  returned: success
  type: list
  elements: str
waiting:
  description: Late hosts whose group has proven nothing yet.
  returned: success
  type: list
  elements: str
unknown:
  description: Update groups whose ledger could not be read. If it is all of them, the task fails.
  returned: success
  type: list
  elements: str
lines:
  description: What was shown.
  returned: success
  type: list
  elements: str
"""
