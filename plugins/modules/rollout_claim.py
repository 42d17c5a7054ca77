# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_claim, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_claim
short_description: Let one run at a time work on an update group
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Claims update groups for this run of Ansible, on the machine that the task is for or is delegated to (the builder).
    Part of the role P(flotilla.nixos.rollout#role), so that two scheduled runs that overlap exclude each other.
  - A claim is a symbolic link C(flotilla/runs/GROUP) in the repository's git directory, which says who holds it, since when,
    and for what. No branch, no index and no file in the work tree is touched.
  - The claim of a run that is over, because it was killed for example, is taken up, if that was a run on this machine.
    That of a run elsewhere (another controller with the same builder, a container that is gone) is taken up after its O(lease).
  - Groups whose repository cannot be opened are passed over. The stages that work on it say why.
options:
  state:
    description: V(held) takes the claims on all groups, or on none. V(released) gives back those that this run has.
    type: str
    choices: [held, released]
    default: held
  what:
    description: What the run does, for others that find the group taken.
    type: str
    default: rollout
  wait:
    description: Seconds to wait for another run.
    type: int
    default: 0
  take_over:
    description: Take the claims of other runs, too. For a run that is dead and cannot be known to be.
    type: bool
    default: false
  lease:
    description: Seconds after which others may take the claim to be left behind, where they cannot find out.
    type: int
    default: 43200
  result_file:
    description: A file on the controller to which a refusal is written, as JSON.
    type: path
attributes:
  check_mode:
    description: Takes nothing. Warns of runs that are at work.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
extends_documentation_fragment:
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.groups
seealso:
  - module: flotilla.nixos.rollout_scope
"""

EXAMPLES = r"""
- name: See that no other run works on the group sbcs, and wait for one for ten minutes
  flotilla.nixos.rollout_claim:
    groups:
      - name: sbcs
        repo: /srv/fleet
    wait: 600
  delegate_to: localhost
  run_once: true

- name: Give it back
  flotilla.nixos.rollout_claim:
    groups:
      - name: sbcs
        repo: /srv/fleet
    state: released
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
groups:
  description: The groups that this run has now.
  returned: success
  type: list
  elements: str
msg:
  description: Which group another run has, who that is, and since when.
  returned: failure
  type: str
"""
