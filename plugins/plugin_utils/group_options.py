# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the option `groups` that the builder's modules share (as the filter update_groups gives it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.errors import BadInput
from ..module_utils.holds import KEYS as HOLD
from ..module_utils.holds import parse_holds
from ..module_utils.update_group import STRATEGIES, Member, UpdateGroup, update_group

_HOST_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "attribute": {"type": "str"},
}

#: Suboptions of one group. The documentation is in the doc fragment `groups`.
GROUP_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "repo": {"type": "path", "required": True},
    "remote": {"type": "str"},
    "strategy": {"type": "str", "choices": list(STRATEGIES), "default": "group_flakes"},
    "branch": {"type": "str"},
    "flake": {"type": "str"},
    "lock": {"type": "str"},
    "inputs": {"type": "list", "elements": "str"},
    "holds": {"type": "list", "elements": "dict", "default": [], "options": {name: {"type": "str"} for name in HOLD}},
    "commit": {"type": "str"},
    "hosts": {"type": "list", "elements": "dict", "default": [], "options": _HOST_OPTIONS},
}

#: The argument spec's entry for the option itself.
GROUPS: dict[str, Any] = {"type": "list", "elements": "dict", "required": True, "options": GROUP_OPTIONS}


def groups_from_options(groups: Sequence[Mapping[str, Any]]) -> list[UpdateGroup]:
    """The update groups of the (validated, plain) option; BadInput if one is unusable or named twice."""
    found = [_group(options) for options in groups]
    names = [group.name for group in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(twice, "this update group is given twice", "Give each group once, with all of its hosts.")
    return found


def flake_of(group: Mapping[str, Any]) -> str:
    """The directory of a group's flake, for a group with the given fields alone (as the filter update_groups gives it)."""
    return _group(completed(group)).flake


def completed(group: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a group for which only some are given, none of the others."""
    return {**dict.fromkeys(GROUP_OPTIONS), "strategy": "group_flakes", "hosts": [], "holds": [], **group}


def _group(options: Mapping[str, Any]) -> UpdateGroup:
    return update_group(
        options["name"],
        options["repo"],
        strategy=options["strategy"],
        branch=options["branch"],
        flake=options["flake"],
        lock=options["lock"],
        inputs=options["inputs"],
        holds=parse_holds(options["name"], options.get("holds")),
        members=[Member(host["name"], host["attribute"] or host["name"]) for host in options["hosts"]],
    )
