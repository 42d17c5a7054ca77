# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time for an update group; documentation in plugins/modules/rollout_claim.py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ansible.utils.display import Display

from ..module_utils import git
from ..module_utils.claims import Claim, Claimed, Claims, holders
from ..module_utils.errors import BadInput, FlotillaError
from ..module_utils.runner import Runner
from ..module_utils.update_group import UpdateGroup
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.controller_run import can_tell, is_over, this_run
from ..plugin_utils.group_options import GROUPS, groups_from_options
from ..plugin_utils.result_file import write_result
from ..plugin_utils.system_target import default_owner

_display = Display()
#: Seconds between looks at a group that another run has.
_PAUSE = 2.0

Repositories = Sequence[tuple[str, git.Repository]]


class ActionModule(FlotillaAction):
    """Runs once at the head of a run, and once at its end, on the builder."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
        "what": {"type": "str", "default": "rollout"},
        "wait": {"type": "int", "default": 0},
        "take_over": {"type": "bool", "default": False},
        "lease": {"type": "int", "default": 43200},
        "result_file": {"type": "path"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Take the claims or give them back. Never `changed`: what is left afterwards is what was there before."""
        self.phase = "claim"
        runner = self.builder()
        groups = groups_from_options(options["groups"])
        repositories = _repositories(runner, groups)
        claims = Claims(runner, _claim(options, task_vars), is_over, options["take_over"], can_tell)
        if options["state"] == "released":
            if not self.check_mode:
                claims.give_back(repositories)
            return {"groups": []}
        if self.check_mode:
            _tell(holders(runner, repositories))
            return {"groups": []}
        try:
            self._take(claims, repositories, options, task_vars)
        except BadInput as error:
            if options["result_file"]:
                write_result(options["result_file"], "refused", reason=str(error))
            raise
        return {"groups": [name for name, _repo in repositories]}

    def _take(self, claims: Claims, repositories: Repositories, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Take the claims, waiting for other runs if that is wanted."""
        deadline = time.monotonic() + options["wait"]
        told = ""
        while True:
            try:
                claims.take(repositories)
                return
            except Claimed as error:
                if time.monotonic() >= deadline:
                    raise
                if told != error.what:
                    self.progress(f"{error.subject}: {error.what}; waiting up to {options['wait']} s for it")
                    told = error.what
            time.sleep(_PAUSE)
            claims = Claims(claims.runner, _claim(options, task_vars), is_over, claims.take_over, can_tell)


def _claim(options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Claim:
    now = int(time.time())
    who = default_owner(task_vars).partition(" (run ")[0]
    return Claim(this_run(), now, now + options["lease"], who, options["what"])


def _repositories(runner: Runner, groups: Sequence[UpdateGroup]) -> Repositories:
    """The groups' repositories. One that cannot be opened is told by the stages that work on it, group by group."""
    found = []
    for group in groups:
        try:
            found.append((group.name, git.open_repository(runner, group.repo, group.name)))
        except FlotillaError:
            continue
    return found


def _tell(held: Mapping[str, Claim]) -> None:
    for group, claim in held.items():
        if claim.run != this_run() and not is_over(claim.run):
            _display.warning(f"{group}: {claim.said()}.")
