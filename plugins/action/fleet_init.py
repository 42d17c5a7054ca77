# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.fleet_init."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.flotilla.nixos.plugins.module_utils import nix
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.fleet_init import Init, InitWish, init_fleet
from ansible_collections.flotilla.nixos.plugins.module_utils.git import require_git
from ansible_collections.flotilla.nixos.plugins.module_utils.group_making import Means
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES, checked_repo
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import FlotillaAction
from ansible_collections.flotilla.nixos.plugins.plugin_utils.file_diffs import file_diffs, owner
from ansible_collections.flotilla.nixos.plugins.plugin_utils.layout_options import (
    addresses_of,
    inventory_groups,
    wished_groups,
)
from ansible_collections.flotilla.nixos.plugins.plugin_utils.role_options import known_variables, unknown_variables

_display = Display()
_PLAYBOOKS = Path(__file__).parents[2] / "playbooks"


class ActionModule(FlotillaAction):
    """Makes a directory on the builder a fleet."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "path": {"type": "path"},
        "groups": {"type": "dict"},
        "strategy": {"type": "str", "choices": list(STRATEGIES)},
        "nixpkgs": {"type": "str"},
        "system": {"type": "str"},
        "commit": {"type": "bool", "default": False},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Find out, plan, prove, make; then say what is next."""
        if mistakes := unknown_variables(load_extra_vars(self._loader), known_variables()):
            raise BadInput("init", "; ".join(mistakes), "Correct the -e; ansible-doc -t role flotilla.nixos.layout lists them.")
        runner = self.builder()
        require_git(runner)
        nix.require_nix(runner)
        self.phase = "init"
        path = checked_repo(os.path.abspath(options["path"] or os.getcwd()))
        given = wished_groups(options["groups"]) if options["groups"] is not None else None
        wish = InitWish(
            groups=given,
            listed=inventory_groups(task_vars) if given is None else (),
            strategy=options["strategy"],
            nixpkgs=options["nixpkgs"],
            system=options["system"],
            addresses=addresses_of(options["groups"] or {}, task_vars),
            keys=_own_keys(),
            playbooks=tuple(sorted(book.stem for book in _PLAYBOOKS.glob("*.yml"))),
        )
        done = init_fleet(runner, path, wish, Means(owner(), self.check_mode, options["commit"]))
        self._tell(done)
        return _result(done) | ({"diff": file_diffs(done.made.files)} if self.diff_mode else {})

    def _tell(self, done: Init) -> None:
        for warning in done.warnings:
            _display.warning(warning)
        if done.kept:
            self.progress(f"left as they are: {', '.join(sorted(done.kept))}")
        if self.diff_mode and done.kept:
            for path, text in done.kept.items():
                self.progress(_differences(done.before.get(path, ""), text, path))
        for step in done.next_steps(committed=done.made.commit is not None):
            self.progress(step)


def _differences(before: str, after: str, path: str) -> str:
    lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(*lines, f"{path} (yours, and left alone)", f"{path} (as it would be written)"))


def _own_keys() -> tuple[str, ...]:
    """The ssh keys of who runs this, who is to reach the hosts."""
    keys = []
    for file in sorted(Path.home().glob(".ssh/id_*.pub")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError):
            continue
        keys += [line.strip() for line in lines if line.startswith(("ssh-", "ecdsa-", "sk-"))]
    return tuple(keys)


def _result(done: Init) -> dict[str, Any]:
    return {
        "changed": done.changed,
        "path": done.path,
        "groups": done.groups,
        "files": sorted(done.made.changes.texts),
        "kept": sorted(done.kept),
        "to_fill_in": list(done.to_fill_in),
        "proven": sorted(done.made.proven),
        "commit": done.made.commit,
        "warnings": done.warnings,
    }
