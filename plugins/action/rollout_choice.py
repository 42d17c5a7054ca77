# SPDX-License-Identifier: GPL-3.0-or-later
"""Between which groups a promotion or restore is; documentation in plugins/modules/rollout_choice.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from ..module_utils.outcome import stages_to_run
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.choosing import Choice, choose, require_no_group
from ..plugin_utils.fleet import other_groups
from ..plugin_utils.result_file import refusals_in
from ..plugin_utils.values import plain


class ActionModule(FlotillaAction):
    """Runs once at the head of a promotion or a restore, on the controller."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "target": {"type": "str", "default": ""},
        "source": {"type": "str"},
        "to": {"type": "str", "default": ""},
        "result_file": {"type": "path"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Find both groups among all hosts of the inventory, and the target's hosts within the limit."""
        run_tags, skip_tags = plain(task_vars.get("ansible_run_tags", ["all"])), plain(task_vars.get("ansible_skip_tags", []))
        stages = stages_to_run(run_tags, skip_tags)
        play, everyone = plain(task_vars["ansible_play_hosts_all"]), plain(task_vars["groups"]["all"])
        found = Choice([], {}, None, [], [])
        if stages:
            with refusals_in(options["result_file"]):
                found = choose(options["target"], options["source"], play, everyone, task_vars["hostvars"])
                require_no_group(options["to"], options["target"], found.groups)
        return {
            **plain(asdict(found)),
            "other_groups": other_groups(filter(None, (found.target, found.source)), everyone, task_vars["hostvars"]),
            "stages": [str(stage) for stage in stages],
            # Each host of the play looks at some hosts of the source, so that they are looked at side by side.
            "looks": {host: found.source_hosts[i :: len(play)] for i, host in enumerate(play)},
        }
