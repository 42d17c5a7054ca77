# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_info."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.flotilla.nixos.plugins.module_utils import nix
from ansible_collections.flotilla.nixos.plugins.module_utils.group_info import GroupInfo, InputInfo, inspect, shared_inputs
from ansible_collections.flotilla.nixos.plugins.module_utils.layout import recognise
from ansible_collections.flotilla.nixos.plugins.module_utils.lint import lint
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import FlotillaAction
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import GROUPS, groups_from_options
from ansible_collections.flotilla.nixos.plugins.plugin_utils.layout_results import layout_result


class ActionModule(FlotillaAction):
    """Looks at update groups on the builder."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": {**GROUPS, "required": False, "default": []},
        "repo": {"type": "path"},
        "evaluate": {"type": "bool", "default": True},
        "max_age": {"type": "int"},
        "timeout": {"type": "int", "default": int(nix.EVALUATION)},
    }

    SPEC_RULES: ClassVar[dict[str, Any]] = {"required_one_of": [("groups", "repo")]}

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """Look at each group, and at the repository; what is wrong with one is in its result."""
        groups = groups_from_options(options["groups"])
        runner = self.builder()
        if options["evaluate"] or options["repo"]:
            nix.require_nix(runner)
        now = time.time()
        found = [
            inspect(
                runner,
                group,
                now=now,
                commit=given["commit"],
                evaluate=options["evaluate"],
                max_age=options["max_age"],
                timeout=float(options["timeout"]),
            )
            for group, given in zip(groups, options["groups"], strict=True)
        ]
        shared_inputs(found)
        result: dict[str, Any] = {"changed": False, "groups": {info.group.name: _group_result(info) for info in found}}
        if options["repo"]:
            how = {"evaluate": options["evaluate"], "timeout": float(options["timeout"])}
            layout = recognise(runner, options["repo"], **how)
            result["layout"] = layout_result(layout, lint(layout, **how))
        return result


def _group_result(info: GroupInfo) -> dict[str, Any]:
    return {
        "repo": info.group.repo,
        "branch": info.branch,
        "commit": info.commit,
        "candidate": info.candidate,
        "flake": info.group.flake,
        "hosts": list(info.hosts) if info.hosts is not None else None,
        "lock": info.group.lock,
        "lock_state": str(info.lock_state),
        "lock_age": _days(info.lock_age),
        "inputs": _inputs_result(info.inputs),
        "locks": {
            lock.path: {
                "hosts": list(lock.hosts),
                "state": str(lock.state),
                "age": _days(lock.age),
                "inputs": _inputs_result(lock.inputs),
            }
            for lock in info.locks
        },
        "changed_files": list(info.tree.changed),
        "untracked_files": list(info.tree.untracked),
        "usable": not any(problem.error for problem in info.problems),
        "problems": [
            {"level": "error" if p.error else "warning", "msg": f"{info.group.name}: {p.what}. {p.fix}".rstrip()}
            for p in info.problems
        ],
    }


def _inputs_result(inputs: Mapping[str, InputInfo]) -> dict[str, Any]:
    return {name: _input_result(known) for name, known in inputs.items()}


def _input_result(known: InputInfo) -> dict[str, Any]:
    return {
        "url": known.pin.url,
        "rev": known.pin.rev,
        "ref": known.pin.ref,
        "date": known.pin.date,
        "age": _days(known.age),
        "follows": known.follows or None,
    }


def _days(age: float | None) -> float | None:
    return None if age is None else round(age, 1)
