# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies a system's closure from the builder to the target; see plugins/modules/closure_copy.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.closure import checked_system
from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.transfer import Transfer


class ActionModule(FlotillaAction):
    """Survey, copy, root."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "system": {"type": "str", "required": True},
        "name": {"type": "str", "default": "system"},
        "builder": {"type": "str", "default": "localhost"},
        "via": {"type": "str", "choices": ["controller", "builder"], "default": "controller"},
        "check_signatures": {"type": "bool", "default": False},
        "signing_key": {"type": "str", "no_log": False},
        "substitute": {"type": "bool", "default": False},
        "keep_free": {"type": "int", "default": 32 * 1024 * 1024},
        "timeout": {"type": "int", "default": 3600},
        "stall_timeout": {"type": "int", "default": 60},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Copy what is missing and root it."""
        self.phase = "copy"
        checked_system(self.host(task_vars), options["system"])
        return Transfer(self, options, task_vars).run()
