# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_ledger_info."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils import git
from ..module_utils.errors import FlotillaError
from ..module_utils.ledger import Ran, Rollout, iso, last_ran, origins
from ..module_utils.ledger_record import is_ahead, read, standing
from ..module_utils.update_group import UpdateGroup
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.group_options import GROUPS, groups_from_options
from ..plugin_utils.ledger_results import NOTHING, standing_result


class ActionModule(FlotillaAction):
    """Reads on the builder what the ledger says of update groups."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "last": {"type": "int", "default": 10},
        "running": {"type": "dict"},
        "continue_on_error": {"type": "bool", "default": False},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """Read each repository's ledger once."""
        groups = groups_from_options(options["groups"])
        commits = {given["name"]: given["commit"] for given in options["groups"]}
        self.phase = "ledger"
        runner = self.builder()
        git.require_git(runner)
        now = int(time.time())
        ledgers: dict[str, list[Rollout]] = {}
        results = {}
        for group in groups:
            try:
                repo = git.open_repository(runner, group.repo, group.name)
                if repo.git_dir not in ledgers:
                    ledgers[repo.git_dir] = read(repo)
                found = standing(repo, group, ledgers[repo.git_dir], now)
                hosts = _hosts(repo, group, ledgers[repo.git_dir], commits[group.name], options["running"])
            except FlotillaError as error:
                if not options["continue_on_error"]:
                    raise
                results[group.name] = {**NOTHING, "failed": True, "msg": str(error), "hosts": {}}
            else:
                results[group.name] = {**NOTHING, **standing_result(group, found, last=options["last"]), "hosts": hosts}
        return {"groups": results}


def _hosts(
    repo: git.Repository,
    group: UpdateGroup,
    rollouts: list[Rollout],
    commit: str | None,
    running: Mapping[str, str] | None,
) -> dict[str, dict[str, Any]]:
    """What the group's hosts were last seen with, or where comes from what they run; and whether the group's commit is older."""
    if running is None:
        return {name: _ran(ran) for name, ran in last_ran(rollouts, group.name).items()}
    found = origins(rollouts, group.name, running)
    wanted = git.commit_of(repo, commit) if commit else git.branch_head(repo, group.branch or git.current_branch(repo))
    there = {ran.commit for ran in found.values()}
    ahead = {ran: is_ahead(repo, wanted, ran) if wanted else False for ran in there}
    return {name: {**_ran(ran), "ahead": ahead[ran.commit]} for name, ran in found.items()}


def _ran(ran: Ran) -> dict[str, Any]:
    return {"commit": ran.commit, "system": ran.system, "time": iso(ran.time)}
