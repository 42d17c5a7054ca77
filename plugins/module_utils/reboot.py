# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a restart as a transaction, with a time limit and a proof."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Literal

from .activation import RETRY, Clock, Outcome, Report, Target, look, new_id
from .errors import CommandTimeout, ConnectionLost, FlotillaError
from .target_state import SystemInfo

#: Seconds that systemd may still be starting units after the host can be reached.
_SETTLE = 60.0


@dataclass(frozen=True, slots=True)
class RebootRequest:
    """A restart. system: what must be booted afterwards, "" for whatever the boot default is. timeout: seconds to come back."""

    system: str
    owner: str
    policy: Literal["if_needed", "always", "never"] = "if_needed"
    timeout: int = 600
    ignored_units: tuple[str, ...] = ()
    dry: bool = False


def reboot(target: Target, request: RebootRequest, clock: Clock) -> Report:
    """Restart the target if it is needed, wait until it is back, and see what it booted and which units failed."""
    before = look(target, request.system or None)
    reasons = _reasons(before, request.system)
    report = Report(Outcome.UNCHANGED, request.system or before.profile, previous=before.booted, pending=reasons)
    if request.policy == "never" or (request.policy == "if_needed" and not reasons):
        return report
    if request.dry:
        return replace(report, outcome=Outcome.REBOOTED, changed=True)
    # The host may go before its answer comes through; if it has not, its boot id will show it.
    with contextlib.suppress(ConnectionLost, CommandTimeout):
        target.verb("reboot", new_id(), request.owner, str(request.timeout), request.system)
    after = _return(target, before.boot_id, clock.now() + request.timeout, clock)
    if after is not None and after.boot_id == before.boot_id:
        return _still_up(target, request, report)
    return _judge(target, request, before, after)


def _reasons(info: SystemInfo, system: str) -> tuple[str, ...]:
    """Why a restart is needed: what of the boot differs, and a system that was staged but does not run."""
    staged = (f"{system} is not running",) if system and info.running != system else ()
    return (*info.pending(system or None), *staged)


def _return(target: Target, boot_id: str, until: float, clock: Clock) -> SystemInfo | None:
    """The host after its restart, once systemd has started everything or the time for that is over; None if it stays away.

    With its old boot id: it answered to the end, and never went down.
    """
    settled_by: float | None = None
    info: SystemInfo | None = None
    while clock.now() < until:
        clock.sleep(RETRY)
        target.reset()
        try:
            found = look(target)
        except (ConnectionLost, CommandTimeout):
            if info is not None and info.boot_id == boot_id:
                info = None
            continue
        info = found
        if found.boot_id == boot_id:
            continue
        settled_by = settled_by or clock.now() + _SETTLE
        if found.state not in ("initializing", "starting") or clock.now() >= settled_by:
            break
    return info


def _still_up(target: Target, request: RebootRequest, report: Report) -> Report:
    error = FlotillaError(
        target.name,
        f"it did not restart: {request.timeout} s after it was told to, it still runs as before",
        "See `systemctl list-jobs` and `systemd-inhibit --list` there: something may hold the restart up. It may still come.",
    )
    return replace(report, outcome=Outcome.FAILED, changed=True, failed=True, msg=str(error))


def _judge(target: Target, request: RebootRequest, before: SystemInfo, after: SystemInfo | None) -> Report:
    report = Report(Outcome.REBOOTED, request.system or before.profile, changed=True, previous=before.booted, restarted=True)
    if after is None:
        error = FlotillaError(
            target.name,
            f"it did not come back within {request.timeout} s of its restart",
            f"Look at its console. Before, it ran {before.running}.",
        )
        return replace(report, outcome=Outcome.LOST, failed=True, restarted=False, msg=str(error))
    if request.system and request.system not in (after.booted, after.running):
        what = f"it came back with {after.booted or after.running}, not {request.system}"
        hint = "The boot loader may have fallen back: see `journalctl -b -1` there."
        return replace(report, outcome=Outcome.FAILED, failed=True, msg=str(FlotillaError(target.name, what, hint)))
    fresh = tuple(sorted(set(after.failed_units) - set(before.failed_units) - set(request.ignored_units)))
    if fresh:
        what = f"it came back, but units that did not fail before fail now: {', '.join(fresh)}"
        hint = f"See `journalctl -b -u {fresh[0]}` there, or name what may fail in `ignored_units`."
        return replace(report, failed=True, failed_units=fresh, msg=str(FlotillaError(target.name, what, hint)))
    return report
