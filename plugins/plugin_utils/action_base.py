# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what all our action plugins share: validated options, honest results, no tracebacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.errors import CommandFailed, ConnectionLost, FlotillaError, NotAdmitted
from ..module_utils.runner import Runner
from .runners import ConnectionRunner, LocalRunner
from .values import plain

_display = Display()


class FlotillaAction(ActionBase):
    """An action plugin as a shell around one core function.

    A subclass names its options in ARGUMENT_SPEC (SPEC_RULES: mutually_exclusive, required_if, … as AnsibleModule takes
    them) and implements `perform`, which returns the result and raises FlotillaError for expected failures.
    """

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {}
    SPEC_RULES: ClassVar[dict[str, Any]] = {}

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    #: What the plugin is doing, for the result of a connection that was lost meanwhile; subclasses move it on.
    phase: str = "start"

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Do the work. `options` are validated, with defaults, and free of Ansible's own types."""
        raise NotImplementedError

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Validate, perform, and turn expected failures into results (see `failure`)."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=self.ARGUMENT_SPEC, **self.SPEC_RULES)
        try:
            result.update(self.perform(plain(options), task_vars or {}))
        except FlotillaError as error:
            result.update(failure(error, self.phase))
        except AnsibleConnectionFailure as error:
            result.update(failure(ConnectionLost(self.host(task_vars), f"the connection failed: {error}"), self.phase))
        result.setdefault("changed", False)
        result.setdefault("failed", False)
        return result

    @property
    def check_mode(self) -> bool:
        """True under --check."""
        return bool(self._task.check_mode)

    @property
    def diff_mode(self) -> bool:
        """True under --diff."""
        return bool(self._task.diff)

    def host(self, task_vars: Mapping[str, Any] | None) -> str:
        """The inventory name of the host that the task is for (not the one that it is delegated to)."""
        return str((task_vars or {}).get("inventory_hostname", "localhost"))

    def builder(self) -> Runner:
        """The runner for work on the builder: the machine that the task is delegated to."""
        if self._connection.transport == "local":
            return LocalRunner()
        return ConnectionRunner(self, str(self._task.delegate_to or self._connection.get_option("host")))

    def target(self, task_vars: Mapping[str, Any]) -> Runner:
        """The runner for the task's own host, over its own connection and become."""
        return ConnectionRunner(self, self.host(task_vars))

    def progress(self, message: str) -> None:
        """Show a line at once, while the task still runs. Forks have no terminal: only Display reaches the user."""
        _display.display(message)


def failure(error: FlotillaError, phase: str) -> dict[str, Any]:
    """The result for an expected failure.

    A lost connection is `failed` with `unreachable: true` and the phase, and not Ansible's own unreachable, which would skip
    `rescue` and drop the host from the play (ansible-core 2.19 to 2.21).
    """
    result: dict[str, Any] = {"failed": True, "msg": str(error), "phase": phase}
    if isinstance(error, ConnectionLost) and not isinstance(error, NotAdmitted):
        result["unreachable"] = True
    if isinstance(error, CommandFailed) and error.result is not None:
        result |= {"command": error.result.command, "status": error.result.status}
    return result
