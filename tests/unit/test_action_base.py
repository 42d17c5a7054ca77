# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of all our action plugins: options in, honest results out."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed, ConnectionLost
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import FlotillaAction
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import ConnectionRunner, LocalRunner

_FAILED = RunResult(("nix", "copy", "a b"), 1, "", "error: no", 0.1)


class Example(FlotillaAction):
    """Does what it is made with."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "name": {"type": "str", "required": True},
        "count": {"type": "int", "default": 3},
        "path": {"type": "path"},
    }
    SPEC_RULES: ClassVar[dict[str, Any]] = {"mutually_exclusive": [("count", "path")]}

    outcome: Any = None

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Record and obey."""
        self.seen = (dict(options), task_vars)
        self.phase = "work"
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return dict(self.outcome or {})


def example(
    monkeypatch: pytest.MonkeyPatch, outcome: Any = None, *, transport: str = "ssh", delegate_to: str | None = None, **args: Any
) -> Example:
    monkeypatch.setattr(ActionBase, "run", lambda *_args, **_kwargs: {})
    task = SimpleNamespace(
        args=args or {"name": "x"},
        check_mode=True,
        diff=False,
        delegate_to=delegate_to,
        action="example",
        async_val=0,
        no_log=False,
    )
    connection = SimpleNamespace(transport=transport, get_option={"host": "192.0.2.9"}.get)
    action = Example(task, connection, SimpleNamespace(), None, None, None)
    action.outcome = outcome
    return action


def test_a_plain_result_says_that_nothing_changed_or_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    action = example(monkeypatch, {"answer": 42})
    assert action.run(None, {"inventory_hostname": "web1"}) == {"answer": 42, "changed": False, "failed": False}
    assert action.seen == ({"name": "x", "count": 3, "path": None}, {"inventory_hostname": "web1"})
    assert action.check_mode
    assert not action.diff_mode


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (BadInput("web1", "no such thing", "Make one."), {"msg": "web1: no such thing. Make one."}),
        (
            CommandFailed("web1", "copying failed: no", result=_FAILED),
            {"msg": "web1: copying failed: no.", "command": "nix copy 'a b'", "status": 1},
        ),
        (ConnectionLost("web1", "it is gone"), {"msg": "web1: it is gone.", "unreachable": True}),
        (AnsibleConnectionFailure("gone"), {"msg": "web1: the connection failed: gone.", "unreachable": True}),
    ],
    ids=["bad input", "command failed", "connection lost", "Ansible's connection failure"],
)
def test_expected_failures_are_results(monkeypatch: pytest.MonkeyPatch, outcome: Exception, expected: dict[str, Any]) -> None:
    result = example(monkeypatch, outcome).run(None, {"inventory_hostname": "web1"})
    assert result == {"failed": True, "changed": False, "phase": "work", **expected}


def test_what_nobody_expected_stays_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        example(monkeypatch, ZeroDivisionError()).run(None, {})


@pytest.mark.parametrize(
    "args",
    [{}, {"name": "x", "nonsense": 1}, {"name": "x", "count": "many"}, {"name": "x", "count": 1, "path": "/x"}],
    ids=["missing", "unknown", "wrong type", "mutually exclusive"],
)
def test_options_are_checked_before_anything_is_done(monkeypatch: pytest.MonkeyPatch, args: dict[str, Any]) -> None:
    action = example(monkeypatch, **args)
    action._task.args = args
    with pytest.raises(AnsibleError):
        action.run(None, {})
    assert not hasattr(action, "seen")


def test_the_builder_is_the_machine_that_the_task_is_delegated_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(example(monkeypatch, transport="local").builder(), LocalRunner)
    remote = example(monkeypatch, delegate_to="build1").builder()
    assert isinstance(remote, ConnectionRunner)
    assert remote.name == "build1"


def test_the_target_is_the_tasks_own_host(monkeypatch: pytest.MonkeyPatch) -> None:
    target = example(monkeypatch, transport="local").target({"inventory_hostname": "web1"})
    assert isinstance(target, ConnectionRunner)
    assert target.name == "web1"
