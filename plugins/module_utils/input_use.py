# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: which of a flake's hosts belong together, by the inputs that they use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

Uses = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class InputGroup:
    """Hosts that use inputs which others do not. channels: these inputs are all a nixpkgs each."""

    name: str
    hosts: tuple[str, ...]
    inputs: tuple[str, ...]
    channels: bool
    evidence: str


def grouped_by_use(uses: Uses, channels: Collection[str]) -> list[InputGroup]:
    """The groups of hosts by what they use, if there are several; none where all use the same, or they cannot be told apart.

    uses: host → names of the flake's inputs. channels: those of them that are a nixpkgs.
    """
    if not uses:
        return []
    common = frozenset.intersection(*uses.values())
    specific = frozenset.union(*uses.values()) - common
    if not specific:
        return []
    if specific <= set(channels):
        return _by_channel(uses, common & set(channels), specific)
    return _by_own_inputs(uses, specific)


def _by_channel(uses: Uses, usual: frozenset[str], specific: frozenset[str]) -> list[InputGroup]:
    """One group for each set of channels. Hosts of a special one may read the usual one, too, for its lib."""
    classes: dict[frozenset[str], list[str]] = {}
    for host, used in uses.items():
        classes.setdefault(used & specific or usual, []).append(host)
    if len(classes) < 2 or frozenset() in classes:
        return []
    return [_group(hosts, inputs, channels=True) for inputs, hosts in classes.items()]


def _by_own_inputs(uses: Uses, specific: frozenset[str]) -> list[InputGroup]:
    """Hosts that share a special input are one group; none if a host has no special input at all."""
    parts: list[tuple[set[str], list[str]]] = []
    for host, used in uses.items():
        own = set(used & specific)
        if not own:
            return []
        touching = [part for part in parts if part[0] & own]
        merged = (own.union(*(part[0] for part in touching)), [h for part in touching for h in part[1]] + [host])
        parts = [part for part in parts if part not in touching] + [merged]
    if len(parts) < 2:
        return []
    return [_group(hosts, frozenset(inputs), channels=False) for inputs, hosts in parts]


def _group(hosts: Sequence[str], inputs: frozenset[str], *, channels: bool) -> InputGroup:
    names, members = tuple(sorted(inputs)), tuple(sorted(hosts))
    kind = "are made with" if channels else "alone use"
    why = f"by evaluating them: {', '.join(members)} {kind} {', '.join(names)}"
    return InputGroup(names[0], members, names, channels, why)
