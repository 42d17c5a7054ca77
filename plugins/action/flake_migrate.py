# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_migrate."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ansible.utils.vars import load_extra_vars
from ansible_collections.flotilla.nixos.plugins.module_utils import nix
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.git import require_git
from ansible_collections.flotilla.nixos.plugins.module_utils.layout import Layout
from ansible_collections.flotilla.nixos.plugins.module_utils.migrating import Means, Migration, failure_of, migrate
from ansible_collections.flotilla.nixos.plugins.module_utils.migration import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import FlotillaAction, failure
from ansible_collections.flotilla.nixos.plugins.plugin_utils.fleet import repository_above, update_groups
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import GROUP_OPTIONS, groups_from_options
from ansible_collections.flotilla.nixos.plugins.plugin_utils.layout_results import snippet
from ansible_collections.flotilla.nixos.plugins.plugin_utils.role_options import known_variables, unknown_variables
from ansible_collections.flotilla.nixos.plugins.plugin_utils.values import plain


class ActionModule(FlotillaAction):
    """Moves a repository to another strategy, on the builder."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "repo": {"type": "path"},
        "to": {"type": "str", "required": True},
        "hosts": {"type": "dict", "default": {}},
        "groups": {"type": "list", "elements": "dict", "default": [], "options": GROUP_OPTIONS},
        "allow_revision": {"type": "bool", "default": False},
        "timeout": {"type": "int", "default": int(nix.EVALUATION)},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Make the commit, prove it, and land it."""
        if mistakes := unknown_variables(load_extra_vars(self._loader), known_variables()):
            raise BadInput("migrate", "; ".join(mistakes), "Correct the -e; docs/migrating.md has them all.")
        self.phase = "migrate"
        runner = self.builder()
        require_git(runner)
        nix.require_nix(runner)
        owner = f"{os.uname().nodename} {os.getpid()} {int(time.time())} {getpass.getuser()}"
        means = Means(owner, self.check_mode, options["allow_revision"], float(options["timeout"]), self.progress)
        known = options["groups"] or _of_inventory(task_vars)
        repo = options["repo"] or next((group["repo"] for group in known), None) or _repository(task_vars)
        done = migrate(runner, repo, _wish(options, known), means)
        result = _result(done)
        if self.diff_mode:
            result["diff"] = [
                {"before": before or "", "after": after or "", "before_header": path, "after_header": path}
                for path, (before, after) in done.files.items()
            ]
        if error := failure_of(done):
            result |= failure(error, self.phase) | {"changed": False}
        return result


def _of_inventory(task_vars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The update groups of the hosts that have one."""
    hostvars = task_vars.get("hostvars") or {}
    having = []
    for host in plain((task_vars.get("groups") or {}).get("all", [])):
        if any(plain(hostvars[host].get(f"flotilla_update_group{plural}")) for plural in ("", "s")):
            having.append(host)
    groups = update_groups(having, hostvars)
    return [{**dict.fromkeys(GROUP_OPTIONS), "strategy": next(iter(STRATEGIES)), **group} for group in groups]


def _repository(task_vars: Mapping[str, Any]) -> str:
    """The repository that the inventory is in; without one, that of the working directory."""
    hostvars = task_vars.get("hostvars") or {}
    hosts = plain((task_vars.get("groups") or {}).get("all", []))
    inventory = next((hostvars[host].get("inventory_dir") for host in hosts), None)
    return repository_above(str(inventory or os.getcwd()))


def _wish(options: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Wish:
    for name, patterns in options["hosts"].items():
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise BadInput(
                f"group {name}", f"{patterns!r} is no list of hosts", "Name its hosts, or patterns of them, in a list."
            )
    return Wish(options["to"], options["hosts"], tuple(groups_from_options(known)))


def _result(done: Migration) -> dict[str, Any]:
    layout = done.layout
    then = Layout(layout.repo, layout.head, done.to, tuple(done.groups), layout.flakes)
    return {
        "changed": done.commit is not None and done.allowed,
        "branch": layout.head.branch,
        "base": layout.head.commit,
        "commit": done.commit,
        "landed": done.landed,
        "message": done.message,
        "from": layout.strategy,
        "files": {path: _kind(before, after) for path, (before, after) in done.files.items()},
        "hosts": {
            proof.host: {
                "group": proof.group or None,
                "same": proof.same,
                "before": proof.before.drv,
                "after": proof.after.drv if proof.after else None,
                "why": proof.why or None,
            }
            for proof in done.proofs
        },
        "variables": {group.name: group.variables() for group in done.groups},
        "snippet": snippet(then),
    }


def _kind(before: str | None, after: str | None) -> str:
    return "added" if before is None else "removed" if after is None else "changed"
