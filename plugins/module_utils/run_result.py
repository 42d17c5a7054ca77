# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the end of a rollout for a machine to read."""

from __future__ import annotations

from typing import Any

from .conclusion import Conclusion
from .gate import Plan


def result_of(plan: Plan, end: Conclusion) -> dict[str, Any]:
    """What became of every group and host, as plain values."""
    judged = {result.group: result for result in end.results}
    return {
        "groups": {
            name: {
                "commit": group.commit,
                "candidate": group.candidate,
                "branch": group.branch,
                "halted": name in judged and judged[name].halted,
                "reason": judged[name].reason if name in judged else group.error,
                "landing": end.landed.get(name, ""),
            }
            for name, group in plan.groups.items()
        },
        "hosts": {
            host.name: {
                "group": host.group,
                "outcome": str(end.outcomes[host.name].outcome),
                "reason": end.outcomes[host.name].reason,
                "system": host.system,
                "previous": host.previous,
            }
            for host in plan.hosts.values()
        },
        "failed": dict(end.bad),
    }
