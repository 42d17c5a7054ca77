# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches: the rules of Ansible's serial, for each update group by itself."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.batches import schedule, share, split
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

SIZES = st.lists(st.one_of(st.integers(0, 12), st.integers(1, 100).map(lambda n: f"{n}%")), max_size=4)
GROUPS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 15), max_size=4)


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [(1, 10, 1), ("1", 10, 1), ("25%", 10, 2), ("1%", 10, 1), ("100%", 10, 10), ("33.4%", 3, 1), (0, 7, 7), (-1, 7, 7)],
)
def test_share(size: int | str, count: int, expected: int) -> None:
    assert share(size, count) == expected


@pytest.mark.parametrize("size", ["a few", "%", "", "1.5"])
def test_a_size_that_is_none(size: str) -> None:
    with pytest.raises(BadInput, match="is not a batch size"):
        share(size, 3)


@pytest.mark.parametrize(
    ("count", "serial", "sizes"),
    [
        # As ansible-core does it: knowledge of 2.19 and 2.21.
        (10, [1, 3, "50%"], [1, 3, 5, 1]),
        (10, [1, "25%", "100%"], [1, 2, 7]),
        (3, [1, "100%"], [1, 2]),
        (1, [1, "25%", "100%"], [1]),
        (5, [2], [2, 2, 1]),
        (5, [], [5]),
        (0, [1], []),
    ],
)
def test_split(count: int, serial: list[int | str], sizes: list[int]) -> None:
    hosts = [f"h{i}" for i in range(count)]
    assert [len(batch) for batch in split(hosts, serial)] == sizes


def test_every_group_begins_with_its_own_canary() -> None:
    groups = {"servers": ["web1", "web2"], "sbcs": ["pi-1", "pi-2", "pi-3"], "desktops": ["desk1"]}
    serial = {"servers": [1, "100%"], "sbcs": [1], "desktops": [2]}
    assert schedule(groups, serial) == [["web1", "pi-1", "desk1"], ["web2", "pi-2"], ["pi-3"]]


@given(GROUPS, SIZES)
def test_every_host_is_in_one_batch_and_in_order(groups: dict[str, int], serial: list[int | str]) -> None:
    hosts = {group: [f"{group}{i}" for i in range(count)] for group, count in groups.items()}
    batches = schedule(hosts, dict.fromkeys(hosts, serial))
    flat = [host for batch in batches for host in batch]
    assert sorted(flat) == sorted(host for members in hosts.values() for host in members)
    assert all([host for host in flat if host[0] == group] == members for group, members in hosts.items())
    assert all(batches)
