# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: builds systems, all in one nix, and says of each that could not be built what was to blame."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from . import nix
from .build_events import BuildLog, name_of
from .errors import CommandTimeout, FlotillaError
from .nix_messages import explained
from .runner import Runner, RunResult

#: Seconds between progress lines at first and at most, and until a build that goes on is named again.
_INTERVAL = 2.0
_MOST = 20.0
_STILL = 60.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a system could not be built. culprit: the derivation that failed, "" if nix names none; log: its last lines."""

    what: str
    hint: str
    culprit: str = ""
    log: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """fresh: the systems' paths that were not in the store before and are now. failures: by the system's derivation."""

    fresh: frozenset[str] = frozenset()
    failures: dict[str, Failure] = field(default_factory=dict)


def build_systems(
    runner: Runner,
    subject: str,
    systems: Mapping[str, str],
    *,
    timeout: float = nix.BUILD,
    progress: Callable[[str], None] = lambda _line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Build what of `systems` (derivation → its output's path) is not in the store yet; subject: the groups, for messages.

    Nix stops at once at a derivation for a platform that it cannot build for, whatever --keep-going says (2.26); so what is
    not to blame for a failure is built again without what is.
    """
    absent = nix.invalid_paths(runner, subject, list(systems.values()))
    pending = [drv for drv, out in systems.items() if out in absent]
    outcome = Outcome()
    deadline = clock() + timeout
    while pending:
        log = BuildLog()
        error = _build(runner, subject, pending, log, deadline - clock(), Reporter(subject, progress, log, clock))
        invalid = nix.invalid_paths(runner, subject, [systems[drv] for drv in pending])
        pending = [drv for drv in pending if systems[drv] in invalid]
        blamed = {} if isinstance(error, CommandTimeout) else _blame(runner, subject, pending, log)
        if not blamed:
            blamed = {drv: Failure(error.what if error else "nix built nothing", error.hint if error else "") for drv in pending}
        outcome.failures |= blamed
        pending = [drv for drv in pending if drv not in blamed]
    outcome.fresh = absent - {systems[drv] for drv in outcome.failures}
    return outcome


def _build(
    runner: Runner, subject: str, drvs: Sequence[str], log: BuildLog, timeout: float, reporter: Reporter
) -> FlotillaError | None:
    """One run of nix build; the error that is true of whatever it did not build."""
    try:
        result = nix.build(runner, drvs, timeout=max(timeout, 1.0), on_line=reporter.line)
    except CommandTimeout as error:
        return error
    return None if result.status == 0 else explained(_readable(result, log), subject, "the build failed")


def _readable(result: RunResult, log: BuildLog) -> RunResult:
    """The result with the errors in place of the log in JSON."""
    text = "\n".join(f"error: {error}" for error in log.errors) or "\n".join(
        line for line in result.stderr.splitlines() if not line.startswith("@nix ")
    )
    return RunResult(result.argv, result.status, result.stdout, text, result.seconds)


def _blame(runner: Runner, subject: str, drvs: Sequence[str], log: BuildLog) -> dict[str, Failure]:
    """For each system that needs a derivation which failed, that derivation and its last words."""
    found = {}
    named = log.blamed()
    for drv in drvs:
        needs = frozenset(nix.requisites(runner, subject, drv))
        culprits = [d for d in log.started if d in named and d in needs] or sorted(named & needs)
        culprits = culprits or _unbuilt(runner, subject, [d for d in log.started if d in needs])
        if culprits:
            found[drv] = _failure(runner, culprits, log)
    return found


def _unbuilt(runner: Runner, subject: str, drvs: Sequence[str]) -> list[str]:
    """Those of the derivations that have an output which is not there; the latest 50, as each costs a process."""
    outputs = {drv: nix.outputs(runner, drv) for drv in drvs[-50:]}
    invalid = nix.invalid_paths(runner, subject, [path for paths in outputs.values() for path in paths])
    return [drv for drv, paths in outputs.items() if invalid.intersection(paths)]


def _failure(runner: Runner, culprits: Sequence[str], log: BuildLog) -> Failure:
    first = culprits[0]
    lines = tuple(log.started.get(first, ())) or (nix.build_log(runner, first) if first in log.started else ())
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    reason = log.error_about(first).replace(f"'{first}'", name_of(first)).rstrip(".") or f"{name_of(first)} was not built"
    more = f" (and {len(culprits) - 1} more failed)" if len(culprits) > 1 else ""
    hint = (
        f"Run: nix log {first}" if lines else "Give the builder a machine that can build this (nix.buildMachines, boot.binfmt)."
    )
    return Failure(f"{reason}{more}" + (f"; its last line: {said}" if said else ""), hint, first, lines)


class Reporter:
    """Says now and then what is being built or fetched: every two seconds at first, then less often; a long one every minute."""

    def __init__(
        self, subject: str, show: Callable[[str], None], log: BuildLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._subject = subject
        self._show = show
        self._log = log
        self._clock = clock
        self._interval = _INTERVAL
        self._shown_at: float | None = None
        self._shown: frozenset[str] = frozenset()

    def line(self, line: str) -> None:
        """Take in a line of the log, and show one if it is time."""
        self._log.feed(line)
        now = self._clock()
        active = frozenset(self._log.running or self._log.fetching)
        if not active:
            return
        waited = now - self._shown_at if self._shown_at is not None else _STILL
        if waited >= _STILL or (waited >= self._interval and active - self._shown):
            self._interval = min(self._interval * 1.2, _MOST)
            self._shown_at, self._shown = now, active
            self._show(f"{self._subject}: {self._text()}")

    def _text(self) -> str:
        log = self._log
        verb, what, (done, expected) = (
            ("building", log.running, log.count("builds")) if log.running else ("fetching", log.fetching, log.count("fetches"))
        )
        names = ", ".join(name_of(path) for path in what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
        return f"{verb} {names}" + (f" ({done} of {expected} done)" if expected else "")
