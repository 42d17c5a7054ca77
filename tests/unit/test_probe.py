# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe, and the sentences for what ssh says, from recordings of OpenSSH 9.2 and 10.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import CommandTimeout
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult
from ansible_collections.flotilla.nixos.plugins.plugin_utils.probe import probe
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_messages import SshProblem, failure_of, ssh_failure
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_options import SshTarget

SYSTEM = f"/nix/store/{'a' * 32}-nixos-system-web1-25.05"
TARGET = SshTarget(name="web1", address="192.0.2.1", user="deploy", port=2222)


class Answering:
    """A runner that gives one answer, and keeps what it was asked."""

    name = "localhost"

    def __init__(self, status: int = 0, stdout: str = "", stderr: str = "") -> None:
        self.answer = (status, stdout, stderr)
        self.argv: Sequence[str] = ()

    def run(self, argv: Sequence[str], *, timeout: float, **_kwargs: Any) -> RunResult:
        self.argv = argv
        if self.answer[0] < 0:
            raise CommandTimeout(self.name, f"still running after {timeout}")
        return RunResult(tuple(argv), *self.answer, 0.25)


def test_it_logs_in_anew_and_reads_what_runs() -> None:
    runner = Answering(stdout=f"Welcome to web1!\nflotilla-running={SYSTEM}\n")
    result = probe(TARGET, SYSTEM, 10, runner)
    assert (result.reachable, result.running, result.problem, result.message) == (True, SYSTEM, None, None)
    assert result.good
    command = 'echo "flotilla-running=$(readlink -f /run/current-system)"'
    assert runner.argv == TARGET.ssh_argv(command, fresh=True)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("flotilla-running=/nix/store/old\n", f"web1: it runs /nix/store/old, not {SYSTEM}."),
        ("flotilla-running=\n", f"web1: it runs no system, not {SYSTEM}."),
    ],
)
def test_another_system_than_expected_is_reached_but_not_good(said: str, message: str) -> None:
    result = probe(TARGET, SYSTEM, 10, Answering(stdout=said))
    assert (result.reachable, result.good, result.message) == (True, False, message)
    assert probe(TARGET, None, 10, Answering(stdout=said)).good


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Host key for [192.0.2.1]:2222 has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("status", "stderr", "problem", "beginning"),
    [
        (255, CHANGED, SshProblem.HOST_KEY_CHANGED, "web1: its host key is not the one in known_hosts. If the host was"),
        (
            255,
            "No ED25519 host key is known for web1 and you have requested strict checking.\r\nHost key verification failed.\r\n",
            SshProblem.HOST_KEY_UNKNOWN,
            "web1: its host key is not in known_hosts. Check its fingerprint on the host, then add it",
        ),
        (
            255,
            "deploy@192.0.2.1: Permission denied (publickey).\r\n",
            SshProblem.DENIED,
            "web1: it let nobody in as deploy (deploy@192.0.2.1: Permission denied (publickey)). Check ansible_user,",
        ),
        (
            255,
            "ssh: connect to host 192.0.2.1 port 2222: Connection refused\r\n",
            SshProblem.REFUSED,
            "web1: nothing listens on its ssh port (ssh: connect to host 192.0.2.1 port 2222: Connection refused). Check",
        ),
        (255, "ssh: connect to host 192.0.2.1 port 2222: Connection timed out", SshProblem.TIMEOUT, "web1: it did not answer in"),
        (255, "ssh: connect to host 192.0.2.1 port 22: No route to host", SshProblem.NO_ROUTE, "web1: there is no way to it"),
        (255, "ssh: Could not resolve hostname web1: Name or service not known", SshProblem.NO_NAME, "web1: its address does"),
        (255, "kex_exchange_identification: Connection closed by remote host", SshProblem.CLOSED, "web1: the connection was"),
        (255, "client_loop: send disconnect: Broken pipe", SshProblem.CLOSED, "web1: the connection was"),
        (255, "no such identity; something new", SshProblem.OTHER, "web1: ssh failed: no such identity; something new."),
        (1, "This account is currently not available.", SshProblem.SHELL, "web1: log-in works, but its shell does not run"),
        (127, "", SshProblem.SHELL, "web1: log-in works, but its shell does not run commands: exit status 127. Check the login"),
    ],
)  # fmt: skip
def test_each_failure_has_its_sentence(status: int, stderr: str, problem: SshProblem, beginning: str) -> None:
    result = probe(TARGET, SYSTEM, 10, Answering(status, "", stderr))
    assert (result.reachable, result.good, result.problem) == (False, False, problem)
    assert result.message is not None
    assert result.message.startswith(beginning)


def test_silence_is_a_timeout() -> None:
    result = probe(TARGET, SYSTEM, 10, Answering(-1))
    assert result.problem is SshProblem.TIMEOUT
    assert result.message == "web1: a new ssh connection was not through after 10 s. Check the link and the host's load."


@pytest.mark.parametrize(("port", "name"), [(None, "192.0.2.1"), (22, "192.0.2.1"), (2222, "[192.0.2.1]:2222")])
def test_the_fix_for_a_changed_key_names_it_as_known_hosts_does(port: int | None, name: str) -> None:
    failure = failure_of(SshProblem.HOST_KEY_CHANGED, "192.0.2.1", None, port)
    assert f"`ssh-keygen -R '{name}'`" in failure.hint


def test_what_ansible_puts_before_it_is_left_out() -> None:
    failure = ssh_failure(
        "Failed to connect to the host via ssh: ssh: connect to host x port 22: Connection refused", "x", None, 22
    )
    assert failure is not None
    assert failure.what == "nothing listens on its ssh port (ssh: connect to host x port 22: Connection refused)"
    assert ssh_failure("", "x", None, 22) is None
