# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what became of a host in a rollout, read from the results of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: The result of a stage as Ansible registers it.
Result = Mapping[str, Any]


class Outcome(StrEnum):
    """Where a host stands at the end of a rollout."""

    UNCHANGED = "unchanged"  # it ran what it should before we came
    UPDATED = "updated"  # runs the new system, which is also the boot default
    REBOOTED = "rebooted"  # the same, after a reboot
    STAGED = "staged"  # the next boot starts the new system
    PLANNED = "planned"  # would be updated: check mode, or the stages to run end before
    COPIED = "copied"  # has the new system in its store; the stages to run end there
    ROLLED_BACK = "rolled_back"  # was on the new system, is on the old one again
    FAILED = "failed"
    HELD = "held"  # not touched, because its group halted
    DEFERRED = "deferred"  # not touched, because it was not there

    @property
    def bad(self) -> bool:
        """True for what counts against the group."""
        return self in (Outcome.ROLLED_BACK, Outcome.FAILED)

    @property
    def proves(self) -> bool:
        """True for what shows that the group's systems work on a host."""
        return self in (Outcome.UNCHANGED, Outcome.UPDATED, Outcome.REBOOTED, Outcome.STAGED)


class Stage(StrEnum):
    """The stages of a rollout in their order; also its tags."""

    LOCK = "lock"
    BUILD = "build"
    PLAN = "plan"
    COPY = "copy"
    ACTIVATE = "activate"
    CONFIRM = "confirm"
    FINISH = "finish"


#: Stages that cannot be left out without leaving out what comes after; a rollout without `lock` deploys the branch's head.
_CHAIN = [stage for stage in Stage if stage is not Stage.LOCK]


def stages_to_run(run_tags: list[str], skip_tags: list[str]) -> list[Stage]:
    """The stages for --tags and --skip-tags: up to the last one named, and none that needs a skipped one."""
    # An activation that nobody confirms is undone at its deadline: the two go together.
    if Stage.ACTIVATE in run_tags:
        run_tags = [*run_tags, Stage.CONFIRM]
    if Stage.CONFIRM in skip_tags:
        skip_tags = [*skip_tags, Stage.ACTIVATE]
    named = [stage for stage in Stage if stage in run_tags]
    if set(run_tags) & {"all", "tagged"}:
        named = list(Stage)
    if not named:
        return []
    last = list(Stage).index(named[-1])
    kept = [stage for i, stage in enumerate(Stage) if i <= last and stage not in skip_tags]
    cut = next((stage for stage in _CHAIN if stage in skip_tags), None)
    if cut is None:
        return kept
    return [stage for stage in kept if stage is Stage.LOCK or _CHAIN.index(stage) < _CHAIN.index(cut)]


@dataclass(frozen=True, slots=True)
class HostOutcome:
    """A host's outcome, and the reason where there is one to give.

    may_run_new: it failed, and nothing shows that it is back on the system before.
    """

    host: str
    outcome: Outcome
    reason: str = ""
    may_run_new: bool = False

    @property
    def moved(self) -> bool:
        """True if it runs the new system, or will at its next boot."""
        return self.outcome in (Outcome.UPDATED, Outcome.REBOOTED, Outcome.STAGED)


@dataclass(frozen=True, slots=True)
class StageResults:
    """What a host's tasks registered; an empty mapping for a stage that did not run. `error`: the result that ended the block."""

    copied: Result
    activated: Result
    confirmed: Result
    rebooted: Result
    rolled_back: Result
    error: Result

    @property
    def touched(self) -> bool:
        """True if any stage ran."""
        return any(map(_ran, (self.copied, self.activated, self.confirmed, self.rebooted, self.rolled_back)))


def outcome_of(host: str, results: StageResults, *, check: bool = False) -> HostOutcome | None:
    """The outcome of a host that was let through to the stages; None if nothing is known of it."""
    if not results.touched:
        return None
    if check and not results.error:
        return HostOutcome(host, Outcome.PLANNED)
    if _failed(results.copied):
        kind = Outcome.DEFERRED if results.copied.get("unreachable") else Outcome.FAILED
        return HostOutcome(host, kind, _reason(host, results.copied))
    if results.error or any(map(_failed, (results.activated, results.confirmed, results.rebooted))):
        return _after_failure(host, results)
    if not _ran(results.activated):
        return HostOutcome(host, Outcome.COPIED)
    if results.activated.get("outcome") == "would_activate":
        return HostOutcome(host, Outcome.PLANNED)
    settled = results.activated.get("outcome") in ("confirmed", "unchanged", "staged_for_boot")
    if not settled and not _ran(results.confirmed):
        # The connection went away in a task that is not ours, so that not even `rescue` ran.
        return None
    return HostOutcome(host, _success(results))


def _success(results: StageResults) -> Outcome:
    if _ran(results.rebooted) and results.rebooted.get("changed"):
        return Outcome.REBOOTED
    if results.activated.get("outcome") == "staged_for_boot":
        return Outcome.STAGED
    if results.activated.get("outcome") == "unchanged" and not results.confirmed.get("changed"):
        return Outcome.UNCHANGED
    return Outcome.UPDATED


def _after_failure(host: str, results: StageResults) -> HostOutcome:
    first = next(
        (r for r in (results.activated, results.confirmed, results.rebooted) if _failed(r)),
        results.error,
    )
    reason = _reason(host, first)
    if first.get("outcome") == "rolled_back" or is_back(results.rolled_back):
        return HostOutcome(host, Outcome.ROLLED_BACK, reason)
    if _ran(results.rolled_back):
        reason = f"{reason} Going back: {why_not_back(host, results.rolled_back)}"
    return HostOutcome(host, Outcome.FAILED, reason, may_run_new=_begun(results.activated))


def is_back(result: Result) -> bool:
    """Whether a result of system_rollback shows that the host runs the system that it was to go back to."""
    # `failed` is what `failed_when` makes of it; the outcome is what the host said.
    return not (_failed(result) or result.get("unreachable")) and result.get("outcome") in ("rolled_back", "unchanged")


def why_not_back(host: str, result: Result) -> str:
    """Why a result of system_rollback does not show that the host is back."""
    if result.get("outcome") == "staged_for_boot":
        return "the system before comes with its next boot."
    return _reason(host, result)


def _begun(activated: Result) -> bool:
    """Whether the host may have begun to move to the new system, from the result of system_activate."""
    if not _failed(activated):
        return _ran(activated) and activated.get("outcome") != "would_activate"
    if activated.get("outcome"):
        return activated["outcome"] not in ("refused", "rolled_back")
    # A refusal before anything began has no outcome, but the phase in which it came; anything else is not known.
    return bool(activated.get("unreachable")) or "phase" not in activated


def _ran(result: Result) -> bool:
    return bool(result) and not result.get("skipped", False)


def _failed(result: Result) -> bool:
    return bool(result.get("failed", False))


def _reason(host: str, result: Result) -> str:
    return without_subject(host, str(result.get("msg") or "no reason was given"))


def without_subject(host: str, message: str) -> str:
    """A message about a host, for a line that names the host already."""
    return message.strip().removeprefix(f"{host}: ")
