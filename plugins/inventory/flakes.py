# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin flotilla.nixos.flakes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.vars import combine_vars
from ansible_collections.flotilla.nixos.plugins.module_utils import fleet_inventory
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import FlotillaError
from ansible_collections.flotilla.nixos.plugins.module_utils.fleet_inventory import ListedGroup, ListedHost, Listing, Settings
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.fleet import repository_above
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from ansible_collections.flotilla.nixos.plugins.plugin_utils.values import plain

DOCUMENTATION = r"""
name: flakes
short_description: The hosts of a NixOS fleet, from its flakes
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Gives an inventory group for each update group of a repository, and in it the hosts that the group's flake has in
    C(nixosConfigurations).
  - The hosts are what nix says that they are, at the commit that a rollout would deploy, the head of each group's branch.
  - Needs nix 2.26 or newer and git on the controller. Nothing is built or written.
  - The inventory file's name must end in C(flotilla.yml) or C(flotilla.yaml).
  - A group whose flake does not evaluate is left empty with a warning, and a host that does not evaluate stays in the
    inventory with fewer variables; with O(strict=true) both are errors.
  - Evaluation takes seconds for each host of a real fleet, so switch the O(cache) on. What is cached is used only as long as the
    commits and the options are the same, so that it is never stale.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [flotilla.nixos.flakes]
  repo:
    description: The fleet's git repository. Without it, the one that the inventory file is in.
    type: path
  update_groups:
    description:
      - The update groups by name, each with the fields in which it differs from its strategy's defaults, or with none.
      - What is given for a group is set as variables of its inventory group, C(flotilla_strategy), C(flotilla_branch) and so on.
      - "C(strategy): one of C(group_flakes) (the default), C(group_repos), C(group_inputs), C(channel_inputs), C(stage_flakes),
        C(group_branches), C(host_locks)."
      - "C(repo), C(branch), C(flake), C(lock), C(inputs): the group's fields. With C({host}) in the C(lock), each host has its
        own, and is evaluated with it; to know the hosts' names, any one of these locks is enough."
      - "C(hosts), C(exclude): lists of shell patterns for the attributes that are its hosts, for flakes that have others, too."
    type: dict
    default: {}
  discover:
    description:
      - Find further groups, one for each C(flake.nix) that O(pattern) matches, named after its directory.
      - By default it is done where O(update_groups) is empty.
    type: bool
  pattern:
    description: The path of groups' flakes in the repository. A C(*) stands for a part of one name.
    type: str
    default: hosts/*/flake.nix
  exclude:
    description: Shell patterns of attributes that are no hosts, such as installers, in any group.
    type: list
    elements: str
    default: []
  host_name:
    description:
      - The hosts' names in the inventory, with C({attribute}), C({group}), and C({host_name}) and C({fqdn}) as the
        configuration has them.
      - A host of which one of these is not known is named after its attribute.
    type: str
    default: "{attribute}"
  variables:
    description:
      - Variables for each host, by name, as nix expressions over its configuration C(c).
      - Null, and what fails by C(throw) or C(assert), sets none.
    type: dict
    default: {}
  sources:
    description:
      - Outputs of other tools that say how hosts are reached. Nothing is built for them, and none of these tools is needed.
      - "V(colmena): the output C(colmenaHive), which C(colmena.lib.makeHive) makes, or else C(colmena). Of C(deployment), the
        options C(targetHost), C(targetUser) and C(targetPort) become C(ansible_host), C(ansible_user) and C(ansible_port), and
        C(tags) the variable C(flotilla_tags) and inventory groups that begin with C(tag_)."
      - "V(deploy-rs): the output C(deploy.nodes). C(hostname), C(sshUser) and C(sshOpts) become C(ansible_host), C(ansible_user),
        C(ansible_port) and C(ansible_ssh_common_args). Only nodes with the profile C(system) are hosts."
      - A node is the host of C(nixosConfigurations) that has its name, or, with deploy-rs, whose system it deploys. A node that
        is in C(colmenaHive) alone can be rolled out, too. Its C(flotilla_attribute) begins with C(colmenaHive.nodes.).
      - A hive in the output C(colmena) alone is a set of modules. Only those C(deployment) options of it can be read that ask
        nothing of the module system, and none of its nodes can be built from there. A warning says so, with the fix.
      - Where two sources contradict each other, neither is taken, and a warning names both. What O(variables) sets goes before
        both.
      - They are not looked at where each host has a lock of its own.
    type: list
    elements: str
    choices: [colmena, deploy-rs]
    default: [colmena, deploy-rs]
  details:
    description: Evaluate the hosts' configurations. Without it only names are known, which is quick without a cache.
    type: bool
    default: true
  allow_dirty:
    description: Look at work trees' tracked files as they are, where they differ from the commit.
    type: bool
    default: false
  chunk:
    description: The number of hosts that one evaluator takes at a time. Without it, as many as fit into the free memory.
    type: int
  timeout:
    description: Seconds that one evaluator may take.
    type: int
    default: 1800
"""

EXAMPLES = r"""
# fleet.flotilla.yml, in the repository: one update group for each hosts/*/flake.nix
plugin: flotilla.nixos.flakes
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/flotilla

# Attribute, host name and address may all differ
---
plugin: flotilla.nixos.flakes
repo: /srv/fleet
host_name: "{attribute}.{group}"
variables:
  ansible_host: c.config.networking.fqdn
  tags: c.config.fleet.tags or []
compose:
  ansible_user: "'root' if flotilla_update_group == 'sbcs' else 'deploy'"
keyed_groups:
  - key: flotilla_platform
    prefix: platform
  - key: tags
    prefix: tag
exclude: ["installer*"]

# Groups that share one flake and one lock, and groups on branches
---
plugin: flotilla.nixos.flakes
update_groups:
  canary:
    strategy: group_inputs
    inputs: [nixpkgs-canary]
    hosts: ["canary-*"]
  stable:
    strategy: group_inputs
    inputs: [nixpkgs]
    exclude: ["canary-*"]
  kiosks:
    strategy: group_branches
    hosts: ["kiosk-*"]
"""

_GROUP_KEYS = ("strategy", "repo", "branch", "flake", "lock", "inputs", "hosts", "exclude")
_SECONDS_OF_A_DAY = 86400


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Lists update groups and their hosts. Values from flakes are never templates: they carry no trust."""

    NAME = "flotilla.nixos.flakes"

    def verify_file(self, path: str) -> bool:
        """Whether the file is named as ours are."""
        return bool(super().verify_file(path)) and path.endswith(("flotilla.yml", "flotilla.yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Fill the inventory; expected failures are AnsibleParserError."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.load_cache_plugin()
        try:
            listings = self._listings(loader.path_dwim_relative("", "", path) if not path.startswith("/") else path)
            found = self._found(listings, path, cache)
            groups = list(zip(listings, found, strict=True))
            names = fleet_inventory.host_names(groups, self._option("host_name"))
            self._complain(found)
            for listing, group in groups:
                self._add_group(inventory, listing, group, names)
            inventory.set_variable("all", "flotilla_update_groups", [listing.group.name for listing in listings])
        except FlotillaError as error:
            raise AnsibleParserError(str(error)) from error

    def _option(self, name: str) -> Any:
        return plain(self.get_option(name))

    def _listings(self, path: str) -> list[Listing]:
        """The groups that the options name, and those that the repository has."""
        repo = self._option("repo") or repository_above(path.rpartition("/")[0])
        given = self._option("update_groups")
        listings = [self._listing(str(name), fields or {}, repo) for name, fields in given.items()]
        discover = self._option("discover")
        if discover or (discover is None and not given):
            dirty = self._option("allow_dirty")
            groups, problems = fleet_inventory.discover(LocalRunner(), repo, self._option("pattern"), allow_dirty=dirty)
            for problem in problems:
                self._say(problem)
            listings += [Listing(g, exclude=tuple(self._option("exclude"))) for g in groups if g.name not in given]
        if not listings:
            raise AnsibleParserError(
                f"{repo}: no flake at HEAD matches {self._option('pattern')}. Commit one, or name the groups in update_groups."
            )
        return listings

    def _listing(self, name: str, fields: Any, repo: str) -> Listing:
        unknown = sorted(set(fields) - set(_GROUP_KEYS)) if isinstance(fields, Mapping) else ["(not a mapping)"]
        if unknown:
            raise AnsibleParserError(f"update_groups.{name}: there is no {', '.join(unknown)}. Use {', '.join(_GROUP_KEYS)}.")
        for key in ("inputs", "hosts", "exclude"):
            if not isinstance(fields.get(key, []), list):
                raise AnsibleParserError(f"update_groups.{name}.{key}: this is not a list. Write it as [one, two].")
        group = update_group(
            name,
            fields.get("repo") or repo,
            strategy=fields.get("strategy") or next(iter(STRATEGIES)),
            branch=fields.get("branch"),
            flake=fields.get("flake"),
            lock=fields.get("lock"),
            inputs=fields.get("inputs"),
        )
        exclude = (*map(str, fields.get("exclude", [])), *self._option("exclude"))
        return Listing(group, tuple(map(str, fields.get("hosts", ["*"]))), exclude)

    def _found(self, listings: Sequence[Listing], path: str, cache: bool) -> list[ListedGroup]:
        """The hosts, from the cache if it has them for these commits and options."""
        settings = Settings(
            self._option("allow_dirty"),
            self._option("details"),
            self._option("variables"),
            self._option("chunk"),
            float(self._option("timeout")),
            self._option("host_name"),
            tuple(self._option("sources")),
        )
        runner, key = LocalRunner(), self.get_cache_key(path)
        mark = fleet_inventory.fingerprint(runner, listings, settings) if self._option("cache") else None
        if mark and cache:
            kept = plain(self._cache.get(key)) or {}
            if kept.get("mark") == mark:
                return fleet_inventory.loaded(kept["groups"])
        found = fleet_inventory.list_groups(runner, listings, settings)
        if mark and not any(group.error for group in found):
            self._cache[key] = {"mark": mark, "groups": fleet_inventory.dumped(found)}
        return found

    def _complain(self, found: Sequence[ListedGroup]) -> None:
        for group in found:
            for error in [group.error, *group.problems, *(host.error for host in group.hosts)]:
                if error:
                    self._say(error)

    def _say(self, problem: str) -> None:
        if self._option("strict"):
            raise AnsibleParserError(problem)
        self.display.warning(problem)

    def _add_group(
        self, inventory: InventoryData, listing: Listing, found: ListedGroup, names: Mapping[tuple[str, str], str]
    ) -> None:
        group = inventory.add_group(listing.group.name)
        shared = _group_variables(listing, found, self._option("update_groups").get(listing.group.name) or {})
        for name, value in shared.items():
            inventory.set_variable(group, name, value)
        for host in found.hosts:
            name = names[listing.group.name, host.attribute]
            inventory.add_host(name, group)
            own = _host_variables(host)
            for variable, value in own.items():
                inventory.set_variable(name, variable, value)
            for tag in host.tags:
                inventory.add_child(inventory.add_group(_tag_group(tag)), name)
            self._construct(name, combine_vars(shared, own))

    def _construct(self, host: str, variables: Mapping[str, Any]) -> None:
        strict = self._option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)


def _group_variables(listing: Listing, found: ListedGroup, given: Mapping[str, Any]) -> dict[str, Any]:
    group = listing.group
    # What was found in an unusual place has to be said too: the defaults would look elsewhere.
    fields: dict[str, Any] = {"flake": group.flake, "lock": group.lock} if not given else {}
    fields |= {key: given[key] for key in ("strategy", "branch", "flake", "lock", "inputs") if given.get(key) is not None}
    variables = {f"flotilla_{key}": value for key, value in fields.items()}
    variables |= {"flotilla_update_group": group.name, "flotilla_repo": group.repo}
    if found.locked is not None:
        variables["flotilla_lock_age"] = round((time.time() - found.locked) / _SECONDS_OF_A_DAY, 1)
    return variables


def _host_variables(host: ListedHost) -> dict[str, Any]:
    known = {
        "flotilla_attribute": host.attribute,
        "flotilla_platform": host.platform,
        "flotilla_host_name": host.host_name,
        "flotilla_fqdn": host.fqdn,
    }
    tags = {"flotilla_tags": host.tags} if host.tags else {}
    return {**{name: value for name, value in known.items() if value is not None}, **tags, **host.address, **host.variables}


def _tag_group(tag: str) -> str:
    """The inventory group of a tag. Not its plain name: that may be an update group's, and a host is in but one of these."""
    return "tag_" + re.sub(r"\W", "_", tag)
