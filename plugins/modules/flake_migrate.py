# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_migrate, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_migrate
short_description: Move a repository from one way of keeping locks to another, with proof that no host changes
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Makes a commit in which the hosts of a repository have their locks elsewhere, evaluates every host before and after, and
    brings the branch that is checked out to it if every system has the same derivation.
  - If one has not, it says which and why, and lands nothing. The derivations' difference is told down to what differs in itself,
    and packages that differ where both systems are built.
  - From one flake (one lock for all, V(group_inputs), V(channel_inputs), V(group_branches), V(host_locks)) to V(group_flakes),
    the outputs function becomes a file of its own, C(outputs.nix), word by word. Each group's C(flake.nix) imports it with its
    own inputs, and names its hosts. What else the one flake has (packages, shells) stays there.
  - From flakes of groups to V(host_locks) or V(single), they become one C(flake.nix) at the top, in the same way.
  - Locks are taken apart and put together, nothing is updated. Nix has to take the result as complete.
  - The work tree and the index are not touched before all is proven. Landing is a fast-forward.
  - O(groups) are the update groups as they are. Without them, those of the inventory; and where that has none, or has them in
    places that the repository does not have, what M(flotilla.nixos.flake_info) recognises.
  - Branches and inventories are left alone. The variables to set are in the result.
  - Runs on the machine that the task is for or is delegated to (the builder). Needs git and nix 2.26 or newer there, no Python.
options:
  repo:
    description: The repository on the builder. Without it, that of the groups, of the inventory, or of the working directory.
    type: path
  to:
    description:
      - V(group_flakes), V(host_locks), or V(single) for one lock for all.
      - Any other answer is refused.
    type: str
    required: true
  hosts:
    description:
      - The groups to make, each with a list of the attributes (or shell patterns of them) of its hosts.
      - Hosts that are named in none stay where they are. They, too, have to be the same afterwards, and to keep their flake and
        lock. Without it, the groups that there are.
    type: dict
    default: {}
  allow_revision:
    description:
      - Land although systems differ, if the name of the commit that they are made from (C(self.rev), or a path of the whole
        repository) is all that differs. With such configurations every commit makes other systems.
    type: bool
    default: false
  timeout:
    description: Seconds that one evaluator may take.
    type: int
    default: 1800
attributes:
  check_mode:
    description: The commit is made and proven, as an object that no branch has, and does not land.
    support: full
  diff_mode:
    description: Shows the files.
    support: full
extends_documentation_fragment:
  - flotilla.nixos.groups.optional
seealso:
  - module: flotilla.nixos.flake_info
  - module: flotilla.nixos.flake_group
"""

EXAMPLES = r"""
- name: Give every group a flake of its own
  flotilla.nixos.flake_migrate:
    repo: /srv/fleet
    to: group_flakes
    hosts:
      sbcs: [pi-*]
      servers: [web1, web2]
  delegate_to: localhost
  run_once: true
  register: moved

- name: Show what to set in the inventory
  ansible.builtin.debug:
    msg: "{{ moved.snippet }}"
"""

RETURN = r"""
branch:
  description: The branch that it lands on.
  returned: always
  type: str
base:
  description: The commit that it began with.
  returned: always
  type: str
commit:
  description: The commit that was proven; null if everything is in its place already.
  returned: always
  type: str
landed:
  description: Whether the branch has it now.
  returned: always
  type: bool
message:
  description: The first line of the commit's message.
  returned: always
  type: str
  sample: "sbcs, servers: a flake for each group"
from:
  description: The strategy that was recognised.
  returned: always
  type: str
  sample: single
files:
  description: The files of the commit by path, each V(added), V(changed) or V(removed).
  returned: always
  type: dict
hosts:
  description:
    - Every host of the repository, by attribute, with its C(group) (null if it is not moved), whether its system is the C(same),
      the derivations C(before) and C(after) (null if it does not evaluate), and C(why) it differs.
  returned: always
  type: dict
variables:
  description: The variables of each group, by name.
  returned: always
  type: dict
snippet:
  description: The same as YAML files, each after a comment with its path.
  returned: always
  type: str
"""
