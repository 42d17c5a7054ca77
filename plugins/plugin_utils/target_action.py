# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what the target's action plugins share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..module_utils.activation import Clock, Report, SystemClock
from ..module_utils.errors import BadInput
from .action_base import FlotillaAction
from .health import health
from .runners import ConnectionRunner
from .system_target import SystemTarget, default_owner


class TargetAction(FlotillaAction):
    """An action on the task's own host, over its own connection and become."""

    clock: Clock = SystemClock()

    def system_target(self, task_vars: Mapping[str, Any]) -> SystemTarget:
        """The host as something that answers verbs."""
        # With delegate_to the connection is the other host's, and so must be the name.
        name = str(self._task.delegate_to or self.host(task_vars))
        return SystemTarget(ConnectionRunner(self, name), self._connection)

    def owner(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
        """Who acts: the option, or a default that tells people apart."""
        return one_line(str(options.get("owner") or default_owner(task_vars)))

    def health(self, target: SystemTarget, checks: Sequence[Mapping[str, Any]]) -> Callable[[float], str | None] | None:
        """The checks as one function; None where there are none."""
        return health(target.runner, self._address(), checks, self.clock) if checks else None

    def _address(self) -> str:
        try:
            return str(self._connection.get_option("host"))
        except KeyError:
            return "localhost"

    def finished(self, report: Report, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The report as the task's result, with the diff if it is asked for."""
        result = report.result()
        if self.diff_mode:
            result["diff"] = report_diff(report, self.host(task_vars))
        return result


def one_line(text: str) -> str:
    """The text without line breaks and control characters: it becomes one line of a file on the target."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def store_path(option: str, value: str) -> str:
    """The value if it is the path of a thing in the nix store; BadInput otherwise."""
    name = value.removeprefix("/nix/store/")
    if (
        name == value
        or not name
        or "/" in name
        or ".." in name
        or not all((c.isascii() and c.isalnum()) or c in "+-._?=" for c in name)
    ):
        raise BadInput(
            f"{option} {value!r}", "this is not a path in the nix store", "Give a path such as /nix/store/…-nixos-system-…."
        )
    return value


def report_diff(report: Report, host: str) -> dict[str, str]:
    """Before and after, for diff mode: the system, and the units that the change touches."""
    after = [report.system]
    for word, units in sorted((report.units or {}).items()):
        after += [f"{word.replace('_', ' ')}: {unit}" for unit in units]
    after += [f"needs a reboot: {reason}" for reason in (*report.pending, *report.inhibitors)]
    same = not report.changed
    return {
        "before_header": f"{host}: system",
        "after_header": f"{host}: system",
        "before": f"{report.previous}\n",
        "after": f"{report.previous}\n" if same else "\n".join(after) + "\n",
    }
