# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the user's health checks, on the target or from the controller."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..module_utils.activation import Clock
from ..module_utils.errors import BadInput, CommandTimeout, ConnectionLost
from ..module_utils.runner import Runner

#: The argument spec of the option `health_checks`.
HEALTH_CHECKS: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "command": {"type": "str"},
        "url": {"type": "str"},
        "status": {"type": "list", "elements": "int", "default": [200]},
        "port": {"type": "int"},
        "host": {"type": "str"},
        "retries": {"type": "int", "default": 5},
        "delay": {"type": "float", "default": 2.0},
        "timeout": {"type": "float", "default": 10.0},
    },
    "mutually_exclusive": [("command", "url", "port")],
    "required_one_of": [("command", "url", "port")],
}


def health(runner: Runner, address: str, checks: Sequence[Mapping[str, Any]], clock: Clock) -> Callable[[float], str | None]:
    """A function that makes the checks one after the other within a number of seconds and says what is wrong, or None."""

    def run(seconds: float) -> str | None:
        until = clock.now() + seconds
        for check in checks:
            if problem := _retried(runner, address, check, until, clock):
                return problem
        return None

    return run


def _retried(runner: Runner, address: str, check: Mapping[str, Any], until: float, clock: Clock) -> str | None:
    problem: str | None = "there was no time left for it before the guard's deadline"
    for attempt in range(int(check["retries"]) + 1):
        left = until - clock.now()
        if left <= 0:
            break
        problem = _once(runner, address, check, min(float(check["timeout"]), left))
        if problem is None:
            return None
        if attempt == int(check["retries"]) or clock.now() + float(check["delay"]) >= until:
            break
        clock.sleep(float(check["delay"]))
    return f"{_title(check, address)}: {problem}"


def _title(check: Mapping[str, Any], address: str) -> str:
    if check.get("command"):
        return f"command `{check['command']}`"
    return f"url {check['url']}" if check.get("url") else f"port {check.get('host') or address}:{check['port']}"


def _once(runner: Runner, address: str, check: Mapping[str, Any], timeout: float) -> str | None:
    if check.get("command"):
        return _command(runner, str(check["command"]), timeout)
    if check.get("url"):
        return _http(str(check["url"]), [int(s) for s in check["status"]], timeout)
    return _port(str(check.get("host") or address), int(check["port"]), timeout)


def _command(runner: Runner, command: str, timeout: float) -> str | None:
    try:
        result = runner.run(["sh", "-c", command], timeout=max(1.0, timeout))
    except CommandTimeout:
        return f"it was still running after {timeout:.0f} s"
    except ConnectionLost as error:
        return error.what
    if result.status == 0:
        return None
    said = (result.stderr.strip() or result.stdout.strip()).splitlines()
    return f"exit status {result.status}" + (f", {said[-1]}" if said else "")


def _http(url: str, wanted: Sequence[int], timeout: float) -> str | None:
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"health check {url!r}", "this is not an http or https URL", "Correct the check's `url`.")
    try:
        with urllib.request.urlopen(urllib.request.Request(url), timeout=timeout) as answer:
            status = int(answer.status)
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None if status in wanted else f"it answered {status}, not {' or '.join(map(str, wanted))}"


def _port(host: str, port: int, timeout: float) -> str | None:
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return None
    except OSError as error:
        return error.strerror or str(error)
