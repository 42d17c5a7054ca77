# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: git's command lines for bare clones of ours, also for damaged ones."""

from __future__ import annotations

import re

from .git import Repository, git
from .runner import Runner, RunResult, checked

#: Reads every commit that a ref names, with its directories.
_LOOK = ("rev-list", "--objects", "--no-walk", "--quiet", "--all")

#: Lets git open a repository whose own few files were lost.
_MEND = r"""
cd -- "$1"
git rev-parse --git-dir >/dev/null 2>&1 && exit
for file in HEAD config packed-refs; do
  [ ! -e "$file" ] || cp -p -- "$file" "$file.damaged"
done
echo 'ref: refs/heads/main' >HEAD
printf '[core]\n\trepositoryformatversion = 0\n\tbare = true\n' >config
mkdir -p refs objects
git show-ref >/dev/null 2>&1 || rm -f packed-refs
"""


def make_bare(runner: Runner, path: str) -> RunResult:
    """Make a bare repository in a directory."""
    return runner.run(["git", "init", "--quiet", "--bare", path])


def read_all(runner: Runner, path: str, timeout: float) -> RunResult:
    """Read all that the refs of a repository name, which may be damaged."""
    return runner.run(["git", "-C", path, *_LOOK], env={"LC_ALL": "C"}, timeout=timeout)


def mend(runner: Runner, path: str) -> RunResult:
    """Write the few files anew without which git takes a directory for no repository."""
    return runner.run(["sh", "-euc", _MEND, "sh", path])


def readable_refs(runner: Runner, path: str) -> tuple[list[str], list[str]]:
    """The refs of a repository, which may be damaged, and those of them that cannot be read."""
    listed = runner.run(["git", "-C", path, "for-each-ref", "--format=%(refname)"], env={"LC_ALL": "C"})
    return listed.stdout.split(), re.findall(r"broken ref (\S+)", listed.stderr)


def take_ref(repo: Repository, path: str, ref: str) -> bool:
    """Fetch a ref from another repository on the same machine into the one of that name; False if it cannot be read there."""
    return git(repo, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", path, f"+{ref}:{ref}").status == 0


def all_refs(repo: Repository) -> dict[str, str]:
    """All refs of a repository. An annotated tag's is the tag, as a remote lists it."""
    result = checked(git(repo, "for-each-ref", "--format=%(objectname) %(refname)"), repo.subject, "listing refs failed")
    pairs = (line.split(" ", 1) for line in result.stdout.splitlines())
    return {ref: name for name, ref in pairs}


def set_default_branch(repo: Repository, branch: str) -> None:
    """Have HEAD name a branch."""
    named = git(repo, "symbolic-ref", "HEAD", f"refs/heads/{branch}")
    checked(named, repo.subject, "setting the default branch failed")


def is_set(repo: Repository, key: str) -> bool:
    """Whether a setting of a repository is true."""
    return git(repo, "config", "--type=bool", "--get", key).stdout.strip() == "true"


def include_settings(repo: Repository, file: str) -> None:
    """Have git read a file beside the repository's own settings."""
    if git(repo, "config", "--local", "--no-includes", "--get", "include.path").stdout.strip() != file:
        checked(git(repo, "config", "--local", "include.path", file), repo.subject, "writing the clone's settings failed")
