# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.fleet_init, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_init
short_description: Turn a directory, or a repository with one flake, into a fleet
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Writes what a directory lacks to be a fleet that can be rolled out from it. That is the update groups' flakes and locks, an
    inventory, C(ansible.cfg), the playbooks C(rollout.yml), C(status.yml) and so on, a C(.gitignore) and a C(README.md).
  - Files that are there are never changed. They are named, and the diff mode shows what would be in them.
  - An empty directory gets a git repository, a flake for each group, a module that all hosts share, and one to fill in for
    each host. The shared module lets the ssh keys of who runs this (C(~/.ssh/id_*.pub)) log in as root.
  - A repository with one flake that has C(nixosConfigurations) keeps it. Without O(groups), its hosts are in the groups that
    the directories C(hosts/GROUP/HOST) show, each group with a lock beside the others in C(locks/), or else in one group.
    With O(groups), each group gets a small flake with a lock of its own, which takes its hosts from the one at the top. Every
    host keeps its pins, and it is proven that it keeps its derivation.
  - A repository that has C(hosts/*/flake.nix) keeps these as its groups.
  - Everything is evaluated, and new locks are made, before the directory is changed. New files are made known to git
    (C(git add --intent-to-add)), and left for review, unless O(commit) says so.
  - Needs nix 2.26 or newer and git 2.38 or newer on the machine that the task is for or is delegated to.
options:
  path:
    description: The directory. Without one, that in which Ansible was started.
    type: path
  groups:
    description:
      - The update groups. Each is a list of hosts, or a mapping with C(hosts), C(inputs), C(modules) and C(system), as
        M(flotilla.nixos.flake_group) has them. Each host is a name, or a mapping with C(name), C(address), C(attribute),
        C(modules) and C(system).
      - Without them, and where the directory has no flakes, the groups of the inventory.
    type: dict
  strategy:
    description: For a repository with one flake, V(group_flakes) or V(host_locks). See above for what it is without one.
    type: str
    choices: [group_flakes, group_repos, group_inputs, channel_inputs, stage_flakes, group_branches, host_locks]
  nixpkgs:
    description:
      - The nixpkgs that new groups follow, as a flake reference. Without one, that of the groups that are there, or
        C(github:NixOS/nixpkgs/nixos-unstable).
    type: str
  system:
    description: The platform of new groups' hosts. Without one, that of the machine on which this is done.
    type: str
  commit:
    description: Commit the new files, and no others.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    details: Everything is evaluated, and new locks are made, elsewhere.
  diff_mode:
    support: full
  idempotent:
    support: full
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
seealso:
  - module: flotilla.nixos.flake_group
  - plugin: flotilla.nixos.flakes
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Start a fleet in an empty directory
  flotilla.nixos.fleet_init:
    path: /srv/fleet
    groups:
      servers: [web1, web2]
      sbcs:
        system: aarch64-linux
        hosts:
          - name: pi-1
            address: 192.0.2.21
          - name: pi-2
            address: 192.0.2.22
  delegate_to: localhost
  run_once: true

- name: Make a fleet of a repository with one flake, each group with a lock of its own
  flotilla.nixos.fleet_init:
    path: /srv/nixos-config
    groups:
      servers: [web1, web2]
      sbcs: [pi-1]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changed:
  description: Whether files were written.
  returned: always
  type: bool
path:
  description: The directory.
  returned: success
  type: str
groups:
  description: The update groups and their hosts.
  returned: success
  type: dict
  sample: {"sbcs": ["pi-1", "pi-2"]}
files:
  description: The files that were written.
  returned: success
  type: list
  elements: str
kept:
  description: Files that are there with another content, and were left alone.
  returned: success
  type: list
  elements: str
to_fill_in:
  description: Files that were written for the user to fill in, one for each new host.
  returned: success
  type: list
  elements: str
proven:
  description: Hosts of which it was proven that their derivation is the same as before.
  returned: success
  type: list
  elements: str
commit:
  description: The commit that was made; null if there was none.
  returned: success
  type: str
warnings:
  description: What was left for the user to look at.
  returned: success
  type: list
  elements: str
msg:
  description: What failed, and what to do.
  returned: when it failed
  type: str
"""
