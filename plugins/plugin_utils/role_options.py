# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: checks a role's variables for many hosts at once.

Ansible's own check of a role's arguments is a task, which costs a process for each host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ..module_utils.errors import BadInput
from .values import plain

_ROLES = Path(__file__).parents[2] / "roles"


def role_options(role: str, entry_point: str) -> dict[str, dict[str, Any]]:
    """The options of a role's entry point, as its argument_specs.yml has them."""
    specs = yaml.safe_load((_ROLES / role / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    options: dict[str, dict[str, Any]] = specs["argument_specs"][entry_point]["options"]
    return options


def check_role_options(role: str, entry_point: str, hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> None:
    """BadInput, naming host and variable, if a host has a value that the role cannot use."""
    options = role_options(role, entry_point)
    validator = ArgumentSpecValidator(options)
    for host in hosts:
        variables = hostvars[host]
        given = {name: plain(variables[name]) for name in options if variables.get(name) is not None}
        messages = validator.validate(given).error_messages
        if messages:
            raise BadInput(host, "; ".join(messages), "Correct the variable.")
