# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: batches, by the rules of Ansible's `serial`, but for each update group by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .errors import BadInput

#: One entry of `serial`: a number of hosts, or a percentage such as "25%".
Size = int | str


def share(size: Size, count: int) -> int:
    """How many of `count` hosts a size means.

    As Ansible does it: percentages are rounded down, and at least 1; 0 or less means all.
    """
    text = str(size).strip()
    try:
        if text.endswith("%"):
            return int(float(text[:-1]) / 100.0 * count) or 1
        number = int(text)
    except ValueError:
        raise BadInput(
            "flotilla_serial", f"{size!r} is not a batch size", 'Give numbers or percentages, as in [1, "25%", "100%"].'
        ) from None
    return number if number > 0 else max(count, 1)


def split(hosts: Sequence[str], serial: Sequence[Size]) -> list[list[str]]:
    """The hosts in batches, in order; the last size repeats until no host is left."""
    sizes = [share(size, len(hosts)) for size in serial] or [max(len(hosts), 1)]
    batches: list[list[str]] = []
    start = 0
    while start < len(hosts):
        size = sizes[min(len(batches), len(sizes) - 1)]
        batches.append(list(hosts[start : start + size]))
        start += size
    return batches


def schedule(groups: Mapping[str, Sequence[str]], serial: Mapping[str, Sequence[Size]]) -> list[list[str]]:
    """Batch i of the rollout: the i-th batch of every group, so that each group begins with its own canary. serial: by group."""
    per_group = [split(hosts, serial[group]) for group, hosts in groups.items()]
    longest = max((len(batches) for batches in per_group), default=0)
    return [[host for batches in per_group if i < len(batches) for host in batches[i]] for i in range(longest)]
