# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a run, for whatever started it; documentation in plugins/modules/rollout_result.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..plugin_utils.action_base import FlotillaAction
from ..plugin_utils.result_file import write_result


class ActionModule(FlotillaAction):
    """Runs once, on the controller."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "file": {"type": "path", "required": True},
        "status": {"type": "str", "choices": ["running", "refused", "ok", "failed"], "required": True},
        "rollout": {"type": "dict"},
        "reason": {"type": "str", "default": ""},
        "groups": {"type": "dict", "default": {}},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """Write the file."""
        more = {name: options[name] for name in ("reason", "groups") if options[name]}
        write_result(options["file"], options["status"], options["rollout"], **more, check_mode=self.check_mode)
        return {}
