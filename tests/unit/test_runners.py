# SPDX-License-Identifier: GPL-3.0-or-later
"""The runners, with real processes and a stand-in for Ansible's connection."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import CommandTimeout, ConnectionLost
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import ConnectionRunner, LocalRunner


def test_a_result_holds_what_the_command_left() -> None:
    result = LocalRunner().run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.status, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert result.command == "sh -c 'echo out; echo err >&2; exit 3'"
    assert 0 < result.seconds < 10


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [(["no-such-program"], 127, "no-such-program: not found"), (["/etc/passwd"], 126, "/etc/passwd: cannot be run")],
)
def test_a_program_that_cannot_be_started_is_a_result_as_from_a_shell(argv: list[str], status: int, said: str) -> None:
    result = LocalRunner().run(argv)
    assert (result.status, result.stderr) == (status, said)


def test_stdin_is_what_is_given_and_else_empty() -> None:
    runner = LocalRunner()
    assert runner.run(["cat"]).stdout == ""
    assert runner.run(["cat"], stdin="ä\n").stdout == "ä\n"
    much = "x" * 3_000_000
    assert runner.run(["cat"], stdin=much).stdout == much


def test_a_command_need_not_read_its_stdin() -> None:
    assert LocalRunner().run(["true"], stdin="x" * 3_000_000).status == 0


def test_bytes_that_are_no_text_come_back_as_they_were() -> None:
    result = LocalRunner().run(["printf", r"\377\376"])
    assert result.stdout.encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert LocalRunner().run(["od", "-An", "-tx1"], stdin=result.stdout).stdout.split() == ["ff", "fe"]


def test_environment_is_added_to_ours_without_gits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -i key")
    monkeypatch.setenv("KEPT", "yes")
    lines = LocalRunner().run(["env"], env={"NIX_SSHOPTS": "-p 1"}).stdout.splitlines()
    assert {"KEPT=yes", "GIT_SSH_COMMAND=ssh -i key", "NIX_SSHOPTS=-p 1"} <= set(lines)
    assert not [line for line in lines if line.startswith("GIT_DIR=")]


def test_it_runs_in_the_folder_named(tmp_path: Path) -> None:
    assert LocalRunner().run(["pwd", "-P"], cwd=str(tmp_path)).stdout.strip() == str(tmp_path.resolve())


def test_lines_of_stderr_come_while_it_runs() -> None:
    seen: list[tuple[float, str]] = []
    started = time.monotonic()
    result = LocalRunner().run(
        ["sh", "-c", "echo one >&2; sleep 0.6; echo two >&2; printf rest >&2"],
        on_line=lambda line: seen.append((time.monotonic() - started, line)),
    )
    assert [line for _, line in seen] == ["one", "two"]
    assert seen[0][0] < 0.5 < seen[1][0]
    assert result.stderr == "one\ntwo\nrest"


def gone(pid: int) -> bool:
    """True once the process has ended; one that was killed takes a moment."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_the_time_limit_ends_the_command_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; sleep 60"
    with pytest.raises(CommandTimeout, match=r"^here: `sh -c .*` was still running after 1 s and was ended\.$"):
        LocalRunner("here").run(["sh", "-c", script], timeout=0.7)
    assert gone(int((tmp_path / "child").read_text()))


def test_one_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.flotilla.nixos.plugins.plugin_utils.runners._GRACE", 0.3)
    started = time.monotonic()
    with pytest.raises(CommandTimeout):
        LocalRunner().run(
            [sys.executable, "-c", "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"], timeout=0.5
        )
    assert time.monotonic() - started < 5


def test_a_child_that_keeps_the_pipes_open_is_not_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()
    result = LocalRunner().run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; echo done"], timeout=30)
    assert (result.status, result.stdout) == (0, "done\n")
    assert time.monotonic() - started < 10
    assert gone(int((tmp_path / "child").read_text())), "it outlived the call"


def test_a_command_dies_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner;"
        f" LocalRunner().run(['sh', '-c', 'echo $$ > {tmp_path}/pid; exec sleep 60'])"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.kill()
    worker.wait(10)
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_on_tick_raises_ends_the_command(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def tick() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        LocalRunner().run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], timeout=30, on_tick=tick)
    assert gone(int((tmp_path / "pid").read_text()))


def test_only_the_end_of_a_watched_commands_stderr_is_kept() -> None:
    count = 0

    def line(_text: str) -> None:
        nonlocal count
        count += 1

    result = LocalRunner().run(["sh", "-c", "seq 200000 >&2"], timeout=30, on_line=line, on_tick=lambda: None)
    assert count == 200000
    assert len(result.stderr) <= 65536
    assert result.stderr.endswith("200000\n")


# -- over a connection ----------------------------------------------------------------------------------------------------


class FakeAction:
    """What ConnectionRunner uses of an action: runs the command here, or fails as a connection does."""

    def __init__(self, error: str = "", transport: str = "ssh") -> None:
        self.error = error
        self.commands: list[tuple[str, bool, bytes]] = []
        options = {"host": "192.0.2.7", "port": 2222, "remote_user": "deploy"}
        self._connection = SimpleNamespace(transport=transport, get_option=options.get)

    def _low_level_execute_command(self, command: str, *, sudoable: bool, in_data: bytes) -> dict[str, Any]:
        self.commands.append((command, sudoable, in_data))
        if self.error:
            raise AnsibleConnectionFailure(self.error)
        result = LocalRunner().run(["sh", "-c", command], stdin=in_data.decode("utf-8", "surrogateescape"), timeout=30)
        return {"rc": result.status, "stdout": result.stdout, "stderr": result.stderr}


def test_a_remote_command_is_one_quoted_line_under_timeout() -> None:
    action = FakeAction()
    result = ConnectionRunner(action, "web1").run(  # type: ignore[arg-type]
        ["printf", "%s", "a b'c;$HOME"], env={"X": "1 2"}, cwd=os.sep, timeout=9
    )
    assert result.stdout == "a b'c;$HOME"
    assert result.argv == ("printf", "%s", "a b'c;$HOME")
    (sent,) = action.commands
    assert sent == ("cd / && timeout -k 3 9 env 'X=1 2' printf %s 'a b'\"'\"'c;$HOME'", True, b"\n")


def test_become_can_be_left_out_and_stdin_given() -> None:
    action = FakeAction()
    result = ConnectionRunner(action, "web1", become=False).run(["cat"], stdin="text")  # type: ignore[arg-type]
    assert result.stdout == "text"
    assert action.commands[0][1:] == (False, b"text")


def test_a_remote_time_limit_is_told_from_a_status_of_124() -> None:
    runner = ConnectionRunner(FakeAction(), "web1")  # type: ignore[arg-type]
    assert runner.run(["sh", "-c", "exit 124"], timeout=30).status == 124
    with pytest.raises(CommandTimeout, match=r"^web1: `sleep 30` was still running after 1 s"):
        runner.run(["sleep", "30"], timeout=1)


@pytest.mark.parametrize(
    ("transport", "error", "message"),
    [
        (
            "ssh",
            "Failed to connect to the host via ssh: ssh: connect to host 192.0.2.7 port 2222: Connection refused",
            "web1: the connection failed: nothing listens on its ssh port (ssh: connect to host 192.0.2.7 port 2222: "
            "Connection refused). Check that sshd runs there, and ansible_port.",
        ),
        ("ssh", "what is this", "web1: the connection failed: what is this."),
        ("local", "Connection refused", "web1: the connection failed: Connection refused."),
    ],
)
def test_a_lost_connection_says_what_to_do(transport: str, error: str, message: str) -> None:
    runner = ConnectionRunner(FakeAction(error, transport), "web1")  # type: ignore[arg-type]
    with pytest.raises(ConnectionLost) as caught:
        runner.run(["true"])
    assert str(caught.value) == message
