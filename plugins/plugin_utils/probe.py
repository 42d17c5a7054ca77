# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: can a person still log in there, and what runs? Asked over a connection of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ..module_utils.errors import CommandTimeout
from ..module_utils.runner import Runner, RunResult
from .ssh_options import SshTarget

_MARK = "flotilla-running="
_COMMAND = f'echo "{_MARK}$(readlink -f /run/current-system)"'


class SshProblem(StrEnum):
    """Why an ssh connection did not come about."""

    HOST_KEY_CHANGED = "host_key_changed"
    HOST_KEY_UNKNOWN = "host_key_unknown"
    DENIED = "denied"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    NO_ROUTE = "no_route"
    NO_NAME = "no_name"
    CLOSED = "closed"
    SHELL = "shell"
    OTHER = "other"


_KEY_PROBLEMS = (SshProblem.HOST_KEY_CHANGED, SshProblem.HOST_KEY_UNKNOWN)

#: What OpenSSH's client (9.2 to 10.2; it speaks English in every locale) says, the most telling first: what, and the hint.
_SAYINGS: tuple[tuple[str, SshProblem, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
        SshProblem.HOST_KEY_CHANGED,
        "its host key is not the one in known_hosts",
        "If the host was installed anew, check the new key's fingerprint there and forget the old one with "
        "`ssh-keygen -R '{known_as}'`; if not, somebody may be answering in its place.",
    ),
    (
        r"Host key verification failed|host key is known for|authenticity of host",
        SshProblem.HOST_KEY_UNKNOWN,
        "its host key is not in known_hosts",
        "Check its fingerprint on the host, then add it, for example with `ssh-keyscan {scan}`.",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication methods",
        SshProblem.DENIED,
        "it let nobody in as {user}",
        "Check ansible_user, its authorized_keys and login shell there, and the key (ansible_ssh_private_key_file).",
    ),
    (
        r"Connection refused",
        SshProblem.REFUSED,
        "nothing listens on its ssh port",
        "Check that sshd runs there, and ansible_port.",
    ),
    (
        r"timed out|Operation timed out",
        SshProblem.TIMEOUT,
        "it did not answer in time",
        "Check that it is on and reachable; ansible_ssh_timeout allows it longer.",
    ),
    (
        r"No route to host|Network is unreachable|Host is down",
        SshProblem.NO_ROUTE,
        "there is no way to it",
        "Check that it is on, and the network between.",
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        SshProblem.NO_NAME,
        "its address does not resolve",
        "Check ansible_host.",
    ),
    (
        r"Connection (closed|reset)|closed by remote host|Broken pipe|kex_exchange_identification|"
        r"Connection to \S+ closed|connection unexpectedly closed|not responding|client_loop|banner exchange",
        SshProblem.CLOSED,
        "the connection was closed",
        "Check the link, and sshd's log there.",
    ),
)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found. running: the system there ("" where there is none). problem: None if reached.

    message: None, or a whole sentence with the fix; also where the host was reached but runs another system than expected.
    """

    reachable: bool
    running: str | None
    problem: SshProblem | None
    message: str | None
    seconds: float

    @property
    def good(self) -> bool:
        """Reached, and it runs what was expected."""
        return self.message is None


def probe(target: SshTarget, expected_system: str | None, timeout: float, runner: Runner) -> ProbeResult:
    """Log in anew, as a person would (new TCP, ProxyJump, host key, key), and see which system runs.

    expected_system: a store path, or None for any. timeout: seconds for all of it. runner: the controller's.
    """
    try:
        result = runner.run(target.ssh_argv(_COMMAND, fresh=True), timeout=timeout)
    except CommandTimeout:
        message = (
            f"{target.name}: a new ssh connection was not through after {timeout:.0f} s. Check the link and the host's load."
        )
        return ProbeResult(False, None, SshProblem.TIMEOUT, message, timeout)
    running = next((li.removeprefix(_MARK) for li in result.stdout.splitlines() if li.startswith(_MARK)), None)
    if running is None:
        problem, message = explain(target, result)
        return ProbeResult(False, None, problem, message, result.seconds)
    wrong = expected_system is not None and running != expected_system
    mismatch = f"{target.name}: it runs {running or 'no system'}, not {expected_system}." if wrong else None
    return ProbeResult(True, running, None, mismatch, result.seconds)


def explain(target: SshTarget, result: RunResult) -> tuple[SshProblem, str]:
    """Why ssh failed, as a problem and a sentence with the fix."""
    if (known := ssh_problem(target, result.stderr)) is not None:
        problem, what, hint = known
        return problem, f"{target.name}: {what}. {hint}"
    tail = _last_line(result.stderr) or _last_line(result.stdout) or f"exit status {result.status}"
    if result.status == 255:
        return SshProblem.OTHER, f"{target.name}: ssh failed: {tail}."
    hint = "Check the login shell and its start-up files there."
    return SshProblem.SHELL, f"{target.name}: log-in works, but its shell does not run commands: {tail}. {hint}"


def ssh_problem(target: SshTarget, stderr: str) -> tuple[SshProblem, str, str] | None:
    """The problem that ssh's messages name, with what and hint for a FlotillaError; None if they name none."""
    for pattern, problem, what, hint in _SAYINGS:
        if said := re.search(rf".*(?:{pattern}).*", stderr, re.IGNORECASE):
            words = {
                "user": target.user or "the user that ssh chose",
                "known_as": f"[{target.address}]:{target.port}" if target.port not in (None, 22) else target.address,
                "scan": f"-p {target.port} {target.address}" if target.port not in (None, 22) else target.address,
            }
            # Its own words name the machine: with a ProxyJump it may not be the target.
            quote = "" if problem in _KEY_PROBLEMS else f" ({said.group().strip().rstrip('.')})"
            return problem, what.format(**words) + quote, hint.format(**words)
    return None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "").rstrip(".")
