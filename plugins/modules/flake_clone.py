# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_clone, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_clone
short_description: Clone and fetch the repositories of update groups
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - For update groups whose repository is a URL. Has a bare clone of it on the builder, the machine that the task is for or is
    delegated to, and brings the clone up to date. Groups with the same URL share one. Groups whose repository is a path on the
    builder are passed over. Part of the role P(flotilla.nixos.rollout#role).
  - Branches are only ever brought forward. A branch of one of these groups that was rewritten or deleted upstream is an error for
    that group, and nothing in the clone is lost. Other branches follow, and C(refs/flotilla/gone/BRANCH) names what they had.
  - Commits that the clone has and the remote has not are kept, with a warning.
  - Takes over the remote's ledger (C(refs/notes/flotilla)), line by line, and the known-good commits of groups for which the
    clone has none yet.
  - A remote that does not answer is an error for its groups. Deploying what was fetched last would look like a success.
  - Asks nothing. ssh uses the keys and the agent of the user who runs on the builder, and C(known_hosts) there; https uses git's
    credential helpers, or a user and password in the URL, which are shown in no output.
  - A clone is made aside and moved into place when it is whole. One run at a time works on it. A clone that was damaged is put
    aside as C(CLONE.damaged.ID) and made anew, with the commits and refs that only it had, as far as they can be read.
  - Needs git 2.38 or newer on the builder.
options:
  others:
    description:
      - The fleet's other update groups, each as in O(groups), for the branches that they are on. These follow no rewritten
        history either.
    type: list
    elements: dict
    default: []
  offline:
    description: Go on with what the clones have, without fetching. A repository without a clone is an error.
    type: bool
    default: false
  continue_on_error:
    description: Do not fail for what is wrong with some groups. Their results have RV(groups.failed) and RV(groups.msg).
    type: bool
    default: false
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.groups
attributes:
  check_mode:
    description: The remote is only read in any case. The clone is a copy of it, and is made and fetched in check mode, too.
    support: full
  diff_mode:
    description: There is nothing to show but what RV(groups.moved) says.
    support: none
  idempotent:
    support: full
seealso:
  - module: flotilla.nixos.flake_lock
  - module: flotilla.nixos.flake_ledger
"""

EXAMPLES = r"""
- name: Find the update groups of the hosts in the limit
  flotilla.nixos.rollout_scope:
  run_once: true
  register: scope

- name: Fetch what is new
  flotilla.nixos.flake_clone:
    groups: "{{ scope.groups }}"
    others: "{{ scope.other_groups }}"
  delegate_to: localhost
  run_once: true
  register: cloned

- name: Fetch a repository of one's own choice
  flotilla.nixos.flake_clone:
    groups:
      - name: sbcs
        repo: /var/lib/flotilla/clones/sbcs.git
        remote: git@git.example.org:fleet/sbcs.git
        strategy: group_repos
"""

RETURN = r"""
groups:
  description: What became of each group whose repository is a URL, by name.
  returned: always
  type: dict
  contains:
    changed:
      description: Whether the clone was made, or anything in it moved.
      type: bool
    failed:
      description: Whether something went wrong for the group. RV(groups.msg) says what, and what to do.
      type: bool
    msg:
      description: What went wrong.
      returned: when it failed
      type: str
    path:
      description: The clone's directory on the builder.
      type: str
      sample: /root/.local/state/flotilla/clones/sbcs-0f1e2d3c4b5a.git
    url:
      description: The repository's URL, without a password.
      type: str
      sample: git@git.example.org:fleet/sbcs.git
    branch:
      description: The group's branch; the remote's default branch if the group names none.
      type: str
      sample: main
    commit:
      description: The head of the branch.
      type: str
    created:
      description: Whether the clone was made.
      type: bool
    moved:
      description: What was brought forward, in words.
      type: list
      elements: str
      sample: ["main 0f1e2d3c4b5a → 5a4b3c2d1e0f", the ledger]
    warnings:
      description: What else to know, such as commits that were never pushed.
      type: list
      elements: str
msg:
  description: What went wrong, one line for each group.
  returned: failure
  type: str
"""
