# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a rollout is for, and how far it goes; documentation in plugins/modules/rollout_scope.py."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ..module_utils.errors import BadInput
from ..module_utils.ledger import iso
from ..module_utils.outcome import stages_to_run
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.choosing import group_on_branch
from ..plugin_utils.fleet import group_of, other_groups, update_groups, with_others
from ..plugin_utils.result_file import write_result
from ..plugin_utils.role_options import check_role_options, known_variables, require_one_value, unknown_variables
from ..plugin_utils.values import plain

_display = Display()


class ActionModule(FlotillaAction):
    """Runs once at the head of a rollout, on the controller."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "all": {"type": "bool", "default": False},
        "whole_groups": {"type": "bool", "default": False},
        "known_good": {"type": "bool", "default": False},
        "branch": {"type": "str"},
        "result_file": {"type": "path"},
        "entry_point": {"type": "str", "choices": ["prepare", "status", "update", "rollback", "catchup"], "default": "prepare"},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Find the scope, and write down that the run goes on, or why it is refused."""
        file = options["result_file"]
        try:
            found = self._scope(options, task_vars)
        except BadInput as error:
            if file:
                write_result(file, "refused", reason=str(error))
            raise
        if file and found["stages"]:
            write_result(file, "running", found["rollout"], check_mode=self.check_mode)
        return found

    def _scope(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse a rollout that nobody limited; else the update groups of the hosts and the stages to run."""
        run_tags, skip_tags = plain(task_vars.get("ansible_run_tags", ["all"])), plain(task_vars.get("ansible_skip_tags", []))
        stages = stages_to_run(run_tags, skip_tags)
        hosts = plain(task_vars["ansible_play_hosts_all"])
        if stages:
            _refuse_unlimited(task_vars, everything=options["all"], count=len(hosts))
            _refuse_slice(task_vars)
            _refuse_both(options["known_good"])
            _refuse_unknown(load_extra_vars(self._loader), hosts, task_vars["hostvars"])
            values = check_role_options("rollout", options["entry_point"], hosts, task_vars["hostvars"])
        # What a host goes back to is on the host: its update group matters to the ledger alone.
        grouped = stages and options["entry_point"] != "rollback"
        groups = update_groups(hosts, task_vars["hostvars"]) if grouped else []
        if stages and not grouped:
            groups = _as_far_as_known(hosts, task_vars["hostvars"])
        if grouped:
            require_one_value(values, {host["name"]: group["name"] for group in groups for host in group["hosts"]})
        others = [host for host in plain(task_vars["groups"]["all"]) if host not in set(hosts)] if groups else []
        built = with_others(groups, others, task_vars["hostvars"]) if options["whole_groups"] else groups
        if groups and options["branch"]:
            limited = hosts if task_vars.get("ansible_limit") else []
            groups = built = [group_on_branch(options["branch"], limited, [*hosts, *others], task_vars["hostvars"])]
        started = int(time.time())
        return {
            "stages": [str(stage) for stage in stages],
            "groups": groups,
            "build_groups": built,
            "other_groups": other_groups(groups, others, task_vars["hostvars"]),
            "rollout": {"id": f"{iso(started)}-{uuid.uuid4().hex[:8]}", "started": started},
        }


def _as_far_as_known(hosts: list[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The update groups of those hosts that have one; none if they cannot be used."""
    known = []
    for host in hosts:
        with contextlib.suppress(BadInput):
            group_of(host, hostvars[host])
            known.append(host)
    try:
        return update_groups(known, hostvars)
    except BadInput:
        return []


def _refuse_unlimited(task_vars: Mapping[str, Any], *, everything: bool, count: int) -> None:
    if not everything and not task_vars.get("ansible_limit"):
        raise BadInput(
            "rollout",
            f"there is no limit, so all {count} hosts of the inventory would be updated",
            "Name the hosts or groups with -l, or set flotilla_all=true.",
        )


def _refuse_both(known_good: bool) -> None:
    if known_good:
        raise BadInput(
            "rollout",
            "what the groups have proven cannot be deployed and their inputs updated in one run",
            "Leave out flotilla_target, or flotilla_update and its like.",
        )


def _refuse_unknown(extra_vars: Mapping[str, Any], hosts: list[str], hostvars: Mapping[str, Mapping[str, Any]]) -> None:
    """An unknown -e is a mistake of this very command; in the inventory, users may have variables of their own."""
    known = known_variables()
    mistakes = unknown_variables(extra_vars, known)
    if mistakes:
        raise BadInput("rollout", "; ".join(mistakes), "Correct the -e; ansible-doc -t role flotilla.nixos.rollout lists them.")
    for sentence in unknown_variables((name for host in hosts for name in hostvars[host]), known):
        _display.warning(f"{sentence}.")


def _refuse_slice(task_vars: Mapping[str, Any]) -> None:
    # AWX runs the slices of a job template as a workflow that has the template's name; nothing else tells a slice.
    template = task_vars.get("awx_job_template_name")
    if template and template == task_vars.get("awx_workflow_job_name"):
        raise BadInput(
            "rollout",
            f"AWX runs the job template {plain(template)!r} in slices, which do not know of each other's failures",
            "Set the template's job slicing to 1 (or give a workflow another name than its job template).",
        )
