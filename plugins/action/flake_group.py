# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_group."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from ansible.utils.display import Display
from ansible_collections.flotilla.nixos.plugins.module_utils import nix
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, masked
from ansible_collections.flotilla.nixos.plugins.module_utils.flake_text import GroupLayout, Render, built_in, for_template
from ansible_collections.flotilla.nixos.plugins.module_utils.git import require_git
from ansible_collections.flotilla.nixos.plugins.module_utils.group_layout import GroupPlan, GroupWish, HostWish, Order
from ansible_collections.flotilla.nixos.plugins.module_utils.group_making import Made, Means, make_groups
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import checked_repo
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import FlotillaAction
from ansible_collections.flotilla.nixos.plugins.plugin_utils.file_diffs import file_diffs, owner

_display = Display()

_HOST: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "attribute": {"type": "str"},
    "modules": {"type": "list", "elements": "str"},
    "system": {"type": "str"},
}
_GROUP: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "hosts": {"type": "list", "elements": "dict", "options": _HOST},
    "flake": {"type": "str"},
    "inputs": {"type": "dict"},
    "modules": {"type": "list", "elements": "str"},
    "system": {"type": "str"},
    "hosts_from": {"type": "str"},
    "lock_from": {"type": "str"},
}


class ActionModule(FlotillaAction):
    """Brings the groups' flakes in a work tree on the builder to what is wanted."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "repo": {"type": "path", "required": True},
        "groups": {"type": "list", "elements": "dict", "required": True, "options": _GROUP},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "append": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "template": {"type": "path"},
        "lock": {"type": "bool", "default": True},
        "commit": {"type": "bool", "default": False},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Plan, prove, make; then say what became of each group."""
        runner = self.builder()
        require_git(runner)
        nix.require_nix(runner)
        self.phase = "layout"
        order = Order(
            groups=tuple(map(_wish, options["groups"])),
            render=self._renderer(options["template"], task_vars) if options["template"] else built_in,
            system=nix.current_system(runner),
            present=options["state"] == "present",
            append=options["append"],
            force=options["force"],
        )
        means = Means(owner(), self.check_mode, options["commit"], options["lock"], self._retries())
        made = make_groups(runner, checked_repo(options["repo"]), order, means)
        for warning in made.plan.warnings:
            _display.warning(warning)
        result = _result(made)
        return result | ({"diff": file_diffs(made.files)} if self.diff_mode else {})

    def _retries(self) -> Callable[[str], None]:
        return lambda line: self.progress(masked(line.strip())) if "retrying" in line else None

    def _renderer(self, path: str, task_vars: Mapping[str, Any]) -> Render:
        """What makes a flake.nix of the user's template, which is on the controller, as ansible.builtin.template would."""
        try:
            source = self._find_needle("templates", path)
            text = trust_as_template(self._loader.get_text_file_contents(source))
        except AnsibleError as error:
            raise BadInput(f"template {path}", f"it cannot be read: {error}", "Correct its path on the controller.") from error
        search = [os.path.dirname(source), *task_vars.get("ansible_search_path", [])]

        def render(layout: GroupLayout) -> str:
            variables = {**task_vars, "group": for_template(layout)}
            templar = self._templar.copy_with_new_env(searchpath=search, available_variables=variables)
            try:
                made = templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True})
            except AnsibleError as error:
                raise BadInput(f"template {path}", f"it cannot be filled in: {error}", "Nothing was changed.") from error
            return str(made if made is not None else "")

        return render


def _wish(options: Mapping[str, Any]) -> GroupWish:
    hosts = options["hosts"]
    modules = options["modules"]
    return GroupWish(
        name=options["name"],
        hosts=None if hosts is None else tuple(map(_host, hosts)),
        flake=options["flake"],
        inputs=options["inputs"],
        modules=None if modules is None else tuple(modules),
        system=options["system"],
        hosts_from=options["hosts_from"],
        lock_from=options["lock_from"],
    )


def _host(options: Mapping[str, Any]) -> HostWish:
    modules = options["modules"]
    return HostWish(options["name"], options["attribute"], None if modules is None else tuple(modules), options["system"])


def _result(made: Made) -> dict[str, Any]:
    return {
        "changed": made.changed,
        "groups": {group.name: _group_result(group, made) for group in made.plan.groups},
        "files": sorted(change.path for change in made.files),
        "commit": made.commit,
        "warnings": list(made.plan.warnings),
    }


def _group_result(group: GroupPlan, made: Made) -> dict[str, Any]:
    return {
        "flake": group.flake,
        "hosts": [host.name for host in group.after.hosts] if group.after else [],
        "added": group.added,
        "moved": dict(group.moved),
        "removed": group.removed,
        "ours": group.rendered,
        "locked": group.name in made.locks,
        "lock_from": made.locks.get(group.name) or None,
    }
