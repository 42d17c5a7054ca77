# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_build, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_build
short_description: Build the systems of update groups
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Evaluates and builds the NixOS systems of all hosts of one or more update groups, on the machine that the task is for or is
    delegated to (the builder). No target is touched.
  - What is built is a commit, by default the head of the group's branch, whatever the work tree holds. Files that
    differ from it are named in a warning and in RV(groups).
  - One evaluator takes as many hosts of a group as fit into the memory that is free, and one C(nix build) builds the systems of
    all groups, so that what they share is built once.
  - A host whose evaluation or build fails does not take its neighbours with it.
  - While it builds it says about every two seconds what. Over a connection to a remote builder it cannot.
  - The systems that were built become GC roots on the builder, so that a garbage collection does not take them during a rollout.
  - Needs nix 2.26 or newer and git on the builder. Flakes need not be switched on there. No Python is needed there.
options:
  allow_dirty:
    description:
      - Build the work tree's tracked files as they are, where they differ from the commit.
      - Has no effect on a group that gives a O(groups[].commit), or whose branch is not checked out.
    type: bool
    default: false
  chunk:
    description:
      - The number of hosts that one evaluator takes at a time.
      - Without it, as many as fit into the memory that is free on the builder, counting 512 MiB for each and
        leaving 1 GiB.
    type: int
  continue_on_error:
    description: Do not fail the task when a host or a group failed. What failed is in RV(groups) in any case.
    type: bool
    default: false
  dry:
    description: Only evaluate. RV(changed) says then whether something would be built or fetched.
    type: bool
    default: false
  keep:
    description:
      - The directory on the builder for the GC roots, one link C(GROUP/HOST) for each host.
      - Without it, C(flotilla/roots) in the git directory of the group's repository, so that they go when the clone goes.
    type: path
  timeout:
    description: Seconds that one evaluator may take, and that the build may take. What was built until then stays.
    type: int
    default: 21600
attributes:
  check_mode:
    description: Building changes no host, so that check mode builds too. Use O(dry) to only evaluate.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
extends_documentation_fragment:
  - flotilla.nixos.groups
seealso:
  - module: flotilla.nixos.flake_info
  - module: flotilla.nixos.flake_lock
"""

EXAMPLES = r"""
- name: Build all hosts of the update group sbcs
  flotilla.nixos.flake_build:
    groups:
      - name: sbcs
        repo: /srv/fleet
        hosts:
          - name: pi-1
          - name: greenhouse.example.org
            attribute: greenhouse
  delegate_to: localhost
  run_once: true
  register: built

- name: Say what would be deployed
  ansible.builtin.debug:
    msg: "{{ built.groups.sbcs.hosts['pi-1'].system }}"

- name: Build a candidate, and go on with the hosts that could be built
  flotilla.nixos.flake_build:
    groups:
      - name: sbcs
        repo: /srv/fleet
        commit: "{{ locked.groups.sbcs.commit }}"
        hosts:
          - name: pi-1
    continue_on_error: true
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changed:
  description: Whether a system was built or fetched that the builder did not have before (with O(dry), whether one would be).
  returned: always
  type: bool
groups:
  description: What became of each update group, by name.
  returned: when the builder could be used at all
  type: dict
  contains:
    failed:
      description: Whether the group's flake or any of its hosts failed.
      type: bool
    msg:
      description: Why, naming each host that failed.
      returned: when the group failed
      type: str
    commit:
      description: The commit that was built.
      type: str
    dirty:
      description: Whether it was the work tree on top of that commit that was built.
      type: bool
    uncommitted:
      description: Paths in the work tree that are no part of what was built, changed or untracked.
      type: list
      elements: str
    hosts:
      description: What became of each host, by its inventory name.
      type: dict
      contains:
        attribute:
          description: Its attribute in nixosConfigurations.
          type: str
        failed:
          description: Whether it has no system to deploy.
          type: bool
        phase:
          description: V(done), or what failed; with O(dry) it ends at V(build).
          type: str
          sample: done
        error:
          description: Why it failed and what to do.
          returned: when it failed
          type: str
        log:
          description: The last lines of the build that failed.
          returned: when it failed
          type: list
          elements: str
        drv:
          description: The derivation of its toplevel.
          type: str
        system:
          description: The store path of its toplevel.
          type: str
          sample: /nix/store/ad7sz5yhzw2dhrwx92l9d9agdlhsbcnq-nixos-system-pi-1
        platform:
          description: The platform that the system is for.
          type: str
          sample: aarch64-linux
        version:
          description: The NixOS version, where the configuration has one.
          type: str
        closure_size:
          description: Bytes of the system with all that it needs.
          type: int
msg:
  description: What failed, naming groups and hosts.
  returned: when it failed
  type: str
"""
