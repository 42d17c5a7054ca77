# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_lock."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ansible.utils.display import Display
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Candidate, Run, make_candidate, publish
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, FlotillaError, masked
from ansible_collections.flotilla.nixos.plugins.module_utils.git import require_git
from ansible_collections.flotilla.nixos.plugins.module_utils.holding import Holding
from ansible_collections.flotilla.nixos.plugins.module_utils.landing import Landing, accept, discard
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import Change, Pin
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.merging import promote_or_merge
from ansible_collections.flotilla.nixos.plugins.module_utils.nix import require_nix
from ansible_collections.flotilla.nixos.plugins.module_utils.pairing import Choice
from ansible_collections.flotilla.nixos.plugins.module_utils.promotion import restore
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import Runner
from ansible_collections.flotilla.nixos.plugins.module_utils.shared_inputs import (
    agreed_lines,
    moved_for,
    not_agreed,
    sharing,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import FlotillaAction
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import (
    GROUP_OPTIONS,
    GROUPS,
    groups_from_options,
)

_T = TypeVar("_T")
_display = Display()


class ActionModule(FlotillaAction):
    """Makes candidates of update groups on the builder, lands them, or drops them."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "state": {
            "type": "str",
            "choices": ["updated", "promoted", "restored", "accepted", "discarded"],
            "default": "updated",
        },
        "source": {"type": "dict", "options": GROUP_OPTIONS},
        "others": {"type": "list", "elements": "dict", "default": [], "options": GROUP_OPTIONS},
        "allow_shared_inputs": {"type": "bool", "default": False},
        "force_reason": {"type": "str"},
        "mapping": {"type": "dict"},
        "to": {"type": "str"},
        "inputs": {"type": "list", "elements": "str"},
        "pins": {"type": "dict"},
        "push": {"type": "bool", "default": False},
        "allow_dirty": {"type": "bool", "default": False},
        "continue_on_error": {"type": "bool", "default": False},
    }
    SPEC_RULES: ClassVar[dict[str, Any]] = {"required_if": [("state", "promoted", ["source"]), ("state", "restored", ["to"])]}

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """Do it for each group, and say what came of each."""
        groups = groups_from_options(options["groups"])
        self.phase = "lock"
        runner = self.builder()
        require_git(runner)
        _require_fitting(options)
        if options["state"] in _MAKES:
            return self._make(runner, groups, options)
        commits = {given["name"]: given["commit"] for given in options["groups"]}
        return self._land(runner, groups, commits, options)

    def _make(self, runner: Runner, groups: list[UpdateGroup], options: Mapping[str, Any]) -> dict[str, Any]:
        require_nix(runner)
        shared: dict[str, dict[str, tuple[str, ...]]] = {}
        make = _with_consent(self._maker(runner, groups, options), runner, options, shared)
        made, errors = _each(groups, make)
        if errors and not options["continue_on_error"]:
            # All or none: no ref was written yet.
            raise next(iter(errors.values()))
        if not self.check_mode:
            _done, unpublished = _each([candidate.group for candidate in made.values()], lambda group: publish(made[group.name]))
            errors |= unpublished
        for warning in dict.fromkeys(warning for candidate in made.values() for warning in candidate.warnings):
            _display.warning(warning)
        results = {name: _candidate_result(candidate, shared[name]) for name, candidate in made.items()}
        result = self._result(groups, results, errors, options)
        if self.diff_mode:
            result["diff"] = [_diff(candidate) for candidate in made.values() if candidate.candidate]
        return result

    def _maker(self, runner: Runner, groups: list[UpdateGroup], options: Mapping[str, Any]) -> Callable[[UpdateGroup], Candidate]:
        """What makes a group's candidate, by state."""
        holds = _holdings(runner, groups, options)
        run, dirty = Run(_owner()), options["allow_dirty"]
        inputs = None if options["inputs"] is None else tuple(options["inputs"])
        if options["state"] == "restored":
            return lambda group: restore(runner, group, run, options["to"], inputs, holding=holds(group), allow_dirty=dirty)
        if options["state"] == "promoted":
            [source] = groups_from_options([options["source"]])
            commit, choice = options["source"]["commit"], Choice(inputs, options["mapping"] or {})
            return lambda group: promote_or_merge(
                runner, group, run, source, choice, commit=commit, holding=holds(group), allow_dirty=dirty
            )
        wish = _wish(options)

        def retries(group: UpdateGroup) -> Callable[[str], None]:
            return lambda line: self.progress(f"{group.name}: {masked(line.strip())}") if "retrying" in line else None

        return lambda group: make_candidate(
            runner, group, run, wish, holding=holds(group), allow_dirty=dirty, on_line=retries(group)
        )

    def _land(
        self, runner: Runner, groups: list[UpdateGroup], commits: Mapping[str, str | None], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        run = Run(_owner())

        def land(group: UpdateGroup) -> Landing:
            commit = commits[group.name]
            if options["state"] == "discarded":
                return discard(runner, group, commit=commit, check=self.check_mode)
            return accept(runner, group, run, commit=commit, push=options["push"], check=self.check_mode)

        landed, errors = _each(groups, land, go_on=options["continue_on_error"])
        results = {name: _landing_result(landing) for name, landing in landed.items()}
        return self._result(groups, results, errors, options)

    @staticmethod
    def _result(
        groups: list[UpdateGroup],
        results: dict[str, dict[str, Any]],
        errors: Mapping[str, FlotillaError],
        options: Mapping[str, Any],
    ) -> dict[str, Any]:
        for group in groups:
            known = _nothing(group) | results.get(group.name, {})
            if group.name in errors:
                known |= {"failed": True, "changed": False, "msg": str(errors[group.name])}
            results[group.name] = known
        result: dict[str, Any] = {"changed": any(r["changed"] for r in results.values()), "groups": results}
        if errors and not options["continue_on_error"]:
            result |= {"failed": True, "msg": "\n".join(map(str, errors.values())), "phase": "lock"}
        return result


#: States that make a candidate, with the options that are theirs alone.
_MAKES: Mapping[str, tuple[str, ...]] = {"updated": ("pins",), "promoted": ("source", "mapping"), "restored": ("to",)}


def _require_fitting(options: Mapping[str, Any]) -> None:
    """BadInput for an option that means nothing with this state, and would look as if it did."""
    for state, names in _MAKES.items():
        for name in names:
            if options[name] and options["state"] != state:
                raise BadInput(f"option {name}", f"it has no meaning with state={options['state']}", f"It is for state={state}.")
    for name, value in (options["mapping"] or {}).items():
        if not isinstance(value, str):
            raise BadInput(f"mapping of {name}", f"{value!r} is not the name of an input", "Give source input: target input.")


def _holdings(runner: Runner, groups: list[UpdateGroup], options: Mapping[str, Any]) -> Callable[[UpdateGroup], Holding]:
    """What is held for a group now: its own holds, and those of any that has its pins in the same lock."""
    now, force = time.time(), (options["force_reason"] or "").strip()
    with_holds = [group for group in (*groups, *_others(options)) if group.holds]
    # An update of several groups goes on without one that is held; what one alone was asked for does not.
    alone = options["state"] == "promoted" and len(groups) == 1
    return lambda group: Holding(group, sharing(runner, group, with_holds), now, force, alone=alone)


def _others(options: Mapping[str, Any]) -> list[UpdateGroup]:
    named = {group["name"] for group in options["groups"]}
    return [other for other in groups_from_options(options["others"]) if other.name not in named]


def _with_consent(
    make: Callable[[UpdateGroup], Candidate],
    runner: Runner,
    options: Mapping[str, Any],
    shared: dict[str, dict[str, tuple[str, ...]]],
) -> Callable[[UpdateGroup], Candidate]:
    """The same, but BadInput for a candidate that moves inputs of others unasked. shared: filled with what it moves for whom."""
    others = _others(options)

    def agreed(group: UpdateGroup) -> Candidate:
        candidate = make(group)
        shared[group.name] = moved_for(runner, candidate, others)
        if shared[group.name] and not options["allow_shared_inputs"]:
            raise not_agreed(group, shared[group.name])
        return candidate

    return agreed


def _owner() -> str:
    """Who holds locks on the builder in this run: host, process, time and user."""
    return f"{os.uname().nodename} {os.getpid()} {int(time.time())} {getpass.getuser()}"


def _wish(options: Mapping[str, Any]) -> Wish:
    pins = options["pins"] or {}
    for name, revision in pins.items():
        if not isinstance(revision, str):
            raise BadInput(f"input {name}", f"its revision {revision!r} is not text", "Put it into quotes.")
    return Wish(None if options["inputs"] is None else tuple(options["inputs"]), pins)


def _each(
    groups: list[UpdateGroup], work: Callable[[UpdateGroup], _T], *, go_on: bool = True
) -> tuple[dict[str, _T], dict[str, FlotillaError]]:
    """What the work gave for each group, and the expected failures; go_on False: nothing after the first of these."""
    done: dict[str, _T] = {}
    errors: dict[str, FlotillaError] = {}
    for group in groups:
        try:
            done[group.name] = work(group)
        except FlotillaError as error:
            errors[group.name] = error
            if not go_on:
                break
    return done, errors


def _nothing(group: UpdateGroup) -> dict[str, Any]:
    nothing = dict.fromkeys(("commit", "base", "candidate", "branch"))
    lists: dict[str, Any] = {"changes": [], "message": "", "warnings": [], "notes": [], "opened": [], "shared": {}}
    return {"changed": False, "failed": False, **nothing, "lock": group.lock, "locks": [], **lists}


def _candidate_result(candidate: Candidate, shared: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "changed": candidate.changed,
        "commit": candidate.commit,
        "base": candidate.base,
        "candidate": candidate.candidate,
        "branch": candidate.branch,
        "locks": list(candidate.locks),
        "changes": [_change(change) for change in candidate.changes],
        "message": candidate.message,
        "warnings": list(candidate.warnings),
        "notes": [*candidate.notes, *agreed_lines(shared)],
        "opened": list(candidate.opened),
        "shared": {name: list(inputs) for name, inputs in shared.items()},
    }


def _landing_result(landing: Landing) -> dict[str, Any]:
    return {
        "changed": landing.changed,
        "commit": landing.commit,
        "base": landing.base,
        "candidate": landing.candidate,
        "branch": landing.branch,
        "message": landing.message,
        "merged": landing.merged,
        "pushed": landing.pushed,
    }


def _change(change: Change) -> dict[str, Any]:
    pins = {"old": _pin(change.old), "new": _pin(change.new)}
    return {"input": change.input, "hosts": list(change.hosts), **pins, "compare": change.compare}


def _pin(pin: Pin | None) -> dict[str, Any] | None:
    if pin is None:
        return None
    return {"url": pin.url, "ref": pin.ref, "rev": pin.rev, "lastModified": pin.last_modified, "narHash": pin.nar_hash}


def _diff(candidate: Candidate) -> dict[str, str]:
    path = f"{candidate.group.repo}/{candidate.group.lock}"
    return {"before": candidate.before, "after": candidate.after, "before_header": path, "after_header": path}
