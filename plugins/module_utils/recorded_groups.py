# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: update groups that the repository knows of, whatever the inventory says."""

from __future__ import annotations

from . import git
from .ledger_record import read


def group_without_hosts(repo: git.Repository, name: str) -> tuple[str, ...]:
    """What speaks against taking this name for a mere branch: an update group of that name was rolled out from the repository."""
    recorded = any(rollout.group == name for rollout in read(repo))
    if not recorded and ("/" in name or git.commit_of(repo, f"refs/flotilla/known-good/{name}") is None):
        return ()
    return (f"it is an update group that the ledger in {repo.path} knows, and no host of this inventory is in it",)
