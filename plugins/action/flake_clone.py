# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_clone."""

from __future__ import annotations

import getpass
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.utils.display import Display

from ..module_utils import git
from ..module_utils.clones import Clone, refresh
from ..module_utils.errors import BadInput, FlotillaError, masked
from ..module_utils.runner import Runner
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.fleet import whole_url
from ..plugin_utils.group_options import GROUPS, completed, groups_from_options

_display = Display()


class ActionModule(FlotillaAction):
    """Clones and fetches, on the builder, the repositories of those groups whose repository is a URL."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "others": {"type": "list", "elements": "dict", "default": []},
        "offline": {"type": "bool", "default": False},
        "continue_on_error": {"type": "bool", "default": False},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """One clone after the other; what goes wrong with one concerns its groups alone."""
        self.phase = "clone"
        named = {group["name"] for group in options["groups"]}
        others = [completed(other) for other in options["others"] if other.get("name") not in named]
        branches = {group.name: group.branch for group in groups_from_options([*options["groups"], *others])}
        clones: dict[str, list[Mapping[str, Any]]] = {}
        for group in options["groups"]:
            if group["remote"]:
                clones.setdefault(group["repo"], []).append(group)
        results: dict[str, dict[str, Any]] = {}
        errors: list[FlotillaError] = []
        runner = self.builder()
        if clones:
            git.require_git(runner)
        for path, mine in clones.items():
            guarded = {branches[group["name"]] for group in [*mine, *others] if group["repo"] == path}
            try:
                clone = self._refresh(runner, mine, guarded, options["offline"], task_vars)
            except FlotillaError as error:
                errors += [error.about(group["name"]) for group in mine]
                results |= {group["name"]: _failed(group, error.about(group["name"])) for group in mine}
                continue
            for warning in clone.warnings:
                _display.warning(warning)
            for group in mine:
                results[group["name"]], problem = _result(group, branches[group["name"]], clone)
                errors += [problem] if problem else []
        result: dict[str, Any] = {"changed": any(r["changed"] for r in results.values()), "groups": results}
        if errors and not options["continue_on_error"]:
            result |= {"failed": True, "msg": "\n".join(map(str, errors)), "phase": self.phase}
        return result

    @staticmethod
    def _refresh(
        runner: Runner,
        groups: list[Mapping[str, Any]],
        guarded: set[str | None],
        offline: bool,
        task_vars: Mapping[str, Any],
    ) -> Clone:
        first = groups[0]
        return refresh(
            runner,
            whole_url(first, task_vars["hostvars"]),
            first["repo"],
            f"{os.uname().nodename} {os.getpid()} {int(time.time())} {getpass.getuser()}",
            subject=first["name"],
            token=uuid.uuid4().hex,
            guarded=guarded,
            offline=offline,
        )


def _result(group: Mapping[str, Any], branch: str | None, clone: Clone) -> tuple[dict[str, Any], FlotillaError | None]:
    """A group's result, and why it cannot go on."""
    name = branch or clone.default
    error = clone.parted.get(name or "")
    try:
        commit = None if error else git.branch_head(clone.repo, name)
    except BadInput as missing:
        error = missing
    if error:
        return _failed(group, error.about(group["name"])), error.about(group["name"])
    changed = clone.created or bool(clone.moved)
    known = {"commit": commit, "branch": name, "created": clone.created, "moved": list(clone.moved)}
    return {**_nothing(group), **known, "changed": changed, "warnings": list(clone.warnings)}, None


def _failed(group: Mapping[str, Any], error: FlotillaError) -> dict[str, Any]:
    return {**_nothing(group), "failed": True, "msg": str(error)}


def _nothing(group: Mapping[str, Any]) -> dict[str, Any]:
    where = {"path": group["repo"], "url": masked(group["remote"])}
    return {
        "changed": False,
        "failed": False,
        **where,
        "commit": None,
        "branch": None,
        "created": False,
        "moved": [],
        "warnings": [],
    }
