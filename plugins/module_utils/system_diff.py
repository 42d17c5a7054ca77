# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what differs between two systems in the builder's store: packages, units, what a reboot is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import nix
from .errors import FlotillaError
from .runner import Runner, checked

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: What a running system takes from its boot alone (as nixos-rebuild and NixOS's auto-upgrade compare them).
_BOOTED = ("kernel", "initrd", "kernel-modules", "kernel-params")

#: Names of the units, `--`, where each lies; then where each of _BOOTED lies, and the kernel's parameters.
_LOOK = """
cd "$1/etc/systemd/system/"
for unit in *; do printf '%s\\n' "$unit"; done
printf -- '--\\n'
readlink -f -- *
printf -- '--\\n'
cd "$1"
for part in kernel initrd kernel-modules; do readlink -f "$part" || printf '\\n'; done
cat kernel-params 2>/dev/null || :
"""


@dataclass(frozen=True, slots=True)
class _System:
    units: Mapping[str, str]
    booted: tuple[str, ...]


def compare(runner: Runner, host: str, before: str, after: str) -> list[str]:
    """Lines that say what changes on the host; one line with the reason where that cannot be said."""
    try:
        missing = nix.invalid_paths(runner, host, [before, after])
        if missing:
            which = "running" if before in missing else "new"
            return [f"its {which} system is not in the builder's store, so packages and units cannot be compared"]
        packages = _packages(runner, host, before, after)
        old, new = _look(runner, host, before), _look(runner, host, after)
    except FlotillaError as error:
        return [f"packages and units could not be compared: {error.what}"]
    return [*packages, *_unit_lines(old.units, new.units), *_reboot_lines(old, new)] or ["nothing that runs differs"]


def together(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of many hosts, those with the same ones under one heading."""
    same: dict[tuple[str, ...], list[str]] = {}
    for host, lines in texts.items():
        same.setdefault(tuple(lines), []).append(host)
    return [line for lines, hosts in same.items() for line in (f"{', '.join(hosts)}:", *(f"  {line}" for line in lines))]


def _packages(runner: Runner, host: str, before: str, after: str) -> list[str]:
    text = _ANSI.sub("", nix.diff_closures(runner, host, before, after))
    lines = [line for line in text.splitlines() if line.strip()]
    # The system itself always differs, and by its name is the only line that no two hosts share.
    return [line for line in lines if not line.startswith("nixos-system-")]


def _look(runner: Runner, host: str, system: str) -> _System:
    result = runner.run(["sh", "-eu", "-c", _LOOK, "sh", system])
    names, places, booted = checked(result, host, "looking at its units failed").stdout.split("--\n")
    return _System(_units(zip(names.splitlines(), places.splitlines(), strict=True)), tuple(booted.splitlines()))


def _units(files: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Unit → where it and its drop-ins lie; without the directories that only say what wants what."""
    units: dict[str, str] = {}
    for name, place in sorted(files):
        unit = name.removesuffix(".d")
        if not unit.endswith((".wants", ".requires", ".upholds")):
            units[unit] = units.get(unit, "") + place
    return units


def _unit_lines(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    kinds = {
        "units that change": sorted(unit for unit in old.keys() & new.keys() if old[unit] != new[unit]),
        "units that are new": sorted(new.keys() - old.keys()),
        "units that go": sorted(old.keys() - new.keys()),
    }
    return [f"{kind}: {', '.join(units)}" for kind, units in kinds.items() if units]


def _reboot_lines(old: _System, new: _System) -> list[str]:
    padded = (*old.booted, "", "", "", ""), (*new.booted, "", "", "", "")
    changed = [name for name, before, after in zip(_BOOTED, *padded, strict=False) if before != after]
    return [f"needs a reboot: {', '.join(changed)}"] if changed else []
