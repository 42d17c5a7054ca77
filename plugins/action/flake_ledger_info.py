# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_ledger_info."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils import git
from ..module_utils.ledger import Rollout
from ..module_utils.ledger_record import read, standing
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.group_options import GROUPS, groups_from_options
from ..plugin_utils.ledger_results import NOTHING, standing_result


class ActionModule(FlotillaAction):
    """Reads on the builder what the ledger says of update groups."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "last": {"type": "int", "default": 10},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """Read each repository's ledger once."""
        groups = groups_from_options(options["groups"])
        self.phase = "ledger"
        runner = self.builder()
        git.require_git(runner)
        now = int(time.time())
        ledgers: dict[str, list[Rollout]] = {}
        results = {}
        for group in groups:
            repo = git.open_repository(runner, group.repo, group.name)
            if repo.git_dir not in ledgers:
                ledgers[repo.git_dir] = read(repo)
            found = standing(repo, group, ledgers[repo.git_dir], now)
            results[group.name] = {**NOTHING, **standing_result(group, found, last=options["last"])}
        return {"groups": results}
