# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a promotion's source has proven what it runs; documentation in plugins/modules/rollout_proof.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.git import open_repository, require_git
from ..module_utils.proving import Proven, Seen, branch_commit, proven, require_proven
from ..module_utils.recorded_groups import group_without_hosts
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.group_options import GROUPS, groups_from_options
from ..plugin_utils.result_file import refusals_in
from ..plugin_utils.values import plain


class ActionModule(FlotillaAction):
    """Runs once on the builder, after the source's hosts were looked at."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "there": {"type": "list", "elements": "str", "default": []},
        "standing": {"type": "dict"},
        "absent": {"type": "dict", "default": {}},
        "force_reason": {"type": "str", "default": ""},
        "result_file": {"type": "path"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Say which commit may be promoted, and leave a refusal for whatever started the run."""
        with refusals_in(options["result_file"]):
            return self._judge(options, task_vars)

    def _judge(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Judge by the ledger and by what the hosts run now; without a standing, take the head of the branch."""
        [source] = groups_from_options(options["groups"])
        runner = self.builder()
        require_git(runner)
        repo = open_repository(runner, source.repo, source.name)
        if options["standing"] is None:
            commit = branch_commit(repo, str(source.branch), options["there"])
            found = Proven(commit, group_without_hosts(repo, str(source.branch)), "Use the inventory that has its hosts.")
            forced = require_proven(str(source.branch), found, options["force_reason"].strip())
            self.progress(f"{source.branch} is a branch that no group runs: nothing has proven it{forced and f': {forced}'}")
            return {"commit": commit, "forced": forced, "against": list(found.against)}
        hosts = [host["name"] for host in options["groups"][0]["hosts"]]
        found = proven(options["standing"], _seen(hosts, options["absent"], task_vars), int(time.time()))
        forced = require_proven(source.name, found, options["force_reason"].strip())
        if forced:
            self.progress(f"{source.name}: goes on all the same: {forced}")
        commit = found.commit or branch_commit(repo, source.branch, options["there"])
        return {"commit": commit, "forced": forced, "against": list(found.against)}


def _seen(hosts: list[str], absent: Mapping[str, str], task_vars: Mapping[str, Any]) -> dict[str, Seen]:
    """What the hosts of the play have found of the source's hosts, each of some."""
    hostvars = task_vars["hostvars"]
    looks = [plain(hostvars[host].get("flotilla_source_info") or {}) for host in plain(task_vars["ansible_play_hosts_all"])]
    found = {info.get("item"): info for look in looks for info in look.get("results") or []}
    found |= {host: {"reachable": False, "msg": why} for host, why in absent.items()}
    return {host: Seen(found.get(host, {}), plain(hostvars[host].get("flotilla_ignored_units") or [])) for host in hosts}
