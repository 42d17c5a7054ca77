# SPDX-License-Identifier: GPL-3.0-or-later
"""known_hosts as ssh reads it, and what a sweep makes of keys and silence."""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult
from ansible_collections.flotilla.nixos.plugins.plugin_utils.known_hosts import KnownHosts
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_messages import SshProblem
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_options import SshTarget
from ansible_collections.flotilla.nixos.plugins.plugin_utils.sweep import (
    Presence,
    SshSilence,
    SweepTarget,
    sweep,
    sweep_targets,
)

ONE, TWO = ("ssh-ed25519", b"one"), ("ssh-ed25519", b"two")
RSA = ("ssh-rsa", b"rsa")


def line(hosts: str, key: tuple[str, bytes], marker: str = "") -> str:
    return f"{marker} {hosts} {key[0]} {base64.b64encode(key[1]).decode()} a comment\n".lstrip()


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


@pytest.mark.parametrize(
    ("hosts", "hits", "misses"),
    [
        ("web1", ["web1", "WEB1"], ["web10", "[web1]:2222"]),
        ("web1,192.0.2.1", ["web1", "192.0.2.1"], ["192.0.2.10"]),
        ("[web1]:2222", ["[web1]:2222"], ["web1"]),
        ("*.lan,!bad.lan", ["a.lan"], ["bad.lan", "lan"]),
        ("[web?]:2222", ["[web1]:2222"], ["[web11]:2222", "web1"]),
        (hashed("web1"), ["web1"], ["web2"]),
        (hashed("[web1]:2222"), ["[web1]:2222"], ["web1"]),
    ],
)
def test_known_hosts_names(hosts: str, hits: list[str], misses: list[str]) -> None:
    known = KnownHosts()
    known.add(line(hosts, ONE))
    assert [known.of(name).keys for name in hits] == [frozenset({ONE})] * len(hits)
    assert [known.of(name).keys for name in misses] == [frozenset()] * len(misses)


def test_known_hosts_markers_and_nonsense(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(
        "# comment\n\nweb1 ssh-ed25519\nweb1 ssh-ed25519 %%%\n|1|x web1\n"
        + line("web1", RSA)
        + line("web1", ONE, "@revoked")
        + line("*.lan", TWO, "@cert-authority")
    )
    known = KnownHosts.read([str(tmp_path / "none"), str(file)])
    assert (known.of("web1").keys, known.of("web1").revoked) == ({RSA}, {ONE})
    assert known.of("a.lan").authority
    assert not known.of("web1").authority


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "known").write_text(
        line("web1", ONE)
        + line("web1", RSA)
        + line("[web1]:2222", TWO)
        + line("gone", TWO, "@revoked")
        + line("*.ca", TWO, "@cert-authority")
    )
    return (str(tmp_path / "known"),)


@pytest.mark.parametrize(
    ("target", "key", "presence"),
    [
        ({"address": "web1"}, ONE, Presence.HERE),
        ({"address": "web1"}, RSA, Presence.HERE),
        ({"address": "web1"}, TWO, Presence.KEY_CHANGED),
        ({"address": "web1", "strict": False}, TWO, Presence.KEY_CHANGED),
        ({"address": "web1", "strict": False, "careless": True}, TWO, Presence.HERE),
        ({"address": "web1"}, ("ecdsa-sha2-nistp256", b"x"), Presence.KEY_UNKNOWN),
        ({"address": "web1", "port": 2222}, TWO, Presence.HERE),
        ({"address": "web1", "port": 2222, "known_as": "web1"}, ONE, Presence.HERE),
        ({"address": "web2"}, ONE, Presence.KEY_UNKNOWN),
        ({"address": "web2", "strict": False}, ONE, Presence.HERE),
        ({"address": "gone", "strict": False}, TWO, Presence.KEY_CHANGED),
        ({"address": "a.ca"}, ONE, Presence.HERE),
        ({"address": "web1", "proxied": True}, TWO, Presence.UNKNOWN),
    ],
)
def test_what_ssh_will_think_of_the_key(
    files: tuple[str, ...], target: dict[str, Any], key: tuple[str, bytes], presence: Presence
) -> None:
    host = SweepTarget(name="h", known_hosts=files, **target)
    result = sweep([host], get_key=lambda *_: key)["h"]
    assert result.presence is presence
    assert (result.message is None) == (presence in (Presence.HERE, Presence.UNKNOWN))


def test_a_changed_key_is_a_sentence_with_the_fix(files: tuple[str, ...]) -> None:
    result = sweep([SweepTarget("pi-1", "web1", 2222, known_hosts=files)], get_key=lambda *_: ONE)["pi-1"]
    assert result.message is not None
    assert result.message.startswith(
        f"pi-1: its host key is not the one in known_hosts (it gives {result.fingerprint}). If the host"
    )
    assert "ssh-keygen -R '[web1]:2222'" in result.message


@pytest.mark.parametrize(
    ("error", "problem", "beginning"),
    [
        (ConnectionRefusedError(), SshProblem.REFUSED, "h: nothing listens on its ssh port. Check that sshd runs"),
        (TimeoutError(), SshProblem.TIMEOUT, "h: it did not answer in time. Check"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), SshProblem.NO_ROUTE, "h: there is no way to it"),
        (socket.gaierror(-2, "Name or service not known"), SshProblem.NO_NAME, "h: its address does not resolve"),
        (SshSilence("Error reading SSH protocol banner"), SshProblem.CLOSED, "h: the connection was closed (Error reading"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), SshProblem.CLOSED, "h: the connection was closed"),
    ],
)
def test_who_is_not_there_and_why(error: Exception, problem: SshProblem, beginning: str) -> None:
    def fail(*_args: Any) -> tuple[str, bytes]:
        raise error

    result = sweep([SweepTarget("h", "192.0.2.1")], get_key=fail)["h"]
    assert (result.presence, result.problem) == (Presence.ABSENT, problem)
    assert result.surely_away is (problem in (SshProblem.REFUSED, SshProblem.TIMEOUT, SshProblem.NO_ROUTE))
    assert result.message is not None
    assert result.message.startswith(beginning)


def test_the_known_kinds_of_key_are_asked_for(files: tuple[str, ...]) -> None:
    asked: list[Sequence[str]] = []

    def key(_address: str, _port: int, kinds: Sequence[str], _timeout: float) -> tuple[str, bytes]:
        asked.append(kinds)
        return ONE

    sweep([SweepTarget("h", "web1", known_hosts=files)], get_key=key)
    assert asked == [["ssh-ed25519", "ssh-rsa"]]


def test_a_fleet_is_asked_at_once_and_answered_in_its_order() -> None:
    def slow(address: str, *_args: Any) -> tuple[str, bytes]:
        time.sleep(0.05 if address == "h0" else 0.01)
        return ONE

    started = time.monotonic()
    results = sweep([SweepTarget(f"h{n}", f"h{n}", strict=False) for n in range(100)], workers=50, get_key=slow)
    assert list(results) == [f"h{n}" for n in range(100)]
    assert time.monotonic() - started < 0.9
    assert sweep([]) == {}


SAID = """user root
hostname 192.0.2.7
port 2222
stricthostkeychecking accept-new
connecttimeout 30
hostkeyalias pi
userknownhostsfile ~/.ssh/known_hosts /x/y
globalknownhostsfile /etc/ssh/ssh_known_hosts
"""


@pytest.mark.parametrize(
    ("more", "proxied"),
    [
        ("", False),
        ("proxyjump none\n", False),
        ("proxyjump bastion\n", True),
        ("proxycommand nc %h\n", True),
        ("bindaddress 192.0.2.1\n", True),
    ],
)
def test_ssh_itself_says_where_it_would_go(more: str, proxied: bool) -> None:
    class Runner:
        name = "localhost"

        def run(self, argv: Sequence[str], **_kwargs: Any) -> RunResult:
            assert argv == ["ssh", "-G", "-o", "Port=2222", "pi-1"]
            return RunResult(tuple(argv), 0, SAID + more, "", 0.0)

    (target,) = sweep_targets([SshTarget("pi-1", "pi-1", args=("-o", "Port=2222"))], Runner())
    files = ("~/.ssh/known_hosts", "/x/y", "/etc/ssh/ssh_known_hosts")
    assert target == SweepTarget("pi-1", "192.0.2.7", 2222, "pi", files, strict=False, proxied=proxied, timeout=30)


def test_a_program_in_sshs_place_that_says_nothing_is_not_second_guessed() -> None:
    class Runner:
        name = "localhost"

        def run(self, argv: Sequence[str], **_kwargs: Any) -> RunResult:
            return RunResult(tuple(argv), 2, "", "unknown option -G", 0.0)

    assert sweep_targets([SshTarget("pi-1", "pi-1", executable="cloud-ssh")], Runner())[0].proxied
