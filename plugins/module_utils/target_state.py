# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what the target's script answers, as values."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import FlotillaError

_PREFIX = "flotilla "


@dataclass(frozen=True, slots=True)
class Facts:
    """The `flotilla KEY VALUE` lines of one answer; a key may have come more than once."""

    values: Mapping[str, tuple[str, ...]]

    def one(self, key: str) -> str:
        """The last value of the key, "" where there is none."""
        return self.values.get(key, ("",))[-1]

    def all(self, key: str) -> tuple[str, ...]:
        """All values of the key but empty ones, in their order."""
        return tuple(value for value in self.values.get(key, ()) if value)

    def lines(self, key: str) -> tuple[str, ...]:
        """All values of the key, empty lines of a log too."""
        return self.values.get(key, ())

    def number(self, key: str) -> int | None:
        """The value as a number; None where it is missing or is none."""
        value = self.one(key)
        return int(value) if re.fullmatch(r"-?\d+", value) else None


def parse_facts(stdout: str) -> Facts:
    """The facts in what the script printed; whatever else a login shell prints there is passed over."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in stdout.splitlines():
        if line.startswith(_PREFIX):
            key, _space, value = line.removeprefix(_PREFIX).partition(" ")
            found[key].append(value.rstrip("\r"))
    return Facts({key: tuple(values) for key, values in found.items()})


class Refused(FlotillaError):
    """The target's script said no, before or instead of changing anything. kind: its word for why."""

    def __init__(self, subject: str, what: str, hint: str, *, kind: str, facts: Facts) -> None:
        super().__init__(subject, what, hint)
        self.kind = kind
        self.facts = facts


#: The script's words for its refusals: what and hint, with the detail it gave as {d}.
_REFUSALS: Mapping[str, tuple[str, str]] = {
    "not_root": ("this needs root there and the connection's user is {d}", "Set `become: true` for the task or host."),
    "no_systemd": ("systemd does not run there", "Flotilla manages NixOS systems that were booted with systemd."),
    "not_nixos": (
        "it does not run NixOS: there is no /run/current-system/bin/switch-to-configuration",
        "Install NixOS on it first, for example with nixos-anywhere.",
    ),
    "not_a_system": (
        "{d} is not a NixOS system",
        "Give the store path of config.system.build.toplevel, which has nixos-version and bin/switch-to-configuration.",
    ),
    "not_in_store": ("{d} is not (or not completely) in its nix store", "Copy it first, with flotilla.nixos.closure_copy."),
    "wrong_platform": (
        "the system is for {d[0]}, and this machine is {d[1]}",
        "Correct nixpkgs.hostPlatform of the host, or the host's flotilla_attribute.",
    ),
    "boot_full": (
        "/boot has {d[1]} bytes free, and the new kernel and initrd need {d[0]}",
        "Remove old generations there and run `/run/current-system/bin/switch-to-configuration boot`.",
    ),
    "run_full": (
        "/run has {d[0]} bytes free, and {d[1]} have to be set aside so that it can go back whatever happens",
        "Remove what fills it (`du -x /run | sort -n` there).",
    ),
    "switching": ("a switch that is not ours runs there ({d} is held)", "Wait until it is done."),
    "busy": ("{d} did not finish within 20 s", "Try again."),
    "check_failed": ("the new system's pre-switch check failed: {d}", "Nothing was changed. The whole output is in `log`."),
    "start_failed": ("a transient unit failed to start: {d}", "Nothing was activated. Look at `journalctl -b` there."),
    "no_guard": (
        "no activation of {d} waits for a confirmation there",
        "It may have gone back or been restarted: run flotilla.nixos.system_activate again.",
    ),
    "ended": ("the activation has ended already: {d}", "Run flotilla.nixos.system_activate again."),
    "other_system": ("the activation that waits there is of another system, {d}", "Confirm that one, or take it back."),
    "not_ready": ("the activation cannot be confirmed in its phase `{d}`", "Wait for it, or take it back."),
    "no_generation": ("there is no generation {d!r} of its system profile", "`nixos-rebuild list-generations` there shows them."),
    "not_default": (
        "it would boot {d}, not the system that it is to come back with",
        "Stage that first: flotilla.nixos.system_activate with `goal: boot`.",
    ),
    "bad_argument": ("the script was given something that it cannot use: {d!r}", "This is a bug in flotilla.nixos."),
}


def refusal(subject: str, facts: Facts) -> Refused:
    """The error for an answer that holds `error`."""
    kind, detail = facts.one("error"), facts.one("error_detail")
    if kind == "held":
        return Refused(subject, _held(facts), _HELD_HINT, kind=kind, facts=facts)
    if kind == "inhibited":
        why = "; ".join(facts.all("inhibitor")) or detail
        hint = "Nothing was changed. Use `goal: boot` and flotilla.nixos.system_reboot."
        return Refused(subject, f"the new system must not be switched to live ({why})", hint, kind=kind, facts=facts)
    what, hint = _REFUSALS.get(kind, (f"{kind} {{d}}", ""))
    words: Any = detail.split() if "{d[" in what else detail
    return Refused(subject, what.format(d=words), hint, kind=kind, facts=facts)


_HELD_HINT = "Wait for it to end, or end it with flotilla.nixos.system_rollback."


def _held(facts: Facts) -> str:
    owner, new = facts.one("guard_owner") or "somebody", facts.one("guard_new")
    left = facts.number("guard_ends_in")
    if left is not None and left <= 0:
        ends = "its time is over"
    else:
        ends = f"it ends in {left} s at the latest" if left is not None else "its end is not known"
    work = {"reboot": "restarts the host", "stage": f"stages {new}"}.get(facts.one("guard_kind"), f"activates {new}")
    return f"{owner} {work} there at this moment, and {ends}"


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """A target as it is. Systems are store paths, "" where there is none; boot_default is None where it cannot be known.

    since: when the running system was activated, unix seconds. *_pending: what of the boot (kernel, initrd, …) the booted
    system has otherwise than the running, profile's or wanted one. guard: a transaction that holds the host.
    """

    running: str
    booted: str
    profile: str
    boot_default: str | None
    loader: str
    generation: int | None
    boot_id: str
    since: int | None
    uptime: int | None
    state: str
    platform: str
    machine: str
    version: str
    nix_version: str
    revision: str
    specialisation: str
    failed_units: tuple[str, ...]
    free: Mapping[str, int | None]
    running_pending: tuple[str, ...]
    profile_pending: tuple[str, ...]
    wanted_pending: tuple[str, ...]
    wanted_present: bool | None
    inhibitors: tuple[str, ...]
    guard: Mapping[str, Any] | None
    last: Mapping[str, str] | None

    def drift(self, wanted: str | None) -> list[str]:
        """Sentences on how the host is not what it should be; empty if all is as it should."""
        found = []
        if self.running != self.profile:
            found.append("the running system is not the profile's")
        if self.boot_default is not None and self.boot_default != self.profile:
            found.append("the boot default is not the profile's system")
        if wanted and self.running != wanted:
            found.append("the running system is not the wanted one")
        return found

    def pending(self, wanted: str | None) -> tuple[str, ...]:
        """What only a reboot can bring, for the wanted system if there is one."""
        if wanted:
            return tuple(dict.fromkeys((*self.wanted_pending, *self.inhibitors)))
        return tuple(dict.fromkeys((*self.running_pending, *self.profile_pending)))


def system_info(facts: Facts) -> SystemInfo:
    """The answer to the verb `info`."""
    default = facts.one("boot_default")
    present = facts.one("wanted_present")
    return SystemInfo(
        running=facts.one("running"),
        booted=facts.one("booted"),
        profile=facts.one("profile"),
        boot_default=None if default in ("", "unknown") else default,
        loader=facts.one("loader") or "unknown",
        generation=facts.number("generation"),
        boot_id=facts.one("boot_id"),
        since=facts.number("since"),
        uptime=facts.number("uptime"),
        state=facts.one("state"),
        platform=facts.one("platform"),
        machine=facts.one("machine"),
        version=facts.one("version"),
        nix_version=facts.one("nix_version"),
        revision=facts.one("revision"),
        specialisation=facts.one("specialisation"),
        failed_units=facts.all("failed_unit"),
        free={"nix": facts.number("free_nix"), "boot": facts.number("free_boot")},
        running_pending=facts.all("pending_running"),
        profile_pending=facts.all("pending_profile"),
        wanted_pending=facts.all("pending_wanted"),
        wanted_present=None if not present else present == "yes",
        inhibitors=tuple(_inhibitors(facts)),
        guard=_guard(facts),
        last=_last(facts),
    )


def _inhibitors(facts: Facts) -> Iterable[str]:
    """What a live switch to the wanted system would be refused for: keys that both have, with other values.

    NixOS 26.05's switch-inhibitors; the rule is that of its pre-switch check `switchInhibitors`.
    """
    old, new = _json_object(facts.one("inhibitors_running")), _json_object(facts.one("inhibitors_wanted"))
    for key in sorted(old.keys() & new.keys()):
        if old[key] != new[key]:
            yield f"{key} : {old[key]} -> {new[key]}"
    had, will = facts.one("interface_running"), facts.one("interface_wanted")
    if will and had != will:
        yield f"init-interface-version : {had} -> {will}"


def _json_object(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def guard_of(facts: Facts) -> dict[str, Any] | None:
    """The transaction that holds the host, as the result has it."""
    return _guard(facts)


def _guard(facts: Facts) -> dict[str, Any] | None:
    if not facts.one("guard_id"):
        return None
    words = {key: facts.one(f"guard_{key}") for key in ("id", "kind", "owner", "goal", "new", "old", "phase", "reason")}
    return {**words, "ends_in": facts.number("guard_ends_in"), "armed": facts.one("guard_armed") == "yes"}


def _last(facts: Facts) -> dict[str, str] | None:
    if not facts.one("last_id"):
        return None
    return {key: facts.one(f"last_{key}") for key in ("id", "phase", "reason", "new")}


#: How switch-to-configuration's lines begin (perl and ng), and our word for what follows the colon.
_UNIT_LINES: tuple[tuple[str, str], ...] = (
    (r"(?:would stop|stopping) the following units", "stopped"),
    (r"(?:would NOT stop|NOT stopping) the following changed units", "not_stopped"),
    (r"(?:would NOT restart|NOT restarting) the following changed units", "not_restarted"),
    (r"(?:would reload|reloading) the following units", "reloaded"),
    (r"(?:would restart|restarting) the following units", "restarted"),
    (r"(?:would start|starting) the following units", "started"),
    (r"the following new units were started", "new"),
    (r"warning: the following units failed", "failed"),
)


def unit_changes(log: Sequence[str]) -> dict[str, list[str]]:
    """The units that switch-to-configuration named in its output, by what was (or would be) done to them."""
    found: dict[str, list[str]] = {}
    for line in log:
        for pattern, word in _UNIT_LINES:
            if match := re.match(rf"{pattern}: (.+)$", line.strip()):
                units = [unit.strip() for unit in match[1].split(",") if unit.strip()]
                found[word] = list(dict.fromkeys([*found.get(word, []), *units]))
    return found
