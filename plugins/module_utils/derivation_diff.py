# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: why two derivations differ: down to those that differ in themselves, not by what they need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .nix_derivation import Derivation, derivations
from .runner import Runner

#: Pairs of derivations that are looked at, and reasons that are told.
_LIMIT = 400
_TOLD = 5
_LONG = 60
_STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-([0-9a-zA-Z+._?=-]+)")
_DRV = re.compile(r"^/nix/store/[^-]+-|\.drv$")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a derivation differs. name: which one. only_commit: because the commit that it was made from is written into it."""

    name: str
    what: str
    only_commit: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


Facts = Mapping[str, str]


def reasons(runner: Runner, subject: str, before: str, after: str, facts: tuple[Facts, Facts]) -> tuple[Reason, ...]:
    """Why the derivation `after` is not `before`, the nearest first. facts: of the commits of both, see source_facts."""
    found: list[Reason] = []
    seen: set[tuple[str, str]] = set()
    level = [(before, after)]
    while level and len(seen) < _LIMIT:
        seen |= set(level)
        shown = derivations(runner, subject, sorted({path for pair in level for path in pair}))
        deeper: list[tuple[str, str]] = []
        for old, new in ((shown[one], shown[other]) for one, other in level if one in shown and other in shown):
            pairs, unpaired = _paired(old, new)
            deeper += [pair for pair in pairs if pair not in seen]
            found += _own(old, new, [_name(one) for one, _other in pairs], facts) or list(unpaired)
        level = list(dict.fromkeys(deeper))
    return tuple(found)


def told(found: Sequence[Reason]) -> str:
    """The reasons as one clause."""
    more = f", and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return "; ".join(str(reason) for reason in found[:_TOLD]) + more if found else "nix shows no difference"


def _name(path: str) -> str:
    return _DRV.sub("", path)


def _paired(old: Derivation, new: Derivation) -> tuple[list[tuple[str, str]], list[Reason]]:
    """What one needs and the other does not, in pairs of one name; and those without a partner, as reasons."""
    gone, come = sorted(old.needs - new.needs, key=_name), sorted(new.needs - old.needs, key=_name)
    pairs = []
    for one in list(gone):
        other = next((path for path in come if _name(path) == _name(one)), None)
        if other is not None:
            pairs.append((one, other))
            gone.remove(one)
            come.remove(other)
    why = [Reason(old.name, f"it needs {_name(path)} before alone", only_commit=False) for path in gone]
    return pairs, why + [Reason(old.name, f"it needs {_name(path)} after alone", only_commit=False) for path in come]


def _own(old: Derivation, new: Derivation, below: Sequence[str], facts: tuple[Facts, Facts]) -> list[Reason]:
    """In what a derivation itself differs, whatever it needs."""
    names = {*below, old.name, new.name}
    differs = [(key, one, other) for key, one, other in _fields(old, new) if _neutral(one, names) != _neutral(other, names)]
    rest = [
        (key, one, other) for key, one, other in differs if _timeless(one, names, facts[0]) != _timeless(other, names, facts[1])
    ]
    if differs and not rest:
        where = ", ".join(key for key, _one, _other in differs)
        what = f"the commit that it is made from is written into its {where} (self.rev, or self)"
        return [Reason(old.name, what, only_commit=True)]
    return [
        Reason(old.name, f"{key} is {_shown(one)} before, {_shown(other)} after", only_commit=False) for key, one, other in rest
    ]


def _fields(old: Derivation, new: Derivation) -> Iterator[tuple[str, str, str]]:
    yield "builder", old.builder, new.builder
    yield "arguments", " ".join(old.args), " ".join(new.args)
    yield "sources", " ".join(sorted(old.sources)), " ".join(sorted(new.sources))
    for key in sorted({*old.env, *new.env}):
        yield key, old.env.get(key, ""), new.env.get(key, "")


def _neutral(text: str, names: set[str]) -> str:
    """The text without the hashes of what has one of these names, which differ because of what differs below."""

    def without_hash(found: re.Match[str]) -> str:
        name = _DRV.sub("", found[1])
        return name if any(name == one or name.startswith(f"{one}-") for one in names) else found[0]

    return _STORE_PATH.sub(without_hash, text)


def _timeless(text: str, names: set[str], facts: Facts) -> str:
    """The text without what it has of the commit."""
    for name in sorted(facts, key=lambda key: -len(facts[key])):
        if len(facts[name]) > 6:
            text = text.replace(facts[name], f"<{name}>")
    return _neutral(text, names)


def _shown(text: str) -> str:
    short = text if len(text) <= _LONG else f"{text[:_LONG]}…"
    return repr(short)
