# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: git's command lines that look at branches and whole trees, or make trees of several files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .git import Repository, git
from .runner import checked


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch and its commit. remote: it is a remote's, as this repository last saw it (the name is without the remote's)."""

    name: str
    commit: str
    remote: str | None = None


@dataclass(frozen=True, slots=True)
class Tracked:
    """What a commit has at a path. kind: blob, or commit for a submodule; mode 120000 is a symbolic link."""

    mode: str
    kind: str
    object: str


def branches(repo: Repository) -> tuple[Branch, ...]:
    """The local branches, then those of remotes of which there is no local one."""
    words = ("--format=%(refname)%09%(objectname)%09%(symref)", "refs/heads", "refs/remotes")
    listed = checked(git(repo, "for-each-ref", *words), repo.subject, "listing branches failed").stdout
    found: dict[str, Branch] = {}
    for line in listed.splitlines():
        ref, commit, symbolic = line.split("\t")
        _refs, kind, rest = ref.split("/", 2)
        remote, _slash, name = rest.partition("/") if kind == "remotes" else ("", "", rest)
        if not symbolic and name:
            found.setdefault(name, Branch(name, commit, remote or None))
    return tuple(found.values())


def tracked(repo: Repository, commit: str) -> dict[str, Tracked]:
    """All files (and submodules) of a commit by path."""
    listed = checked(git(repo, "ls-tree", "-r", "-z", commit), repo.subject, f"reading commit {commit} failed").stdout
    found = {}
    for line in filter(None, listed.split("\0")):
        facts, path = line.split("\t", 1)
        mode, kind, name = facts.split()
        found[path] = Tracked(mode, kind, name)
    return found


def remotes(repo: Repository) -> dict[str, str]:
    """The repository's remotes by name, with the URL that is fetched."""
    listed = git(repo, "config", "--get-regexp", r"^remote\..*\.url$").stdout
    pairs = (line.split(" ", 1) for line in listed.splitlines() if " " in line)
    return {key.removeprefix("remote.").removesuffix(".url"): url for key, url in pairs}


def changed_tree(repo: Repository, base: str, files: Mapping[str, str | None], scratch: str) -> str:
    """The tree of `base` with these files replaced or added, or (None) without them.

    scratch: a directory on the runner's machine for the temporary index.
    """
    env = {"GIT_INDEX_FILE": f"{scratch}/tree-index"}
    checked(git(repo, "read-tree", base, env=env), repo.subject, f"reading {base} failed")
    lines = [f"{_entry(repo, text)}\t{path}" for path, text in files.items()]
    given = "".join(f"{line}\0" for line in lines)
    checked(git(repo, "update-index", "-z", "--index-info", stdin=given, env=env), repo.subject, "adding the files failed")
    return checked(git(repo, "write-tree", env=env), repo.subject, "writing the tree failed").stdout.strip()


def _entry(repo: Repository, text: str | None) -> str:
    if text is None:
        return f"0 {'0' * 40}"
    blob = checked(git(repo, "hash-object", "-w", "--stdin", stdin=text), repo.subject, "storing a file failed").stdout.strip()
    return f"100644 {blob}"
