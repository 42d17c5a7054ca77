# SPDX-License-Identifier: GPL-3.0-or-later
"""How many hosts an evaluator may take."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.memory import free_memory

FREE = "/proc/meminfo:MemAvailable:   24371200 kB\n"


@pytest.mark.parametrize(
    ("report", "free"),
    [
        (FREE, 23800),
        (f"/sys/fs/cgroup/x/memory.max:max\n/sys/fs/cgroup/x/memory.current:1048576\n{FREE}", 23800),
        (f"/sys/fs/cgroup/x/memory.max:4294967296\n/sys/fs/cgroup/x/memory.current:1073741824\n{FREE}", 3072),
        (f"/a/memory.limit_in_bytes:2147483648\n/a/memory.usage_in_bytes:1073741824\n{FREE}", 1024),
        (f"/a/memory.limit_in_bytes:9223372036854771712\n/a/memory.usage_in_bytes:1\n{FREE}", 23800),
        (f"/a/memory.max:1024\n/a/memory.current:4096\n{FREE}", 0),
        ("", None),
        ("nonsense\n", None),
    ],
)
def test_free_memory(report: str, free: int | None) -> None:
    assert free_memory(report) == free
