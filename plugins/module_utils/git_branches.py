# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: git's command lines about branches, and about what refs have named before. See git.py."""

from __future__ import annotations

from .git import Repository, git
from .runner import checked


def branches(repo: Repository) -> list[str]:
    """The short names of the repository's branches."""
    listed = git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads")
    return checked(listed, repo.subject, "listing branches failed").stdout.split()


def named_before(repo: Repository, ref: str) -> list[str]:
    """The commits that a ref names and, as far as its reflog goes, has named before; none if it is not there."""
    result = git(repo, "log", "--walk-reflogs", "--format=%H", ref, "--")
    return result.stdout.split() if result.status == 0 else []


def related(repo: Repository, one: str, other: str) -> bool:
    """Whether two commits have any history in common."""
    return git(repo, "merge-base", one, other).status == 0


def subjects_between(repo: Repository, old: str, new: str) -> list[str]:
    """Short id and subject of each commit that `new` has and `old` has not, newest first."""
    result = git(repo, "log", "--format=%h %s", f"{old}..{new}", "--")
    return checked(result, repo.subject, f"reading the history of {new} failed").stdout.splitlines()
