# SPDX-License-Identifier: GPL-3.0-or-later
"""How the target's script is sent, and how it refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult
from ansible_collections.flotilla.nixos.plugins.module_utils.target_state import Refused, parse_facts
from ansible_collections.flotilla.nixos.plugins.plugin_utils.system_target import _SCRIPT, SystemTarget, default_owner
from ansible_collections.flotilla.nixos.plugins.plugin_utils.target_action import one_line, store_path

LOCAL = SimpleNamespace(transport="local")


class Sent:
    """A runner that keeps what it was given."""

    name = "pi"

    def __init__(self, stdout: str = "", status: int = 0, stderr: str = "") -> None:
        self.answer = (status, stdout, stderr)
        self.argv: Sequence[str] = ()
        self.stdin = ""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,  # noqa: ARG002 - the interface
        cwd: str | None = None,  # noqa: ARG002
        on_line: Callable[[str], None] | None = None,  # noqa: ARG002
    ) -> RunResult:
        assert timeout > 0
        self.argv, self.stdin = argv, stdin or ""
        status, stdout, stderr = self.answer
        return RunResult(tuple(argv), status, stdout, stderr, 0.1)


def test_values_are_arguments_and_the_script_is_stdin() -> None:
    runner = Sent("hello\nflotilla running /x\n")
    facts = SystemTarget(runner, LOCAL).verb("info", "/nix/store/x; rm -rf /")  # type: ignore[arg-type]  # a stand-in
    assert facts.one("running") == "/x"
    assert list(runner.argv) == ["sh", "-s", "--", "info", "/nix/store/x; rm -rf /"]
    assert runner.stdin == _SCRIPT.read_text()


def test_verbs_that_stay_carry_the_script_as_a_text_too() -> None:
    runner = Sent()
    SystemTarget(runner, LOCAL).verb("activate", "x")  # type: ignore[arg-type]  # a stand-in
    carried = runner.stdin.removesuffix(_SCRIPT.read_text())
    done = subprocess.run(["sh"], input=carried + "flotilla_text", capture_output=True, text=True, check=True)
    assert done.stdout == _SCRIPT.read_text()


def test_a_refusal_is_an_error_with_a_kind() -> None:
    target = SystemTarget(Sent("flotilla error not_nixos\nflotilla error_detail \n", 3), LOCAL)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="it does not run NixOS") as caught:
        target.verb("info")
    assert caught.value.kind == "not_nixos"


def test_anything_else_is_a_failed_command() -> None:
    target = SystemTarget(Sent("", 2, "sh: 1: Syntax error"), LOCAL)  # type: ignore[arg-type]  # a stand-in
    with pytest.raises(CommandFailed, match="Syntax error"):
        target.verb("info")


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("words", [[], ["nonsense"], ["--help"], ["_guard; true"]])
def test_the_script_refuses_what_it_does_not_know(shell: str, words: list[str]) -> None:
    argv = [shell, *(["--posix"] if shell == "bash" else []), "-s", "--", *words]
    done = subprocess.run(argv, input=_SCRIPT.read_text(), capture_output=True, text=True, check=False)
    assert (done.returncode, parse_facts(done.stdout).one("error"), done.stderr) == (3, "bad_argument", "")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "/nix/store/",
        "/nix/store/a/b",
        "/nix/store/../x",
        "/etc",
        "--help",
        "/nix/store/a b",
        "/nix/store/a;b",
        "/nix/store/a\n",
    ],
)
def test_only_store_paths_are_systems(value: str) -> None:
    with pytest.raises(BadInput):
        store_path("system", value)


def test_a_store_path() -> None:
    path = "/nix/store/h4bcz1xlm6vqs5kq8jpfrh0lmjcnv5lc-nixos-system-pi_1-25.05+x?=y"
    assert store_path("system", path) == path


def test_owners() -> None:
    assert default_owner({"awx_job_id": 7, "awx_user_name": "anna"}) == "anna@awx job 7"
    assert "@" in default_owner({})
    assert one_line("anna\nflotilla error x\x1b[0m") == "anna flotilla error x [0m"
