# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: checks a role's variables for many hosts at once.

Ansible's own check of a role's arguments is a task, which costs a process for each host.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ..module_utils.errors import BadInput
from .values import plain

_COLLECTION = Path(__file__).parents[2]
_ROLES = _COLLECTION / "roles"
#: What the inventory plugin gives for users to group by, and no role reads.
_GIVEN = {"flotilla_platform", "flotilla_lock_age", "flotilla_host_name", "flotilla_fqdn", "flotilla_tags"}
_NAME = re.compile(r"\bflotilla_\w+")


def role_options(role: str, entry_point: str) -> dict[str, dict[str, Any]]:
    """The options of a role's entry point, as its argument_specs.yml has them."""
    specs = yaml.safe_load((_ROLES / role / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    options: dict[str, dict[str, Any]] = specs["argument_specs"][entry_point]["options"]
    return options


def check_role_options(
    role: str, entry_point: str, hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Each host's values with their defaults; BadInput, naming host and variable, for a value that the role cannot use."""
    values = {}
    options = role_options(role, entry_point)
    validator = ArgumentSpecValidator(options)
    for host in hosts:
        variables = hostvars[host]
        given = {name: plain(variables[name]) for name in options if variables.get(name) is not None}
        result = validator.validate(given)
        if result.error_messages:
            raise BadInput(host, "; ".join(result.error_messages), "Correct the variable.")
        values[host] = result.validated_parameters
    return values


#: Variables of tasks that run once for all hosts: they have one value in a run.
ONE_FOR_ALL = tuple(
    f"flotilla_{name}"
    for name in (
        *(
            "all",
            "offline",
            "update",
            "update_inputs",
            "pin",
            "land",
            "push",
            "record",
            "target",
            "allow_downgrade",
            "allow_dirty",
            "builder",
            "build_timeout",
        ),
        *("allow_shared_inputs", "force_reason"),
        *("goal", "rollback_confirmed", "status_file", "wait", "take_over", "result_file"),
    )
)
#: Variables that pace a group.
ONE_FOR_A_GROUP = ("flotilla_serial", "flotilla_max_fail_percentage", "flotilla_soak")


def require_one_value(values: Mapping[str, Mapping[str, Any]], groups: Mapping[str, str]) -> None:
    """BadInput if hosts differ in what can have but one value. groups: each host's update group."""
    first: dict[tuple[str, str], str] = {}
    for host, options in values.items():
        for name in (*ONE_FOR_ALL, *ONE_FOR_A_GROUP):
            other = first.setdefault((name, groups[host] if name in ONE_FOR_A_GROUP else ""), host)
            if values[other].get(name) == options.get(name):
                continue
            if groups[host] == groups[other]:
                hint = "Set it for the group, or for the run with -e."
                raise BadInput(groups[host], f"{other} and {host} differ in {name}", hint)
            what = f"{groups[other]} and {groups[host]} differ in {name}, which has one value in a run"
            raise BadInput("rollout", what, "Run them one at a time with -l, or set it for all with -e.")


def known_variables() -> dict[str, bool]:
    """Every variable of the collection, and whether it is for users to set. Roles and playbooks have some for themselves."""
    specs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in _ROLES.glob("*/meta/argument_specs.yml")]
    entries = [entry for spec in specs for entry in spec["argument_specs"].values()]
    files = (*_ROLES.glob("*/tasks/**/*.yml"), *(_COLLECTION / "playbooks").glob("*.yml"))
    own = {name for path in files for name in _NAME.findall(path.read_text(encoding="utf-8"))}
    return dict.fromkeys(own | _GIVEN, False) | {name: True for entry in entries for name in entry.get("options") or {}}


def unknown_variables(names: Iterable[str], known: Mapping[str, bool]) -> list[str]:
    """A sentence for each of these names that looks like a variable of the collection and is none."""
    unknown = sorted({str(name) for name in names if str(name).startswith("flotilla_")} - set(known))
    return [f"{name} is no variable of flotilla.nixos{_nearest(name, known)}" for name in unknown]


def _nearest(name: str, known: Mapping[str, bool]) -> str:
    prefix = "flotilla_"
    settable = [option.removeprefix(prefix) for option, is_option in known.items() if is_option]
    near = difflib.get_close_matches(name.removeprefix(prefix), settable, n=1, cutoff=0.6)
    return f"; the nearest is {prefix}{near[0]}" if near else ""
