# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_ledger."""

from __future__ import annotations

import getpass
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ansible.utils.display import Display

from ..module_utils import git
from ..module_utils.candidate import known_good_ref
from ..module_utils.clones import give_known_good, is_clone
from ..module_utils.durations import seconds
from ..module_utils.errors import BadInput, CommandFailed, FlotillaError
from ..module_utils.git_notes import join
from ..module_utils.ledger import Ending, HostRecord, Rollout, Source, as_dict, in_order, origins
from ..module_utils.ledger_record import Occasion, Report, Standing, as_rollout, read, record, settle, standing
from ..module_utils.outcome import Outcome
from ..module_utils.runner import Runner
from ..module_utils.update_group import UpdateGroup
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.fleet import members
from ..plugin_utils.group_options import GROUPS, groups_from_options
from ..plugin_utils.ledger_results import NOTHING, standing_result
from ..plugin_utils.values import plain

_display = Display()

#: Keys in `by` → variables in which AWX says who started a job.
_AWX = {
    "awx_user": ("awx_user_name", "tower_user_name"),
    "awx_job": ("awx_job_id", "tower_job_id"),
    "awx_template": ("awx_job_template_name", "tower_job_template_name"),
}

_HOST: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "result": {"type": "str", "choices": [str(outcome) for outcome in Outcome], "required": True},
    "system": {"type": "str"},
    "previous": {"type": "str"},
    "time": {"type": "int"},
    "reason": {"type": "str", "default": ""},
}
_ROLLOUT: dict[str, dict[str, Any]] = {
    "group": {"type": "str", "required": True},
    "hosts": {"type": "list", "elements": "dict", "required": True, "options": _HOST},
    "commit": {"type": "str"},
    "source": {"type": "str", "choices": [str(source) for source in Source], "default": "head"},
    "halted": {"type": "bool", "default": False},
    "touched": {"type": "bool", "default": True},
    "reason": {"type": "str", "default": ""},
    "soak": {"type": "str", "default": "0"},
    "branch": {"type": "str"},
    "landed": {"type": "str"},
    "rollback": {"type": "bool", "default": False},
}


class ActionModule(FlotillaAction):
    """Records rollouts on the builder, and moves known-good to what they prove."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "state": {"type": "str", "choices": ["begun", "recorded", "settled"], "default": "recorded"},
        "rollouts": {"type": "list", "elements": "dict", "options": _ROLLOUT},
        "id": {"type": "str"},
        "goal": {"type": "str", "choices": ["switch", "boot", "test", "dry-activate"], "default": "switch"},
        "started": {"type": "int"},
        "ended": {"type": "int"},
        "forced": {"type": "str", "default": ""},
        "sync": {"type": "bool", "default": False},
        "continue_on_error": {"type": "bool", "default": False},
    }
    SPEC_RULES: ClassVar[dict[str, Any]] = {
        "required_if": [("state", state, ("rollouts", "id")) for state in ("begun", "recorded")]
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Work on one repository after the other; one that fails does not keep the others from being written."""
        groups = groups_from_options(options["groups"])
        occasion = _occasion(options, task_vars, int(time.time()))
        begun = options["state"] == "begun"
        reports = {} if options["state"] == "settled" else _reports(groups, options["rollouts"] or [], occasion, begun=begun)
        whole = members(plain(task_vars["groups"]["all"]), task_vars["hostvars"]) if reports else {}
        reports = {name: replace(report, members=whole.get(name)) for name, report in reports.items()}
        self.phase = "ledger"
        results: dict[str, dict[str, Any]] = {}
        errors: list[FlotillaError] = []
        diffs: list[dict[str, str]] = []
        for mine in _by_repository(groups):
            try:
                found, shown = self._write(
                    mine, [reports[group.name] for group in mine if group.name in reports], occasion, options
                )
            except FlotillaError as error:
                errors.append(error)
                failed = {**NOTHING, "failed": True, "msg": str(error), "recorded": False, "warnings": []}
                found, shown = {group.name: failed for group in mine}, []
            results |= found
            diffs += shown
        return self._result(results, errors, diffs, go_on=options["continue_on_error"])

    def _write(
        self, groups: list[UpdateGroup], reports: list[Report], occasion: Occasion, options: Mapping[str, Any]
    ) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
        """Record, exchange and settle in one repository: the groups' results, and what to show in diff mode."""
        ledger = _Ledger(self.builder(), groups, int(time.time()), check=self.check_mode)
        added = ledger.record(reports, occasion)
        recorded = {rollout.group for rollout in added}
        # A clone has had the remote's lines from the fetch before; what is new has to get there.
        exchanges = options["sync"] or (options["state"] == "recorded" and ledger.in_clone)
        apart: list[str] = []
        try:
            joined = ledger.join() if exchanges else set()
        except CommandFailed as error:
            if options["state"] != "settled" or not options["continue_on_error"]:
                raise
            # What this controller has is true, if not all.
            joined, apart = set(), [str(error)]
            _display.warning(f"The ledger was not exchanged. {error}")
        moved, warnings = ledger.settle()
        pushed = ledger.give_known_good(set(moved)) if exchanges and not apart else {}
        warnings = {name: [*warnings.get(name, []), *pushed.get(name, [])] for name in (*warnings, *pushed)}
        results = {}
        for group in groups:
            name = group.name
            changed = name in recorded or name in moved or name in joined
            results[name] = {**NOTHING, **standing_result(group, ledger.standing(group), last=1)}
            results[name] |= {"changed": changed, "recorded": name in recorded, "warnings": warnings.get(name, [])}
            for warning in warnings.get(name, []):
                _display.warning(warning)
        return results, _diffs(added, {known_good_ref(group): moved[group.name] for group in groups if group.name in moved})

    def _result(
        self, results: dict[str, dict[str, Any]], errors: list[FlotillaError], diffs: list[dict[str, str]], *, go_on: bool
    ) -> dict[str, Any]:
        result: dict[str, Any] = {"changed": any(found["changed"] for found in results.values()), "groups": results}
        if self.diff_mode:
            result["diff"] = diffs
        if errors and go_on:
            for error in errors:
                _display.warning(f"The ledger was not written. {error}")
        elif errors:
            result |= {"failed": True, "msg": "\n".join(map(str, errors)), "phase": self.phase}
        return result


class _Ledger:
    """One repository's ledger in one run of the task, for those update groups that live there."""

    def __init__(self, runner: Runner, groups: list[UpdateGroup], now: int, *, check: bool) -> None:
        git.require_git(runner)
        self._repo = git.open_repository(runner, groups[0].repo, groups[0].name)
        self._groups, self._now, self._check = groups, now, check
        self._token = uuid.uuid4().hex
        self._rollouts: list[Rollout] = []

    def record(self, reports: list[Report], occasion: Occasion) -> list[Rollout]:
        """Add the reports' lines; those that are new."""
        added: list[Rollout] = []
        if reports:
            there = read(self._repo)
            new = [as_rollout(self._repo, self._placed(report, there), occasion) for report in reports]
            added = record(self._repo, new, self._token, check=self._check)
        self._rollouts = [*read(self._repo), *(added if self._check else [])]
        return added

    def _placed(self, report: Report, there: list[Rollout]) -> Report:
        """A rollback belongs to the commit that its hosts have left, as far as the ledger knows it."""
        if report.outcome is not Ending.ROLLED_BACK or report.commit is not None:
            return report
        left = {name: host.system for name, host in report.hosts.items() if host.system}
        found = sorted(origins(there, report.group.name, left).values(), key=lambda origin: -origin.time)
        commit = next((origin.commit for origin in found if git.commit_of(self._repo, origin.commit)), None)
        return replace(report, commit=commit)

    def join(self) -> set[str]:
        """Exchange lines with the remote; the groups that have new ones."""
        if self._check:
            return set()
        branch = self._groups[0].branch or git.current_branch(self._repo) or "HEAD"
        remote, _ref = git.push_target(self._repo, branch)
        before = {rollout.key for rollout in self._rollouts}
        join(self._repo, remote, self._token)
        self._rollouts = read(self._repo)
        return {rollout.group for rollout in self._rollouts if rollout.key not in before}

    @property
    def in_clone(self) -> bool:
        """Whether the repository is a clone of ours."""
        return is_clone(self._repo)

    def give_known_good(self, moved: set[str]) -> dict[str, list[str]]:
        """Push those refs that have moved, or that never arrived; warnings for those that the remote does not take."""
        if self._check:
            return {}
        remote, _ref = git.push_target(self._repo, self._groups[0].branch or git.current_branch(self._repo) or "HEAD")
        warnings = {}
        for group in self._groups:
            try:
                give_known_good(self._repo, remote, group.name, anew=group.name in moved)
            except CommandFailed as error:
                warnings[group.name] = [str(error)]
        return warnings

    def settle(self) -> tuple[dict[str, tuple[str | None, str]], dict[str, list[str]]]:
        """Move known-good: for each group where it moved, from where and to where; and warnings where it could not."""
        moved, warnings = {}, {}
        for group in self._groups:
            found = self.standing(group)
            try:
                if found.known_good and settle(self._repo, group, self._rollouts, self._now, check=self._check):
                    moved[group.name] = (found.ref, found.known_good.commit)
            except BadInput as error:
                warnings[group.name] = [str(error)]
        return moved, warnings

    def standing(self, group: UpdateGroup) -> Standing:
        """What the ledger says of a group now."""
        return standing(self._repo, group, self._rollouts, self._now)


def _by_repository(groups: Iterable[UpdateGroup]) -> list[list[UpdateGroup]]:
    found: dict[str, list[UpdateGroup]] = {}
    for group in groups:
        found.setdefault(group.repo, []).append(group)
    return list(found.values())


def _occasion(options: Mapping[str, Any], task_vars: Mapping[str, Any], now: int) -> Occasion:
    by = {"user": getpass.getuser(), "controller": os.uname().nodename}
    for key, names in _AWX.items():
        value = next((task_vars[name] for name in names if task_vars.get(name)), None)
        if value is not None:
            by[key] = str(plain(value))
    ended = now if options["ended"] is None else options["ended"]
    started = ended if options["started"] is None else options["started"]
    if started > ended:
        raise BadInput("started", f"{started} is later than the end of the rollout, {ended}", "Give both in Unix seconds.")
    return Occasion(options["id"] or "", options["goal"], started, ended, by, options["forced"])


def _reports(
    groups: list[UpdateGroup], rollouts: list[Mapping[str, Any]], occasion: Occasion, *, begun: bool
) -> dict[str, Report]:
    known = {group.name: group for group in groups}
    reports: dict[str, Report] = {}
    for given in rollouts:
        name = given["group"]
        if name not in known:
            raise BadInput(name, "its rollout is to be recorded, but the group is not in `groups`", "Name it there, too.")
        if name in reports:
            raise BadInput(name, "two rollouts of this group have the same id", "Give each its own id, in a task of its own.")
        reports[name] = Report(
            group=known[name],
            commit=given["commit"],
            source=Source(given["source"]),
            hosts={host["name"]: _host(host, occasion) for host in given["hosts"]},
            halted=given["halted"],
            touched=given["touched"],
            reason=given["reason"],
            soak=seconds(name, "flotilla_soak", given["soak"]),
            branch=given["branch"],
            landed=given["landed"],
            outcome=Ending.BROKEN_OFF if begun else Ending.ROLLED_BACK if given["rollback"] else None,
        )
    return reports


def _host(given: Mapping[str, Any], occasion: Occasion) -> HostRecord:
    return HostRecord(
        Outcome(given["result"]),
        given["system"],
        given["previous"],
        occasion.ended if given["time"] is None else given["time"],
        given["reason"],
    )


def _diffs(added: Iterable[Rollout], moved: Mapping[str, tuple[str | None, str]]) -> list[dict[str, str]]:
    diffs = [_diff(f"ledger of {rollout.group}", "", json.dumps(as_dict(rollout), indent=2)) for rollout in in_order(added)]
    return diffs + [_diff(ref, before or "", after) for ref, (before, after) in moved.items()]


def _diff(header: str, before: str, after: str) -> dict[str, str]:
    return {
        "before_header": header,
        "after_header": header,
        "before": before and f"{before}\n",
        "after": after and f"{after}\n",
    }
