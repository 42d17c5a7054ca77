# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_proof, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_proof
short_description: See that an update group has proven what is to be promoted
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Says which commit of an update group may be promoted, or refuses and says why. Part of the role
    P(flotilla.nixos.rollout#role). Runs on the builder.
  - A group has proven what its ledger says is known-good, see M(flotilla.nixos.flake_ledger). While it soaks something newer,
    nothing is promoted.
  - The hosts that have proven it have to run it still. They can be reached, run the system that the ledger has of them, have no
    failed unit, and are not in the middle of an activation. A host that was away and never took it does not count.
  - Give it one group in O(groups), the source.
  - How the hosts are now was found out before, by M(flotilla.nixos.system_info), registered as C(flotilla_source_info) by the
    hosts of the play.
options:
  there:
    description: The names of all update groups, for messages.
    type: list
    elements: str
    default: []
  standing:
    description:
      - What M(flotilla.nixos.flake_ledger) says of the group.
      - Without it the source is a branch that no group has. Nothing runs it, so that its head is taken. A name that the ledger
        or a known-good commit knows as an update group's is refused, unless O(force_reason) is given.
    type: dict
  absent:
    description: Hosts of the group that are not there, and why.
    type: dict
    default: {}
  force_reason:
    description:
      - Go on whatever speaks against it, for this reason, which is to be recorded. Where nothing is proven, the head of the
        group's branch is taken.
    type: str
    default: ""
  result_file:
    description: A file on the controller to write to that the run is refused, and why; see M(flotilla.nixos.rollout_result).
    type: path
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.attributes.info_module
  - flotilla.nixos.groups
seealso:
  - module: flotilla.nixos.rollout_choice
  - module: flotilla.nixos.flake_ledger
"""

EXAMPLES = r"""
- name: See that canary has proven what it runs
  flotilla.nixos.rollout_proof:
    groups: "{{ [chose.source] }}"
    standing: "{{ ledger.groups.canary }}"
  delegate_to: localhost
  run_once: true
  register: proof
"""

RETURN = r"""
commit:
  description: The commit whose pins may be promoted.
  returned: success
  type: str
against:
  description: What speaks against it, where O(force_reason) was given.
  returned: success
  type: list
  elements: str
forced:
  description: The reason given, and what it has overridden; empty if nothing.
  returned: success
  type: str
msg:
  description: Why it must not be promoted, and what to do.
  returned: failure
  type: str
"""
