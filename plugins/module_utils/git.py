# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: git's command lines, one function per verb. Facts hold for git 2.38 and newer.

Objects and refs are made by plumbing: the user's index and work tree are touched by `fast_forward` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import BadInput, CommandFailed
from .runner import QUICK, Runner, RunResult, checked

MINIMUM = (2, 38)
_ENV = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
#: For update-ref: the ref must not be there yet.
_ZERO = "0" * 40


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository on a runner's machine, and the update group that messages are about.

    path: top of the work tree, or the bare repository. git_dir: what its work trees share.
    """

    runner: Runner
    subject: str
    path: str
    git_dir: str
    bare: bool
    shallow: bool


@dataclass(frozen=True, slots=True)
class DirtyFile:
    """A file that differs from what is checked out. state: untracked, ignored, conflicted, or changed (staged or not)."""

    path: str
    state: str


def git(
    repo: Repository,
    *words: str,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = QUICK,
    cwd: str | None = None,
) -> RunResult:
    """Run a git command in the repository (cwd: another work tree of it) and return whatever it ends with."""
    argv = ["git", "-C", cwd or repo.path, *words]
    return repo.runner.run(argv, stdin=stdin, env={**_ENV, **(env or {})}, timeout=timeout)


def _out(result: RunResult, repo: Repository, what: str) -> str:
    return checked(result, repo.subject, what).stdout.rstrip("\n")


def require_git(runner: Runner) -> None:
    """BadInput with the fix if there is no git that is new enough: `merge-tree --write-tree` came with 2.38."""
    result = runner.run(["git", "--version"])
    found = re.search(r"(\d+)\.(\d+)", result.stdout)
    if result.status != 0 or not found:
        raise BadInput(runner.name, "there is no git on the PATH that commands get there", "Install git 2.38 or newer.")
    if (int(found[1]), int(found[2])) < MINIMUM:
        raise BadInput(
            runner.name,
            f"its git is too old: it says {result.stdout.strip()!r}, and {'.'.join(map(str, MINIMUM))} is the oldest that works",
            "Install a newer git, or name another builder in flotilla_builder.",
        )


def open_repository(runner: Runner, path: str, subject: str) -> Repository:
    """The repository at a path; BadInput with the fix if there is none, or git refuses it because of its owner."""
    facts = ("--is-bare-repository", "--is-shallow-repository", "--path-format=absolute", "--git-common-dir")
    result = runner.run(["git", "-C", path, "rev-parse", *facts], env=_ENV)
    if result.status != 0:
        raise _unusable(result, runner, path, subject)
    bare, shallow, git_dir = result.stdout.splitlines()[:3]
    top = git_dir
    if bare != "true":
        top = runner.run(["git", "-C", path, "rev-parse", "--show-toplevel"], env=_ENV).stdout.rstrip("\n")
    return Repository(runner, subject, top or path, git_dir, bare == "true", shallow == "true")


def _unusable(result: RunResult, runner: Runner, path: str, subject: str) -> Exception:
    if result.status == 127:
        return BadInput(subject, f"there is no git on {runner.name}", "Install git there.")
    if "dubious ownership" in result.stderr:
        return BadInput(
            subject,
            f"the repository {path} belongs to another user, and git and nix refuse such repositories",
            f"Run as its owner, or allow it: git config --global --add safe.directory {path}",
        )
    if "not a git repository" in result.stderr or "cannot change to" in result.stderr:
        return BadInput(
            subject, f"{path} on {runner.name} is not a git repository", "Name the fleet's repository in flotilla_repo."
        )
    return CommandFailed(subject, f"git cannot use {path}: {result.stderr.strip()}", result=result)


def require_identity(repo: Repository) -> None:
    """BadInput if git does not know in whose name to commit there."""
    if git(repo, "var", "GIT_COMMITTER_IDENT").status != 0 or git(repo, "var", "GIT_AUTHOR_IDENT").status != 0:
        raise BadInput(
            repo.subject,
            f"git on {repo.runner.name} does not know in whose name to commit",
            "Set it there: git config --global user.name NAME; git config --global user.email ADDRESS",
        )


def current_branch(repo: Repository) -> str | None:
    """The branch that HEAD names; None for a detached HEAD."""
    result = git(repo, "symbolic-ref", "--quiet", "--short", "HEAD")
    return result.stdout.rstrip("\n") if result.status == 0 else None


def commit_of(repo: Repository, revision: str) -> str | None:
    """The commit that a ref or revision names; None if there is none."""
    result = git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return result.stdout.rstrip("\n") if result.status == 0 else None


def branch_head(repo: Repository, branch: str | None) -> str:
    """The commit of a branch (None: of HEAD); BadInput that names the branches there are if there is no such."""
    if commit := commit_of(repo, f"refs/heads/{branch}" if branch else "HEAD"):
        return commit
    there = _out(git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads"), repo, "listing branches failed").split()
    if branch is None or not there:
        raise BadInput(repo.subject, f"the repository {repo.path} has no commit yet", "Commit the fleet's files first.")
    raise BadInput(
        repo.subject,
        f"the repository {repo.path} has no branch {branch!r}",
        f"It has {', '.join(there)}. Make the branch, or name another in flotilla_branch.",
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a commit."""

    mode: str
    blob: str


def entries(repo: Repository, commit: str, paths: Sequence[str]) -> dict[str, Entry]:
    """Those of the paths that are files in a commit."""
    listed = _out(git(repo, "ls-tree", "-z", commit, "--", *paths), repo, f"reading commit {commit} failed")
    found = {}
    for line in filter(None, listed.split("\0")):
        facts, path = line.split("\t", 1)
        mode, kind, blob = facts.split()
        if kind == "blob":
            found[path] = Entry(mode, blob)
    return found


def files(repo: Repository, commit: str) -> tuple[str, ...]:
    """The paths of all files of a commit."""
    listed = _out(git(repo, "ls-tree", "-r", "-z", "--name-only", commit), repo, f"reading commit {commit} failed")
    return tuple(filter(None, listed.split("\0")))


def flake_dirs(repo: Repository, commit: str) -> tuple[str, ...]:
    """Directories of a commit that have a flake.nix."""
    return tuple(p.rpartition("/")[0] or "." for p in files(repo, commit) if p.rpartition("/")[2] == "flake.nix")


def submodules(repo: Repository, commit: str) -> tuple[str, ...]:
    """Paths of a commit that are other repositories."""
    listed = _out(git(repo, "ls-tree", "-r", "-z", commit), repo, f"reading commit {commit} failed")
    return tuple(line.partition("\t")[2] for line in listed.split("\0") if line.startswith("160000 "))


def show(repo: Repository, blob: str) -> str:
    """A blob's text."""
    return checked(git(repo, "cat-file", "blob", blob), repo.subject, f"reading {blob} failed").stdout


def dirty_files(
    repo: Repository, paths: Sequence[str] = (), *, worktree: str | None = None, ignored: bool = False
) -> tuple[DirtyFile, ...]:
    """Files of a work tree that differ from what is checked out, of all or of some paths; ignored: those that git ignores too."""
    words = ["--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", *(["--ignored=matching"] if ignored else [])]
    result = git(repo, "status", *words, "--", *paths, cwd=worktree)
    listed = checked(result, repo.subject, "looking for uncommitted changes failed").stdout
    return tuple(DirtyFile(line[3:], _state(line[:2])) for line in listed.split("\0") if line)


_STATES = {"??": "untracked", "!!": "ignored"}


def _state(code: str) -> str:
    if code in _STATES:
        return _STATES[code]
    return "conflicted" if "U" in code or code in ("AA", "DD") else "changed"


def is_tracked(repo: Repository, path: str) -> bool:
    """Whether the index has the file, so that nix sees it in the work tree."""
    return git(repo, "ls-files", "--error-unmatch", "--", path).status == 0


def status_of(repo: Repository, path: str) -> str:
    """The two letters that `git status` has for a file: ?? untracked, !! ignored; none if nothing is to be said."""
    return git(repo, "status", "--porcelain=v1", "--ignored", "--untracked-files=all", "--", path).stdout[:2]


def tree_with_files(repo: Repository, base: str, files: Mapping[str, str], scratch: str) -> str:
    """The tree of `base` (a commit or tree) with files (path → text) replaced or added.

    scratch: a directory on the runner's machine for the temporary index.
    """
    blobs = {text: _stored(repo, text) for text in dict.fromkeys(files.values())}
    env = {"GIT_INDEX_FILE": f"{scratch}/index"}
    checked(git(repo, "read-tree", base, env=env), repo.subject, f"reading {base} failed")
    listed = "".join(f"100644 {blobs[text]}\t{path}\n" for path, text in files.items())
    added = git(repo, "update-index", "--index-info", stdin=listed, env=env)
    checked(added, repo.subject, "adding the lock failed")
    return _out(git(repo, "write-tree", env=env), repo, "writing the tree failed")


def _stored(repo: Repository, text: str) -> str:
    return _out(git(repo, "hash-object", "-w", "--stdin", stdin=text), repo, "storing the lock failed")


def commit_tree(repo: Repository, tree: str, parents: Sequence[str], message: str) -> str:
    """A new commit of a tree, which no ref names yet. Signed if git is told to sign commits, which commit-tree ignores."""
    words = [word for parent in parents for word in ("-p", parent)]
    words += ["-S"] if _config(repo, "commit.gpgSign", "--type=bool") == "true" else []
    return _out(git(repo, "commit-tree", tree, *words, "-F", "-", stdin=message), repo, "making the commit failed")


def tree_of(repo: Repository, commit: str) -> str:
    """The tree of a commit."""
    return _out(git(repo, "rev-parse", "--verify", f"{commit}^{{tree}}"), repo, f"reading commit {commit} failed")


def parents_of(repo: Repository, commit: str) -> tuple[str, ...]:
    """The parents of a commit."""
    return tuple(_out(git(repo, "rev-parse", f"{commit}^@"), repo, f"reading commit {commit} failed").split())


def subject_of(repo: Repository, commit: str) -> str:
    """The first line of a commit's message."""
    return _out(git(repo, "show", "--no-patch", "--format=%s", commit), repo, f"reading commit {commit} failed")


def changed_paths(repo: Repository, old: str, new: str) -> tuple[str, ...]:
    """Files that differ between two commits."""
    listed = _out(git(repo, "diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new), repo, "comparing commits failed")
    return tuple(filter(None, listed.split("\0")))


def is_ancestor(repo: Repository, old: str, new: str) -> bool:
    """Whether the history of `new` holds `old`, which may be `new` itself."""
    result = git(repo, "merge-base", "--is-ancestor", old, new)
    if result.status not in (0, 1):
        checked(result, repo.subject, "comparing histories failed")
    return result.status == 0


def merge_base(repo: Repository, one: str, two: str) -> str:
    """The best common ancestor of two commits."""
    return _out(git(repo, "merge-base", one, two), repo, f"commits {one} and {two} have no history in common")


@dataclass(frozen=True, slots=True)
class Merge:
    """What a merge gives: its tree, and the paths in conflict (with none, the tree is good)."""

    tree: str
    conflicts: tuple[str, ...]


def merge_tree(repo: Repository, ours: str, theirs: str) -> Merge:
    """Merge two commits without a work tree."""
    result = git(repo, "merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs)
    if result.status not in (0, 1):
        checked(result, repo.subject, "merging failed")
    tree, *conflicts = filter(None, result.stdout.split("\0"))
    return Merge(tree.strip(), tuple(conflicts))


def update_ref(repo: Repository, ref: str, new: str, old: str | None, why: str, *, log: bool = False) -> bool:
    """Compare and swap: let a ref name `new` if it names `old` (None: if it is not there). False if it does not.

    log: have git remember what the ref named before, as it does by itself for branches only.
    """
    result = git(repo, "update-ref", *(["--create-reflog"] if log else []), "-m", why, ref, new, old or _ZERO)
    if result.status != 0 and not re.search(r"cannot lock ref|but expected|reference already exists", result.stderr):
        checked(result, repo.subject, f"writing {ref} failed")
    return result.status == 0


def delete_ref(repo: Repository, ref: str, old: str) -> None:
    """Delete a ref if it still names `old`."""
    result = git(repo, "update-ref", "-d", ref, old)
    if result.status != 0 and commit_of(repo, ref) == old:
        checked(result, repo.subject, f"deleting {ref} failed")


def worktree_of(repo: Repository, branch: str | None) -> str | None:
    """The work tree that has a branch checked out (None: the repository's own, whatever it has); None if none has."""
    if branch is None:
        return None if repo.bare else repo.path
    listed = _out(git(repo, "worktree", "list", "--porcelain", "-z"), repo, "listing work trees failed")
    for record in listed.split("\0\0"):
        facts = dict(line.partition(" ")[::2] for line in record.split("\0") if line)
        # One whose directory was removed by hand is listed as prunable.
        if facts.get("branch") == f"refs/heads/{branch}" and "prunable" not in facts:
            return facts["worktree"]
    return None


#: What git keeps while something is under way, and the command for it.
_UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}
_LOOK_UNDER_WAY = r"""
cd -- "$1"; shift
for name; do
  path=$(git rev-parse --git-path "$name")
  if [ -e "$path" ]; then echo "$name"; cat "$path/head-name" 2>/dev/null || git symbolic-ref --quiet HEAD || :; exit; fi
done
"""


def under_way(repo: Repository, branch: str | None) -> tuple[str, str] | None:
    """The command that was begun and not finished on a branch (None: in the repository's own work tree), and the work tree."""
    if repo.bare and branch is None:
        return None
    listed = _out(git(repo, "worktree", "list", "--porcelain", "-z"), repo, "listing work trees failed").split("\0")
    found = (line.removeprefix("worktree ") for line in listed if line.startswith("worktree ")) if branch else (repo.path,)
    for worktree in found:
        words = ("sh", "-euc", _LOOK_UNDER_WAY, "sh", worktree, *_UNDER_WAY)
        name, _newline, on = repo.runner.run(words, env=_ENV).stdout.rstrip("\n").partition("\n")
        if name and (branch is None or on == f"refs/heads/{branch}"):
            return _UNDER_WAY[name], worktree
    return None


def require_settled(repo: Repository, branch: str | None) -> None:
    """BadInput with the fix while a merge, rebase or the like of the branch is under way."""
    if begun := under_way(repo, branch):
        verb, worktree = begun
        raise BadInput(
            repo.subject,
            f"a {verb} is under way in {worktree}, which nobody has finished",
            f"Finish it there (git {verb} --continue), or drop it (git {verb} --abort).",
        )


def fast_forward(repo: Repository, worktree: str, commit: str) -> RunResult:
    """Bring a work tree's branch, index and files to a commit on top of it; git refuses if that would lose local changes."""
    words = ("-c", "merge.autoStash=false", "merge", "--ff-only", "--no-stat", "--quiet", commit)
    return git(repo, *words, cwd=worktree)


def push_target(repo: Repository, branch: str) -> tuple[str, str]:
    """The remote that a branch is pushed to and the ref there, as git itself would choose."""
    tracked = _config(repo, f"branch.{branch}.remote")
    remote = _config(repo, f"branch.{branch}.pushRemote") or _config(repo, "remote.pushDefault") or tracked or "origin"
    merge = _config(repo, f"branch.{branch}.merge")
    return remote, merge if merge and remote == tracked else f"refs/heads/{branch}"


def _config(repo: Repository, key: str, *options: str) -> str:
    return git(repo, "config", *options, "--get", key).stdout.rstrip("\n")
