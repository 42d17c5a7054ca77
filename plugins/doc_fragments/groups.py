# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option groups, which the builder's modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """The option as plugin_utils/group_options.py takes it."""

    DOCUMENTATION = r"""
options:
  groups:
    description:
      - The update groups to work on, each named once with all of its hosts.
      - The filter P(flotilla.nixos.update_groups#filter) makes this list from the inventory.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The update group's name.
        type: str
        required: true
      repo:
        description: The git repository with the group's flake on the builder, a work tree or a bare repository.
        type: path
        required: true
      remote:
        description: The URL that the repository is a clone of; see M(flotilla.nixos.flake_clone).
        type: str
      strategy:
        description: Where the group's lock lives and what may move in it. Gives the defaults of the fields below.
        type: str
        choices: [group_flakes, group_repos, group_inputs, channel_inputs, stage_flakes, group_branches, host_locks]
        default: group_flakes
      branch:
        description: The branch that is deployed and that takes updates. Without one, the branch that is checked out.
        type: str
      flake:
        description: The directory of the group's C(flake.nix) in the repository.
        type: str
      lock:
        description:
          - The path of the group's lock in the repository.
          - C({host}) in it stands for the host's name in the inventory, so that each of O(groups[].hosts) has a lock of its
            own, as in V(locks/{host}.lock). C({group}) stands for the group's name.
          - If it is not the flake's own C(flake.lock), nix is given it in that one's place.
        type: str
      inputs:
        description: The inputs of the flake that an update may move. Without them, all.
        type: list
        elements: str
      holds:
        description:
          - What is to stay where it is. It is not among the inputs that an update or a promotion moves, and naming it is an
            error, unless a reason is given; see O(flotilla.nixos.flake_lock#module:force_reason).
          - An entry whose day has passed holds no more, and is warned of.
        type: list
        elements: dict
        default: []
        suboptions:
          input:
            description: The input, or the path to a nested one. Without it, the whole group.
            type: str
          reason:
            description: Why. There has to be one.
            type: str
          until:
            description: The last day in UTC, as in V(2026-12-24). There has to be one.
            type: str
      commit:
        description: The commit to work on. Without one, the head of the branch.
        type: str
      hosts:
        description: The group's hosts.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The host's name in the inventory.
            type: str
            required: true
          attribute:
            description: The host's attribute in the flake's C(nixosConfigurations). Without one, its name.
            type: str
"""

    #: The same for a module that can do without.
    # Annotated, as ansible-test of ansible-core 2.21 takes a plain assignment for a literal.
    OPTIONAL: str = DOCUMENTATION.replace("    required: true\n    suboptions", "    default: []\n    suboptions")
