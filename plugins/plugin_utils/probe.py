# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: can a person still log in there, and what runs? Asked over a connection of its own."""

from __future__ import annotations

from dataclasses import dataclass

from ..module_utils.errors import CommandTimeout
from ..module_utils.runner import Runner, RunResult
from .ssh_messages import SshProblem, ssh_failure
from .ssh_options import SshTarget

_MARK = "flotilla-running="
_COMMAND = f'echo "{_MARK}$(readlink -f /run/current-system)"'


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
    if (known := ssh_failure(result.stderr, target.address, target.user, target.port)) is not None:
        return known.problem, f"{target.name}: {known.what}. {known.hint}"
    tail = _last_line(result.stderr) or _last_line(result.stdout) or f"exit status {result.status}"
    if result.status == 255:
        return SshProblem.OTHER, f"{target.name}: ssh failed: {tail}."
    hint = "Check the login shell and its start-up files there."
    return SshProblem.SHELL, f"{target.name}: log-in works, but its shell does not run commands: {tail}. {hint}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "").rstrip(".")
