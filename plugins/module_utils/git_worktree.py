# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: git's command lines that see a work tree with changes that were not made yet, and that make them.

The user's own index is read by a copy, until the changes are made.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .errors import BadInput, CommandFailed
from .git import Repository, commit_of, commit_tree, current_branch, git, update_ref
from .runner import Runner, checked

_NOBODY = {f"GIT_{who}_{what}": "flotilla" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
_ADDING = 300.0


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of a work tree: files with new text, files and directories that move (from → to), and files that go."""

    texts: Mapping[str, str] = field(default_factory=dict)
    moves: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.texts or self.moves or self.removed)

    @property
    def paths(self) -> tuple[str, ...]:
        """Everything that they touch."""
        return (*self.texts, *self.moves, *self.moves.values(), *self.removed)


def make_repository(runner: Runner, path: str) -> None:
    """Make a directory, if need be, and a git repository in it."""
    result = runner.run(["sh", "-euc", 'mkdir -p -- "$1"; git -C "$1" init --quiet', "sh", path], env={"LC_ALL": "C"})
    checked(result, path, "no git repository could be made there", "May this user write there?")


def tree_with_changes(repo: Repository, changes: Changes, scratch: str, *, base: str | None) -> str:
    """The tree that the changes would give, in the objects alone.

    base: a commit, on which they are made; None: on the work tree's tracked files as they are.
    """
    index = f"{scratch}/tree-index"
    env = {"GIT_INDEX_FILE": index}
    if base is not None:
        checked(git(repo, "read-tree", base, env=env), repo.subject, f"reading {base} failed")
    else:
        _copy_index(repo, index)
        result = git(repo, "add", "--update", "--", ":/", env=env, timeout=_ADDING)
        checked(result, repo.subject, "reading the work tree failed")
    moved = _moved_entries(_entries(repo, (*changes.moves, *changes.removed), env), changes)
    added = [f"100644 {_blob(repo, text)}\t{path}" for path, text in changes.texts.items()]
    _update_index(repo, [*moved, *added], env)
    return checked(git(repo, "write-tree", env=env), repo.subject, "writing the tree failed").stdout.strip()


def nameless_commit(repo: Repository, tree: str) -> str:
    """A commit of a tree for nix to look at, which no ref names; git's garbage collection takes it."""
    head = commit_of(repo, "HEAD")
    words = ["commit-tree", tree, "-m", "What a work tree would be", *(["-p", head] if head else [])]
    return checked(git(repo, *words, env=_NOBODY), repo.subject, "making a commit failed").stdout.strip()


def _copy_index(repo: Repository, to: str) -> None:
    script = 'if [ -e "$1" ]; then cp -- "$1" "$2"; else rm -f -- "$2"; fi'
    path = git(repo, "rev-parse", "--path-format=absolute", "--git-path", "index").stdout.strip()
    checked(repo.runner.run(["sh", "-euc", script, "sh", path, to]), repo.subject, "the index cannot be read")


def _entries(repo: Repository, paths: Sequence[str], env: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """What an index has of some paths: (mode and object, path)."""
    if not paths:
        return []
    listed = checked(git(repo, "ls-files", "--stage", "-z", "--", *paths, env=env), repo.subject, "reading the index failed")
    found = []
    for line in filter(None, listed.stdout.split("\0")):
        facts, path = line.split("\t", 1)
        mode, blob, _stage = facts.split()
        found.append((f"{mode} {blob}", path))
    return found


def _moved_entries(entries: Iterable[tuple[str, str]], changes: Changes) -> list[str]:
    lines = []
    for facts, path in entries:
        lines.append(f"0 {'0' * 40}\t{path}")
        to = moved_path(path, changes.moves)
        lines += [f"{facts}\t{to}"] if to != path else []
    return lines


def moved_path(path: str, moves: Mapping[str, str]) -> str:
    """Where a file is after the moves of files and directories."""
    for old, new in moves.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path.removeprefix(old)
    return path


def _blob(repo: Repository, text: str) -> str:
    result = git(repo, "hash-object", "-w", "--stdin", stdin=text)
    return checked(result, repo.subject, "storing a file failed").stdout.strip()


def _update_index(repo: Repository, lines: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    if lines:
        result = git(repo, "update-index", "-z", "--index-info", stdin="".join(f"{line}\0" for line in lines), env=env)
        checked(result, repo.subject, "changing the index failed", "Is another git at work there? Then try again.")


#: Arguments: the top, then paths. Prints for each what is there (none, file, directory, other, or link with the link's own path).
_KINDS = r"""
cd -- "$1"; shift
for path; do
  way=
  kind=none
  rest=$path/
  while [ -n "$rest" ]; do
    way=$way${rest%%/*}
    rest=${rest#*/}
    if [ -L "$way" ]; then kind="link $way"; break; fi
    way=$way/
  done
  if [ "$kind" = none ]; then
    if [ -f "$path" ]; then kind=file; elif [ -d "$path" ]; then kind=directory; elif [ -e "$path" ]; then kind=other; fi
  fi
  printf '%s\0' "$kind"
done
"""


def kinds(repo: Repository, paths: Sequence[str]) -> dict[str, str]:
    """What a work tree has at each path: none, file, directory, other; or `link X` if X, on the way there, is a symbolic link."""
    if not paths:
        return {}
    result = repo.runner.run(["sh", "-euc", _KINDS, "sh", repo.path, *paths])
    found = checked(result, repo.subject, f"{repo.path} cannot be read").stdout.split("\0")
    return dict(zip(paths, found, strict=False))


def texts_of(repo: Repository, paths: Sequence[str]) -> dict[str, str]:
    """The text of each of these files of the work tree."""
    if not paths:
        return {}
    script = 'cd -- "$1"; shift; for path; do cat -- "$path"; printf "\\0"; done'
    result = repo.runner.run(["sh", "-euc", script, "sh", repo.path, *paths])
    return dict(zip(paths, checked(result, repo.subject, "reading files failed").stdout.split("\0"), strict=False))


def tracked(repo: Repository, *patterns: str) -> tuple[str, ...]:
    """The files of the index that match one of git's pathspecs."""
    listed = checked(git(repo, "ls-files", "-z", "--", *patterns), repo.subject, "reading the index failed").stdout
    return tuple(filter(None, listed.split("\0")))


def files_seen(repo: Repository, *patterns: str) -> tuple[str, ...]:
    """The files of the work tree that match, tracked or not, but not those that git ignores or that are gone."""
    words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", *patterns)
    listed = checked(git(repo, *words), repo.subject, "listing files failed").stdout
    gone = git(repo, "ls-files", "-z", "--deleted", "--", *patterns).stdout.split("\0")
    return tuple(path for path in filter(None, listed.split("\0")) if path not in gone)


def tracked_below(repo: Repository, directory: str) -> tuple[str, ...]:
    """The files in a directory of the work tree, and below it, that git has in its index."""
    return tuple(filter(None, git(repo, "ls-files", "-z", "--", f"{directory}/").stdout.split("\0")))


def is_committed(repo: Repository, path: str) -> bool:
    """Whether what a file has now is in the commit that is checked out, at its path or another."""
    name = git(repo, "hash-object", "--", path).stdout.strip()
    return bool(name) and f" {name}\t" in git(repo, "ls-tree", "-r", "HEAD").stdout


def ignored(repo: Repository, paths: Sequence[str]) -> tuple[str, ...]:
    """Those of the paths that git ignores and does not track."""
    found = git(repo, "check-ignore", "-z", "--stdin", stdin="".join(f"{path}\0" for path in paths)).stdout
    return tuple(filter(None, found.split("\0")))


#: Prints the first place, of those that are written to, where this user may not write.
_WRITABLE = r"""
cd -- "$1"; shift
for path; do
  case $path in */*) place=${path%/*} ;; *) place=. ;; esac
  while [ ! -e "$place" ]; do
    case $place in */*) place=${place%/*} ;; *) place=. ;; esac
  done
  [ -w "$place" ] || { printf '%s' "$place"; exit 0; }
  [ ! -f "$path" ] || [ -w "$path" ] || { printf '%s' "$path"; exit 0; }
done
"""


def require_writable(repo: Repository, changes: Changes) -> None:
    """BadInput if this user may not write where the changes are made."""
    result = repo.runner.run(["sh", "-euc", _WRITABLE, "sh", repo.path, *changes.paths])
    place = checked(result, repo.subject, f"{repo.path} cannot be read").stdout
    if place:
        what = f"{place} cannot be written by this user on {repo.runner.name}"
        raise BadInput(repo.subject, what, "Nothing was changed. Make it writable.")


#: Writes stdin beside its target first, so that a file is never half there.
_STAGE = r"""
cd -- "$1"
made=
case $2 in
*/*)
  directory=${2%/*}
  while [ ! -d "$directory" ]; do
    made="$directory
$made"
    case $directory in */*) directory=${directory%/*} ;; *) break ;; esac
  done
  mkdir -p -- "${2%/*}"
  ;;
esac
printf '%s' "$made"
if [ -e "$2" ]; then cp -p -- "$2" "$3"; fi
cat >"$3"
"""


def apply(repo: Repository, changes: Changes) -> None:
    """Make the changes in the work tree, all or none, and tell git of new files, so that nix sees them.

    New files are added as by `git add --intent-to-add`; moves and removals are in the index, as by git mv and git rm.
    """
    staged: dict[str, str] = {}
    made: list[str] = []
    try:
        for path, text in changes.texts.items():
            temporary = posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.flotilla")
            staged[path] = temporary
            made += _staged(repo, path, temporary, text)
        _require_movable(repo, changes)
    except BaseException:
        _unstage(repo, list(staged.values()), made)
        raise
    _move(repo, changes, staged)
    index = _moved_entries(_entries(repo, (*changes.moves, *changes.removed)), changes)
    _update_index(repo, index)
    if changes.texts:
        result = git(repo, "add", "--intent-to-add", "--", *changes.texts)
        checked(result, repo.subject, "telling git of the new files failed", "Add them: git add --intent-to-add")


def _staged(repo: Repository, path: str, temporary: str, text: str) -> list[str]:
    """Write a file's new text beside it; the directories that were made for it, innermost last."""
    result = repo.runner.run(["sh", "-euc", _STAGE, "sh", repo.path, path, temporary], stdin=text)
    if result.status != 0:
        why = result.stderr.strip().splitlines()
        raise BadInput(
            repo.subject,
            f"{path} cannot be written in {repo.path}: {why[-1] if why else 'no reason given'}",
            "Nothing was changed. Make its directory writable for this user.",
        )
    return result.stdout.splitlines()


def _require_movable(repo: Repository, changes: Changes) -> None:
    """BadInput if a directory that loses or gains a file cannot be written."""
    script = 'cd -- "$1"; shift; for d; do [ ! -d "$d" ] || { t=$(mktemp -p "$d" .flotilla.XXXXXX) && rm -f -- "$t"; }; done'
    paths = (*changes.moves, *changes.moves.values(), *changes.removed)
    directories = sorted({posixpath.dirname(path) or "." for path in paths})
    result = repo.runner.run(["sh", "-euc", script, "sh", repo.path, *directories])
    if result.status != 0:
        raise BadInput(
            repo.subject,
            f"files cannot be moved in {repo.path}: {result.stderr.strip()}",
            "Nothing was changed. Make the directory writable for this user.",
        )


def _unstage(repo: Repository, files: Sequence[str], directories: Sequence[str]) -> None:
    repo.runner.run(["sh", "-uc", 'cd -- "$1" && shift && rm -f -- "$@"', "sh", repo.path, *files])
    for directory in sorted(directories, reverse=True):
        repo.runner.run(["sh", "-uc", 'cd -- "$1" && rmdir -- "$2"', "sh", repo.path, directory])


def _move(repo: Repository, changes: Changes, staged: Mapping[str, str]) -> None:
    lines = [f"mkdir {posixpath.dirname(new) or '.'}\nmove {old}\n{new}" for old, new in changes.moves.items()]
    lines += [f"move {temporary}\n{path}" for path, temporary in staged.items()]
    lines += [f"remove {path}" for path in changes.removed]
    result = repo.runner.run(["sh", "-euc", _MOVE, "sh", repo.path], stdin="".join(f"{line}\n" for line in lines))
    checked(result, repo.subject, "changing the work tree failed halfway", "Look at `git status` there.")


_MOVE = r"""
cd -- "$1"
while IFS= read -r line; do
  case $line in
  "mkdir "*) mkdir -p -- "${line#mkdir }" ;;
  "move "*) IFS= read -r to; mv -f -- "${line#move }" "$to" ;;
  "remove "*)
    rm -f -- "${line#remove }"
    case $line in */*) path=${line#remove }; rmdir --parents --ignore-fail-on-non-empty -- "${path%/*}" ;; esac
    ;;
  esac
done
"""


def commit_changes(repo: Repository, changes: Changes, message: str, scratch: str) -> str:
    """Commit these changes alone, on top of HEAD; whatever else is staged stays staged. The work tree has them already."""
    head = commit_of(repo, "HEAD")
    tree = tree_with_changes(repo, changes, scratch, base=head) if head else _first_tree(repo, changes, scratch)
    made = commit_tree(repo, tree, [head] if head else [], message)
    branch = current_branch(repo)
    if not update_ref(repo, f"refs/heads/{branch}" if branch else "HEAD", made, head, "flotilla: layout"):
        raise CommandFailed(repo.subject, "another commit was made meanwhile", "Commit by hand: git commit.")
    if changes.texts:
        checked(git(repo, "add", "--", *changes.texts), repo.subject, "bringing the index up to date failed")
    return made


def _first_tree(repo: Repository, changes: Changes, scratch: str) -> str:
    env = {"GIT_INDEX_FILE": f"{scratch}/first-index"}
    checked(git(repo, "read-tree", "--empty", env=env), repo.subject, "making an index failed")
    _update_index(repo, [f"100644 {_blob(repo, text)}\t{path}" for path, text in changes.texts.items()], env)
    return checked(git(repo, "write-tree", env=env), repo.subject, "writing the tree failed").stdout.strip()


def under_way(repo: Repository) -> str | None:
    """What git is in the middle of there (a merge, a rebase, …), if anything."""
    marks = {"MERGE_HEAD": "a merge", "CHERRY_PICK_HEAD": "a cherry-pick", "REVERT_HEAD": "a revert"}
    for ref, what in marks.items():
        if git(repo, "rev-parse", "--verify", "--quiet", ref).status == 0:
            return what
    script = 'cd -- "$1"; [ -d "$(git rev-parse --git-path rebase-merge)" ] || [ -d "$(git rev-parse --git-path rebase-apply)" ]'
    return "a rebase" if repo.runner.run(["sh", "-uc", script, "sh", repo.path]).status == 0 else None
