# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the guarded activation, from the controller's side.

The target keeps itself safe (plugin_utils/target/flotilla.sh): its guard goes back at the deadline whatever happens here.
What follows asks, waits, judges and proves; it never needs a connection to last.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from .errors import CommandTimeout, ConnectionLost, FlotillaError
from .target_state import Facts, Refused, SystemInfo, guard_of, system_info, unit_changes

#: Seconds that the target may keep one request open while it waits for its work to go on.
LONG_POLL = 8
#: Seconds beyond which an answer to a request is not waited for: a link that was cut gives no sign of it.
ANSWER = 20.0
#: Seconds to leave between attempts to reach a target that does not answer.
RETRY = 2.0
#: Seconds for sshd and the network to be ready after an activation that restarted them.
PROBE_PATIENCE = 30.0
#: Seconds that a restart into the boot default may take, when waiting for a target that went back by it.
RESTART = 180.0


class Goal(StrEnum):
    """What to do with a system: prove and keep it, keep it for the next boot, prove it until the next boot, or only plan."""

    SWITCH = "switch"
    BOOT = "boot"
    TEST = "test"
    DRY = "dry-activate"


class Outcome(StrEnum):
    """How a request to a target ended."""

    UNCHANGED = "unchanged"
    WOULD_ACTIVATE = "would_activate"
    ACTIVATED = "activated"
    CONFIRMED = "confirmed"
    STAGED = "staged_for_boot"
    INHIBITED = "inhibited"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    REBOOTED = "rebooted"
    FAILED = "failed"
    LOST = "lost"


class Clock(Protocol):
    """Time, as a parameter."""

    def now(self) -> float:
        """Seconds on a clock that never jumps."""

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Target(Protocol):
    """A NixOS host that answers the verbs of the target's script."""

    @property
    def name(self) -> str:
        """The inventory name."""

    def verb(self, verb: str, *arguments: str, timeout: float = ANSWER) -> Facts:
        """Run a verb; Refused if the script says no, ConnectionLost or CommandTimeout without an answer."""

    def reset(self) -> None:
        """Drop a shared connection, so that the next verb makes a new one."""

    def probe(self, system: str | None, timeout: float) -> str | None:
        """Log in over a fresh connection; None if the host runs the system, else a sentence that says what is wrong."""


@dataclass(frozen=True, slots=True)
class Request:
    """An activation. Times are whole seconds: the activation may take the first, proof and confirmation the second."""

    system: str
    goal: Goal
    owner: str
    activation_timeout: int = 600
    confirm_timeout: int = 300
    ignored_units: tuple[str, ...] = ()
    force: bool = False
    last_resort: str = "reboot"
    #: For a rollback: the generation that is to be the profile's again, or "any" that has the system; "": a new one.
    generation: str = ""
    #: Whether what somebody else (an owner) left waiting on the host is this owner's to take up.
    inherits: Callable[[str], bool] = lambda _former: False


@dataclass(frozen=True, slots=True)
class Report:
    """How it ended. msg: one sentence where it is a failure. units: by what switch-to-configuration did to them."""

    outcome: Outcome
    system: str
    changed: bool = False
    failed: bool = False
    msg: str = ""
    previous: str = ""
    guard: str = ""
    exit_code: int | None = None
    units: dict[str, list[str]] | None = None
    failed_units: tuple[str, ...] = ()
    journal: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    inhibitors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    restarted: bool = False
    ends_in: int | None = None
    held_by: dict[str, Any] | None = field(default=None)

    def result(self) -> dict[str, Any]:
        """As Ansible's result: stable keys, plain types."""
        result: dict[str, Any] = {
            "outcome": str(self.outcome),
            "system": self.system,
            "changed": self.changed,
            "failed": self.failed,
            "previous": self.previous,
            "guard": self.guard or None,
            "exit_code": self.exit_code,
            "units": self.units,
            "failed_units": list(self.failed_units),
            "journal": list(self.journal),
            "reboot_needed": bool(self.pending or self.inhibitors),
            "reboot_reasons": [*self.pending, *self.inhibitors],
            "inhibitors": list(self.inhibitors),
            "log": list(self.log),
            "restarted": self.restarted,
            "confirm_within": self.ends_in,
        }
        if self.held_by:
            result["held_by"] = self.held_by
        if self.outcome is Outcome.LOST:
            result["unreachable"] = True
        if self.warnings:
            result["warnings"] = list(self.warnings)
        return result | ({"msg": self.msg} if self.msg else {})


def new_id() -> str:
    """A name for a transaction that no other one has."""
    return secrets.token_hex(6)


def look(target: Target, wanted: str | None = None) -> SystemInfo:
    """The target as it is, in one round trip."""
    return system_info(target.verb("info", *([wanted] if wanted else []), timeout=60))


# ---- judging


@dataclass(frozen=True, slots=True)
class Verdict:
    """problem: why the activation is not good, "" if it is. failed_units: those not failed before and not ignored."""

    problem: str
    failed_units: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


#: Exit codes of switch-to-configuration (nixpkgs, switch-to-configuration-ng main.rs) other than 0 and 4.
_EXIT_CODES = {
    1: "a check before the switch failed, or switch-to-configuration itself did (exit code 1)",
    2: "the activation script failed (exit code 2)",
    11: "another switch held NixOS's lock (exit code 11)",
    100: "the new system's init interface differs, so it can only be booted (exit code 100)",
}


def judge(facts: Facts, ignored: Sequence[str] = ()) -> Verdict:
    """Whether an activation that has ended is good: its exit code, and no unit failed that did not fail before.

    A failed activation script is masked when units fail too (exit code 4): its message tells.
    """
    status, log = facts.number("status"), facts.lines("log")
    before, now = set(facts.all("baseline")), set(facts.all("failed_unit")) | set(facts.all("failed_at_switch"))
    if status == 4:
        now |= set(unit_changes(log).get("failed", ()))
    fresh = sorted(now - before - set(ignored))
    warnings = [f"failed before and still does: {unit}" for unit in sorted(now & before)]
    warnings += [f"failed and is ignored: {unit}" for unit in sorted((now - before) & set(ignored))]
    if status is None:
        return Verdict("switch-to-configuration left no exit code", tuple(fresh), tuple(warnings))
    if status == 4 and any("Failed to run activate script" in line for line in log):
        return Verdict(_EXIT_CODES[2], tuple(fresh), tuple(warnings))
    if status not in (0, 4):
        return Verdict(_EXIT_CODES.get(status, f"exit code {status}"), tuple(fresh), tuple(warnings))
    if fresh:
        return Verdict(f"units that did not fail before fail now: {', '.join(fresh)}", tuple(fresh), tuple(warnings))
    if status == 4 and not now:
        return Verdict("units failed to start (exit code 4), and are not named", (), tuple(warnings))
    return Verdict("", (), tuple(warnings))


# ---- asking and waiting


def _busy(facts: Facts) -> bool:
    return facts.one("busy") == "yes"


def _reach(target: Target, until: float, clock: Clock, verb: str, *arguments: str) -> Facts | None:
    """The answer to a verb that may be sent again, over whatever connection comes about; None after `until`."""
    while True:
        try:
            return target.verb(verb, *arguments, timeout=ANSWER + LONG_POLL)
        except (ConnectionLost, CommandTimeout):
            if clock.now() + RETRY >= until:
                return None
            target.reset()
            clock.sleep(RETRY)


def _follow(target: Target, guard: str, facts: Facts, until: float, clock: Clock) -> Facts | None:
    """Poll until the transaction waits for us or has ended; still busy at `until`: as it was; no answer since: None."""
    answer: Facts | None = facts
    while answer is not None and _busy(answer) and clock.now() < until:
        answer = _reach(target, until, clock, "poll", guard, str(LONG_POLL))
    return answer


def activate(target: Target, request: Request, clock: Clock) -> Report:
    """Bring the target to the system under its guard: activated and proven, but not confirmed; or back where it was.

    goal boot: the profile and the boot loader's default alone. Expected refusals are raised; whatever happens after the
    target began is in the report.
    """
    guard, begun = new_id(), clock.now()
    try:
        facts = _begin(target, request, guard, clock)
    except Refused as error:
        if error.kind == "inhibited":
            return _inhibited(request, error)
        former = error.facts.one("guard_owner")
        if error.kind != "held" or not request.inherits(former):
            raise
        facts = _begin(target, request, guard, clock, former)
    if facts is None:
        return _Attempt(target, request, guard, Facts({}), begun, clock).conclude(None)
    if facts.one("outcome") == "unchanged":
        pending = facts.all("pending_wanted")
        return Report(Outcome.UNCHANGED, request.system, previous=facts.one("previous"), pending=pending)
    # Another one than ours if the target was waiting for this owner's confirmation of this system already.
    guard = facts.one("id") or guard
    until = begun + request.activation_timeout
    settled = _follow(target, guard, facts, until + request.confirm_timeout if request.goal is Goal.BOOT else until, clock)
    return _Attempt(target, request, guard, facts, begun, clock).conclude(settled)


def _begin(target: Target, request: Request, guard: str, clock: Clock, former: str = "-") -> Facts | None:
    """Ask for it. former: the owner whose waiting activation of the same system may be taken up, too."""
    words = (request.owner, request.system, str(request.goal), str(request.activation_timeout), str(request.confirm_timeout))
    asked = clock.now()
    try:
        return target.verb(
            "activate",
            guard,
            *words,
            "yes" if request.force else "no",
            request.last_resort,
            str(LONG_POLL),
            request.generation or "-",
            former,
            timeout=60 + ANSWER + LONG_POLL,
        )
    except (ConnectionLost, CommandTimeout) as lost:
        # The answer is lost, not necessarily the request: the target knows whether it began.
        target.reset()
        facts = _reach(target, clock.now() + request.activation_timeout, clock, "poll", guard, str(LONG_POLL))
        # A cut link may be noticed only after the target has gone back and restarted.
        if facts is not None and facts.one("phase") == "gone" and not _restarted(facts, clock.now() - asked):
            raise lost
        return facts


def _restarted(facts: Facts, seconds: float) -> bool:
    """Whether the host was restarted within the last seconds; a boot takes a while before its age can be asked for."""
    age = facts.number("uptime")
    return age is not None and age < seconds


def _inhibited(request: Request, error: Refused) -> Report:
    inhibitors = error.facts.all("inhibitor") or ("switch inhibitors",)
    pending = error.facts.all("pending_wanted")
    previous = error.facts.one("previous")
    return Report(Outcome.INHIBITED, request.system, msg=str(error), previous=previous, inhibitors=inhibitors, pending=pending)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An activation that the target has begun."""

    target: Target
    request: Request
    guard: str
    begun_with: Facts
    begun: float
    clock: Clock

    def conclude(self, facts: Facts | None) -> Report:
        """From the state in which the activation came to rest (None: out of reach) to the report."""
        if facts is None:
            return self.retreat("the connection was lost while the new system was activated")
        phase = facts.one("phase")
        if _busy(facts):
            return self.retreat(f"the activation was still running after {self.request.activation_timeout} s")
        if phase == "tested":
            return self.prove(facts)
        if phase == "staged":
            return self.report(Outcome.STAGED, facts, changed=True)
        if phase == "refused":
            status = facts.number("status")
            if status == 100:
                return self.report(Outcome.INHIBITED, facts, inhibitors=(_EXIT_CODES[100],))
            why = _EXIT_CODES.get(status or 0, facts.one("reason"))
            return self.report(Outcome.REFUSED, facts, failed=True, msg=self.sentence(f"nothing was activated: {why}"))
        if phase == "failed":
            message = self.sentence(facts.one("reason"), self.by_hand(facts))
            return self.report(Outcome.FAILED, facts, failed=True, changed=True, msg=message)
        return self.returned(facts, facts.one("reason") or "it went back by itself")

    def prove(self, facts: Facts) -> Report:
        """Judge what the activation did, then log in anew as a person would."""
        verdict = judge(facts, self.request.ignored_units)
        if verdict.problem:
            return self.retreat(verdict.problem, facts)
        if unproven := self.probe(facts):
            return self.retreat(f"the new system cannot be reached over a fresh connection: {unproven}", facts)
        return self.report(Outcome.ACTIVATED, facts, changed=True, warnings=verdict.warnings)

    def probe(self, facts: Facts) -> str | None:
        """None if a fresh connection finds the new system; tried while sshd and network may still be settling."""
        patience = min(PROBE_PATIENCE, (facts.number("ends_in") or 0) / 2)
        until = self.clock.now() + patience
        while (problem := self.target.probe(self.request.system, max(5.0, min(15.0, patience)))) is not None:
            if self.clock.now() + 1 >= until:
                return problem
            self.clock.sleep(1)
        return None

    def retreat(self, why: str, seen: Facts | None = None) -> Report:
        """Have the target go back now; where it cannot be told, wait for its own deadline to have done it."""
        limit = self.request.activation_timeout + self.request.confirm_timeout
        # Its guard, then the old system's activation, then perhaps a restart: only later than that is it truly lost.
        until = self.begun + limit + max(self.request.activation_timeout, 300) + RESTART
        facts = _reach(self.target, until, self.clock, "back", self.guard, why, str(LONG_POLL))
        while facts is not None and _busy(facts) and self.clock.now() < until:
            facts = _follow(self.target, self.guard, facts, until, self.clock)
        return self.returned(facts, why, seen)

    def returned(self, facts: Facts | None, why: str, seen: Facts | None = None) -> Report:
        """The report of an activation that was (or must have been) undone."""
        if facts is None or _busy(facts):
            old = self.begun_with.one("previous")
            text = f"{why}; it did not answer since. Its guard takes it back to {old or 'the old system'} by itself"
            hint = "If it stays away, look at its console."
            return self.report(Outcome.LOST, None, failed=True, changed=True, msg=self.sentence(text, hint))
        facts_then = seen or facts
        previous = self.previous(facts)
        verdict = judge(facts_then, self.request.ignored_units)
        common: dict[str, Any] = {"failed": True, "changed": True, "failed_units": verdict.failed_units}
        phase = facts.one("phase")
        # It had ended otherwise before it could be told to go back: only the answer came late.
        if phase in ("staged", "refused") or (phase == "failed" and facts.one("kind") == "stage"):
            return self.conclude(facts)
        if phase == "gone":
            if not self.begun_with.values and not _restarted(facts, self.clock.now() - self.begun):
                raise ConnectionLost(self.target.name, "the connection was lost before it was asked", "Nothing was changed.")
            if facts.one("running") != self.request.system:
                text = f"{why}; it restarted and runs {facts.one('running')} again"
                return self.report(Outcome.ROLLED_BACK, facts_then, restarted=True, msg=self.sentence(text), **common)
            text = f"{why}; it restarted and runs the new system, which was not confirmed"
            hint = "Run flotilla.nixos.system_activate again to prove it, or flotilla.nixos.system_rollback with `to`."
            return self.report(Outcome.FAILED, facts_then, restarted=True, msg=self.sentence(text, hint), **common)
        if phase == "confirmed":
            return self.report(Outcome.CONFIRMED, facts_then, changed=True, msg=self.sentence("somebody else confirmed it"))
        if phase == "rolled_back":
            reason = facts.one("reason")
            told = why if reason in ("", why) else f"{why} ({reason})"
            text = f"{told}; it runs {previous} again"
            return self.report(Outcome.ROLLED_BACK, facts_then, msg=self.sentence(text), **common)
        text = f"{why}; it could not go back: {facts.one('reason') or phase}"
        return self.report(Outcome.FAILED, facts_then, msg=self.sentence(text, self.by_hand(facts)), **common)

    def by_hand(self, facts: Facts) -> str:
        """What a person can do where the target could not help itself."""
        return by_hand(self.previous(facts))

    def previous(self, facts: Facts | None) -> str:
        return self.begun_with.one("previous") or (facts.one("old") if facts else "")

    def sentence(self, text: str, hint: str = "") -> str:
        return str(FlotillaError(self.target.name, text.rstrip("."), hint))

    def report(self, outcome: Outcome, facts: Facts | None, **more: Any) -> Report:
        log = (*facts.lines("log"), *facts.lines("boot_log")) if facts else ()
        warnings = more.pop("warnings", ())
        return Report(
            outcome,
            self.request.system,
            previous=self.previous(facts),
            guard=self.guard if outcome is Outcome.ACTIVATED else "",
            exit_code=(facts.number("status") if facts else None),
            units=unit_changes(log),
            journal=facts.all("journal") if facts and more.get("failed") else (),
            pending=self.begun_with.all("pending_wanted"),
            log=log,
            warnings=tuple(warnings),
            ends_in=facts.number("ends_in") if facts and outcome is Outcome.ACTIVATED else None,
            **more,
        )


def plan(target: Target, request: Request) -> Report:
    """What an activation would do, from the new system's own dry run; changes nothing."""
    goal = Goal.SWITCH if request.goal is Goal.DRY else request.goal
    facts = target.verb("dry", request.system, str(goal), "300", timeout=300 + ANSWER)
    previous, pending = facts.one("previous"), facts.all("pending_wanted")
    if facts.one("outcome") == "unchanged":
        return Report(Outcome.UNCHANGED, request.system, previous=previous, pending=pending)
    log = facts.lines("log")
    there = facts.one("outcome") != "not_there"
    return Report(
        Outcome.WOULD_ACTIVATE,
        request.system,
        changed=True,
        previous=previous,
        pending=pending,
        exit_code=facts.number("status"),
        units=unit_changes(log) if there and goal is not Goal.BOOT else None,
        log=log,
        warnings=() if there else (f"{request.system} is not on the host yet, so its units cannot be compared",),
        held_by=guard_of(facts),
    )


# ---- confirming


def confirm(
    target: Target,
    system: str,
    clock: Clock,
    *,
    guard: str = "",
    ignored: Sequence[str] = (),
    settle: int = 0,
    health: Callable[[float], str | None] | None = None,
) -> Report:
    """Make an activated system permanent; on a failed health check or boot loader the target goes back instead.

    settle: seconds since the activation for which no unit may fail. health: given the seconds there are for it, says what is
    wrong, or None.
    """
    request = Request(system, Goal.SWITCH, owner="", ignored_units=tuple(ignored))
    if health is not None:
        waiting = target.verb("poll", guard or "-", "0")
        if waiting.one("phase") == "tested":
            attempt = _Attempt(target, request, waiting.one("id"), waiting, clock.now(), clock)
            left = waiting.number("ends_in") or 0
            # What remains is for the confirmation itself.
            if problem := health(left - min(10.0, left / 4)):
                return attempt.retreat(f"a health check failed: {problem}", waiting)
    facts = _confirmed(target, system, guard, ignored, settle, clock)
    if facts.one("outcome") == "unchanged":
        return Report(Outcome.UNCHANGED, system, previous=system)
    attempt = _Attempt(target, request, facts.one("id"), facts, clock.now(), clock)
    if facts.one("outcome") == "unhealthy":
        return attempt.retreat(judge(facts, ignored).problem or "units failed after the activation", facts)
    settled = _follow(target, facts.one("id"), facts, clock.now() + request.activation_timeout + RESTART, clock)
    if settled is not None and settled.one("phase") == "confirmed":
        return attempt.report(Outcome.CONFIRMED, settled, changed=settled.one("goal") != Goal.TEST)
    if settled is None or _busy(settled):
        text = "it did not answer since the confirmation began; it is on the new system, or its guard takes it back"
        hint = "If it stays away, look at its console; else run it again."
        return attempt.report(Outcome.LOST, None, failed=True, changed=True, msg=attempt.sentence(text, hint))
    if settled.one("phase") == "gone":
        return attempt.returned(settled, "the host restarted while the system was confirmed")
    return attempt.returned(settled, f"it could not be confirmed: {settled.one('reason')}")


def _confirmed(target: Target, system: str, guard: str, ignored: Sequence[str], settle: int, clock: Clock) -> Facts:
    words = (guard or "-", system, str(LONG_POLL), str(settle), *ignored)
    try:
        return target.verb("confirm", *words, timeout=ANSWER + LONG_POLL + settle)
    except (ConnectionLost, CommandTimeout) as lost:
        target.reset()
        # Sent again it only waits for the first; if the first never came, it is the first.
        facts = _reach(target, clock.now() + 120, clock, "confirm", *words)
        if facts is None:
            raise lost
        return facts


# ---- going back


def by_hand(old: str) -> str:
    """What a person can do on a target that could not go back by itself."""
    look_at = "Look at its console, and at `journalctl -b -u 'flotilla-*'` there."
    return f"{look_at} `{old}/bin/switch-to-configuration test` as root brings the old system back." if old else look_at


def take_back(target: Target, why: str, clock: Clock, *, timeout: float = 600) -> Report | None:
    """End the activation that waits on the target and have it go back; None if none does."""
    facts = target.verb("back", "-", why, str(LONG_POLL), timeout=ANSWER + LONG_POLL)
    if facts.one("phase") == "gone":
        return None
    until = clock.now() + timeout
    settled = _follow(target, facts.one("id"), facts, until, clock)
    old = facts.one("old")
    if settled is not None and settled.one("phase") in ("rolled_back", "gone") and settled.one("running") == old:
        restarted = settled.one("phase") == "gone"
        return Report(Outcome.ROLLED_BACK, old, changed=True, previous=facts.one("new"), restarted=restarted)
    state = settled.one("reason") or settled.one("phase") if settled else "it does not answer"
    error = FlotillaError(target.name, f"it could not be taken back to {old}: {state}", by_hand(old))
    outcome = Outcome.FAILED if settled else Outcome.LOST
    return Report(outcome, old, changed=True, failed=True, msg=str(error), previous=facts.one("new"))


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to go back to. generation: its number, or "any". left: what the host went back from to here already."""

    system: str
    generation: str = "any"
    left: str = ""


def destination(target: Target, which: str) -> Destination:
    """A generation by its number, or `previous`: the one before the profile's, or the profile's if that was gone back to."""
    facts = target.verb("generation", which)
    return Destination(facts.one("system"), facts.one("generation"), facts.one("left"))
