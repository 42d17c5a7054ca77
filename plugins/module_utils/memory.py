# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: how many hosts one evaluator may take at a time, from the memory that the builder has free."""

from __future__ import annotations

from .runner import Runner

#: Colmena's rule (src/nix/deployment/limits.rs): MiB kept free, and MiB for each host.
_RESERVE = 1024
_PER_HOST = 512
#: Where the builder does not say what it has (macOS has no /proc).
_FALLBACK = 10

#: Prints `FILE:TEXT` for the lines of what there is: free memory, and the limit of our own cgroup, version 2 or 1.
_LOOK = """
group=$(sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null) || group=
for dir in "/sys/fs/cgroup$group" /sys/fs/cgroup; do
  grep -Hs '' "$dir/memory.max" "$dir/memory.current" && break
done
grep -Hs '' /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.usage_in_bytes
grep -Hs '^MemAvailable:' /proc/meminfo
exit 0
"""


def hosts_per_evaluator(runner: Runner) -> int:
    """The number of hosts that one evaluator can hold in the memory that is free there, at least 1."""
    free = free_memory(runner.run(["sh", "-c", _LOOK]).stdout)
    return _FALLBACK if free is None else max(1, (free - _RESERVE) // _PER_HOST)


def free_memory(report: str) -> int | None:
    """MiB that a new process may take, from what _LOOK printed; None if that says nothing."""
    value: dict[str, int] = {}
    for line in report.splitlines():
        file, _colon, text = line.partition(":")
        digits = text.removeprefix("MemAvailable:").split()[:1]
        if digits and digits[0].isdigit():
            value[file.rsplit("/", 1)[-1]] = int(digits[0])
    room = [value["meminfo"] // 1024] if "meminfo" in value else []
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        if limit in value and used in value:
            room.append((value[limit] - value[used]) // 2**20)
    return max(0, min(room)) if room else None
