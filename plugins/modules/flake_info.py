# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_info, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_info
short_description: Look at update groups - their hosts, their pins and their age, and what is wrong with them
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Says of update groups, at the head of their branch, which hosts their flakes have, what their inputs are locked to and how
    old that is, what of the work tree is not committed, and what is wrong with them, each with a fix.
  - Runs on the machine that the task is for or is delegated to (the builder). Nothing is written there.
  - What is wrong with a group does not fail the task. It fails if there is no usable nix or git on the builder.
  - Of a repository (O(repo)) it says which strategy it uses, how sure that is and why, which update groups it has, and which
    variables would tell it to the role. It asks nix for what the flakes have, and looks at lock files and branches.
  - Needs git on the builder, and nix 2.26 or newer unless O(evaluate=false). No Python is needed there.
options:
  repo:
    description: A repository on the builder to recognise the layout of. This or O(groups) is needed.
    type: path
  evaluate:
    description:
      - Ask nix for the names of the hosts. This also tells whether the lock is complete. No host's configuration is evaluated.
      - Without it the answer takes milliseconds, and only git is asked.
      - For O(repo), the hosts of a flake with several inputs are evaluated to see which of these each host uses.
    type: bool
    default: true
  max_age:
    description: Report inputs whose pinned revision is older than this many days as a problem.
    type: int
  timeout:
    description: Seconds that one evaluator may take.
    type: int
    default: 1800
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
extends_documentation_fragment:
  - flotilla.nixos.groups.optional
seealso:
  - module: flotilla.nixos.flake_build
  - module: flotilla.nixos.flake_lock
"""

EXAMPLES = r"""
- name: Look at the update group sbcs
  flotilla.nixos.flake_info:
    groups:
      - name: sbcs
        repo: /srv/fleet
        hosts:
          - name: pi-1
    max_age: 30
  delegate_to: localhost
  run_once: true
  register: fleet

- name: Show how old its nixpkgs is
  ansible.builtin.debug:
    msg: "{{ fleet.groups.sbcs.inputs.nixpkgs.age }} days"

- name: Find out how a repository keeps its locks
  flotilla.nixos.flake_info:
    repo: /srv/fleet
  delegate_to: localhost
  run_once: true
  register: found

- name: Show the variables that say so
  ansible.builtin.debug:
    msg: "{{ found.layout.snippet }}"

- name: Stop at what a rollout would fail at
  ansible.builtin.assert:
    that: fleet.groups.sbcs.usable
    fail_msg: "{{ fleet.groups.sbcs.problems | map(attribute='msg') | join(' ') }}"
"""

RETURN = r"""
groups:
  description: The update groups, by name. What could not be found out is null.
  returned: success
  type: dict
  contains:
    repo:
      description: The repository on the builder.
      type: str
    branch:
      description: The group's branch, or the one that is checked out; null if none is.
      type: str
    commit:
      description: The commit that was looked at.
      type: str
    candidate:
      description: The commit of an update that has neither been accepted nor discarded.
      type: str
    flake:
      description: The directory of the flake in the repository.
      type: str
    hosts:
      description: The names in the flake's nixosConfigurations.
      type: list
      elements: str
    lock:
      description: The path of the lock in the repository, with C({host}) in it where each host has its own.
      type: str
    lock_state:
      description:
        - V(locked) if the lock is complete (with O(evaluate=false), if it can be read).
        - V(unlocked) if the flake.nix has inputs that it does not have. V(missing) if there is none. V(untracked) if it
          is not committed, so that nix does not see it. V(broken) if it cannot be read, being in conflict, encrypted,
          empty, or of an unknown version.
        - V(none) if there is none and the flake has no inputs, V(unknown) if the repository could not be read.
      type: str
      sample: locked
    lock_age:
      description: Days since the newest revision in the lock.
      type: float
      sample: 12.4
    locks:
      description:
        - The lock files by path. Where each host has its own, there are several, and RV(groups.lock_state),
          RV(groups.lock_age) and RV(groups.inputs) say of each thing how it is where it is worst, or oldest.
      type: dict
      contains:
        hosts:
          description: The hosts that have this lock.
          type: list
          elements: str
        state:
          description: As RV(groups.lock_state).
          type: str
        age:
          description: As RV(groups.lock_age).
          type: float
        inputs:
          description: As RV(groups.inputs).
          type: dict
    inputs:
      description: The flake's own inputs, by name.
      type: dict
      contains:
        url:
          description: What it is, without the revision.
          type: str
          sample: github:NixOS/nixpkgs
        rev:
          description: The revision it is locked to.
          type: str
        ref:
          description: The branch or tag that it follows.
          type: str
        date:
          description: The day of that revision.
          type: str
          sample: "2026-11-02"
        age:
          description: Days since then.
          type: float
        follows:
          description: The input whose pin this one has.
          type: str
    changed_files:
      description: Tracked files of the work tree that differ from the commit. They are not deployed.
      type: list
      elements: str
    untracked_files:
      description: Files of the work tree that git does not track. Nix does not see them.
      type: list
      elements: str
    usable:
      description: Whether none of the problems is an error.
      type: bool
    problems:
      description: What is wrong with the group.
      type: list
      elements: dict
      contains:
        level:
          description: V(error) if a rollout would fail at it, else V(warning).
          type: str
        msg:
          description: What it is, and what to do.
          type: str
          sample: "sbcs: the repository /srv/fleet has no branch next. It has main."
layout:
  description: How the repository keeps its groups' locks.
  returned: when O(repo) is given
  type: dict
  contains:
    repo:
      description: The repository's top on the builder.
      type: str
    branch:
      description: The branch that is checked out; null if none is.
      type: str
    commit:
      description: The commit that was looked at.
      type: str
    strategy:
      description:
        - One of the seven strategies; V(mixed) if groups differ; V(single) if one lock is for all hosts, which is none of them;
          V(none) if no flake has hosts.
      type: str
      sample: group_flakes
    certainty:
      description: V(sure), V(likely) or V(guess); that of the group of which least is known.
      type: str
    evidence:
      description: What was seen, and what could not be.
      type: list
      elements: str
    advice:
      description: What to do next, if anything.
      type: str
    groups:
      description: The update groups.
      type: list
      elements: dict
      contains:
        name:
          description: The group's name, after its directory, branch, lock or input.
          type: str
        strategy:
          description: The group's strategy, or V(single).
          type: str
        certainty:
          description: As for the whole.
          type: str
        evidence:
          description: Why.
          type: list
          elements: str
        hosts:
          description: The attributes of its hosts; null if no flake says it.
          type: list
          elements: str
        variables:
          description: The inventory variables that say so, C(flotilla_strategy) and so on.
          type: dict
    flakes:
      description: Every flake of the commit by directory, with its C(hosts) (null if it does not evaluate) and C(outputs).
      type: dict
    problems:
      description:
        - What of the repository works otherwise than one may think. For example, a flake that collects others and has its own
          copy of their pins, an input that is the repository itself, the same host in two flakes, submodules, a lock that is a
          link or cannot be read.
      type: list
      elements: dict
      contains:
        level:
          description: V(error) if a rollout of one of the groups would fail at it, else V(warning).
          type: str
        msg:
          description: What it is about, what it is, and what to do.
          type: str
    snippet:
      description: The variables as YAML files, each after a comment with its path.
      type: str
"""
