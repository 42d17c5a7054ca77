# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_group, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_group
short_description: Make, change and remove the update groups of a fleet's repository
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Manages the layout in which each update group has a flake of its own, C(hosts/GROUP/flake.nix), in the work tree of a
    repository on
    the machine that the task is for or is delegated to (the builder). No target is touched.
  - Writes the groups' C(flake.nix) from a template, adds hosts, moves them from one group to another, and removes them. A
    move changes the
    lock of neither group.
  - A C(flake.nix) that was written by hand, or that was edited since it was written here, is never overwritten. If it lacks
    something, the
    task fails and says what to add to it. This is recognised by a hash at the end of the file, below comments that hold the
      layout.
  - Nix evaluates everything before the work tree is changed, in a commit that no ref names. What does not evaluate is refused
    with nix's message, and nothing is changed.
  - New files are made known to git (C(git add --intent-to-add)), because nix does not see others. Moves and removals are done
    as
    C(git mv) and C(git rm) do them. Nothing is committed, unless O(commit) says so, and nothing is deployed before it is.
  - The inventory plugin P(flotilla.nixos.flakes#inventory) takes the hosts from the flakes. In a static inventory, move them
    by hand.
  - Needs nix 2.26 or newer and git 2.38 or newer on the builder. No Python is needed there.
options:
  repo:
    description: The git work tree on the builder.
    type: path
    required: true
  groups:
    description:
      - The groups, each named once. A host that is listed in one, and is in another group of the repository, is moved.
      - What is left out of a group that is there already stays as it is.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The update group's name.
        type: str
        required: true
      hosts:
        description:
          - All hosts that the group shall have, or with O(append) those that it shall have too. Hosts that are not in the
            list are
            removed from the C(flake.nix). Their own files are left, and named in a warning.
          - Without it, the hosts are those that it has.
        type: list
        elements: dict
        suboptions:
          name:
            description: The host's name in the inventory. Its first label is the C(networking.hostName).
            type: str
            required: true
          attribute:
            description: The host's attribute in C(nixosConfigurations). Without one, its name.
            type: str
          modules:
            description:
              - The host's own NixOS modules, as paths from the repository's top, or outputs of an input, such as
                V(home-manager.nixosModules.default).
              - Without them, C(NAME.nix) or C(NAME/default.nix) in the group's directory. A new host that has neither gets an
                empty
                C(NAME.nix) to fill in. When the host moves to another group, these go along.
            type: list
            elements: str
          system:
            description: The host's platform, such as V(aarch64-linux). Without one, the group's.
            type: str
      flake:
        description: The directory of the group's C(flake.nix) in the repository. Without one, C(hosts/NAME).
        type: str
      inputs:
        description:
          - The flake's inputs, each with its URL, or as C(flake.nix) would have it, in a mapping of C(url), C(inputs),
            C(flake).
          - A new group without them has those of the group that its hosts come from, or else C(nixpkgs) from
            C(github:NixOS/nixpkgs/nixos-unstable).
        type: dict
      modules:
        description: Modules that all hosts of the group have, as O(groups[].hosts[].modules).
        type: list
        elements: str
      system:
        description: The hosts' platform. A new group without one has that of the group that its hosts come from, or the
          builder's.
        type: str
      hosts_from:
        description:
          - One of O(groups[].inputs). The hosts are taken from its C(nixosConfigurations) as they are, and no modules are
            added.
          - With an input such as V(path:../..) this gives hosts of one big flake locks of their own.
        type: str
      lock_from:
        description:
          - The update group whose pins a lock gets when it is made, or the path of a lock in the repository.
          - Without it, the group that the hosts come from. If they are new, the upstreams are asked.
        type: str
  state:
    description:
      - V(present) brings the groups to what is said of them.
      - V(absent) removes their C(flake.nix) and the C(flake.lock) beside it. A group that still has hosts is refused, see
        O(force).
    type: str
    choices: [present, absent]
    default: present
  append:
    description: Whether O(groups[].hosts) lists hosts to add or to change, rather than all.
    type: bool
    default: false
  force:
    description: With O(state=absent), remove groups that have hosts, too.
    type: bool
    default: false
  template:
    description:
      - A template of a C(flake.nix) on the controller, which takes the place of ours. It is Jinja, as for
        M(ansible.builtin.template).
      - It gets the variable C(group), with C(name), C(flake), C(system), C(inputs), C(inputs_text) (the whole definition of
        C(inputs) for a
        C(flake.nix)), C(modules), C(hosts_from) and C(hosts). Each host has C(name), C(host_name), C(attribute), C(system)
          and C(modules).
      - Attributes and modules are written as nix wants them in that file. Where nix's C({{) is in the way, change Jinja's
        delimiters in the
        first line, as in C(#jinja2:variable_start_string:'[%', variable_end_string:'%]').
      - It must give an attribute in C(nixosConfigurations) for each host.
    type: path
  lock:
    description: Make the lock of a group that has none. Without it, the next update makes it.
    type: bool
    default: true
  commit:
    description:
      - Commit what was changed, in one commit of these files alone. What else is staged stays staged.
      - Refused while these files have uncommitted changes of others.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    details: Everything is evaluated, and new locks are made, outside the work tree. Git objects that no ref names are left
      for git to collect.
  diff_mode:
    support: full
  idempotent:
    support: full
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
seealso:
  - module: flotilla.nixos.flake_info
  - module: flotilla.nixos.flake_lock
  - module: flotilla.nixos.fleet_init
"""

EXAMPLES = r"""
- name: Have two update groups
  flotilla.nixos.flake_group:
    repo: /srv/fleet
    groups:
      - name: servers
        modules: [modules/base.nix]
        hosts:
          - name: web1
          - name: web2
            attribute: shop
      - name: sbcs
        system: aarch64-linux
        modules: [modules/base.nix, modules/sensor.nix]
        inputs:
          nixpkgs: github:NixOS/nixpkgs/nixos-25.05
        hosts:
          - name: pi-1
          - name: pi-2
  delegate_to: localhost
  run_once: true

- name: Move a host to a group of its own for a while, with the pins that it has
  flotilla.nixos.flake_group:
    repo: /srv/fleet
    groups:
      - name: canary
        hosts:
          - name: pi-1
    commit: true
  delegate_to: localhost
  run_once: true

- name: Move it back
  flotilla.nixos.flake_group:
    repo: /srv/fleet
    groups:
      - name: sbcs
        hosts:
          - name: pi-1
    append: true
  delegate_to: localhost
  run_once: true

- name: Remove the group that is empty now
  flotilla.nixos.flake_group:
    repo: /srv/fleet
    groups:
      - name: canary
    state: absent
  delegate_to: localhost
  run_once: true

- name: Write flakes as this fleet likes them
  flotilla.nixos.flake_group:
    repo: /srv/fleet
    template: flake.nix.j2
    groups:
      - name: kiosks
        hosts:
          - name: kiosk-1
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changed:
  description: Whether a file of the work tree changed.
  returned: always
  type: bool
groups:
  description: What became of each group that was named, and of those that lost hosts to them.
  returned: success
  type: dict
  contains:
    flake:
      description: The directory of its flake.
      type: str
      sample: hosts/sbcs
    hosts:
      description: The hosts that it has now.
      type: list
      elements: str
    added:
      description: Hosts that were in no group before.
      type: list
      elements: str
    moved:
      description: Hosts that were in another group, and which that was.
      type: dict
      sample: {"pi-7": "sbcs"}
    removed:
      description: Hosts that it had and has no more.
      type: list
      elements: str
    ours:
      description: Whether its C(flake.nix) is written here. If not, it is the user's own, and was left alone.
      type: bool
    locked:
      description: Whether a lock was made.
      type: bool
    lock_from:
      description: Where the pins of that lock are from; null if upstreams were asked.
      type: str
files:
  description: The files that changed.
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
