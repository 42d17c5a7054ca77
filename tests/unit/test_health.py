# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's health checks."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandTimeout, ConnectionLost
from ansible_collections.flotilla.nixos.plugins.plugin_utils.health import health
from fakes import FakeRunner, Step

COMMAND = ["sh", "-c", "systemctl is-active nginx"]


class FakeClock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def check(**values: Any) -> dict[str, Any]:
    return {"status": [200], "retries": 0, "delay": 2.0, "timeout": 5.0, **values}


def made(runner: FakeRunner, *checks: dict[str, Any], seconds: float = 60) -> str | None:
    found = health(runner, "127.0.0.1", checks, FakeClock())(seconds)
    runner.done()
    return found


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (Step(COMMAND), None),
        (Step(COMMAND, status=3, stdout="inactive\n"), "command `systemctl is-active nginx`: exit status 3, inactive"),
        (Step(COMMAND, status=1), "command `systemctl is-active nginx`: exit status 1"),
        (Step(COMMAND, raises=CommandTimeout("pi", "x")), "command `systemctl is-active nginx`: it was still running after 5 s"),
        (Step(COMMAND, raises=ConnectionLost("pi", "gone")), "command `systemctl is-active nginx`: gone"),
    ],
)
def test_a_command_on_the_host(step: Step, problem: str | None) -> None:
    assert made(FakeRunner(step), check(command=COMMAND[2])) == problem


def test_a_check_is_tried_again() -> None:
    bad = Step(COMMAND, status=3)
    assert made(FakeRunner(bad, bad, Step(COMMAND)), check(command=COMMAND[2], retries=2)) is None


def test_no_try_begins_after_the_time_is_over() -> None:
    bad = Step(COMMAND, status=3)
    problem = made(FakeRunner(bad, bad), check(command=COMMAND[2], retries=50), seconds=3)
    assert problem == "command `systemctl is-active nginx`: exit status 3"
    assert "no time left" in str(made(FakeRunner(), check(command=COMMAND[2]), seconds=0))


@pytest.fixture
def server() -> Iterator[int]:
    """An HTTP server on loopback that says 503 to everything."""

    class Unwell(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            return None

    with http.server.HTTPServer(("127.0.0.1", 0), Unwell) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found.server_port
        found.shutdown()
        thread.join()


def test_a_url(server: int) -> None:
    url = f"http://127.0.0.1:{server}/health"
    assert made(FakeRunner(), check(url=url)) == f"url {url}: it answered 503, not 200"
    assert made(FakeRunner(), check(url=url, status=[200, 503])) is None


def test_only_http_is_asked() -> None:
    with pytest.raises(BadInput, match="not an http or https URL"):
        made(FakeRunner(), check(url="file:///etc/passwd"))


def test_a_port(server: int) -> None:
    assert made(FakeRunner(), check(port=server)) is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    assert made(FakeRunner(), check(port=closed)) == f"port 127.0.0.1:{closed}: Connection refused"
