# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: lines of text on commits, kept as git notes so that two writers never lose one another's.

`git notes append` sets its ref whatever that was meanwhile (git 2.39), so notes are written to a ref of our own first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from . import git, git_remote
from .errors import CommandFailed
from .runner import checked

#: What `git log --notes=flotilla` shows.
NOTES = "refs/notes/flotilla"
#: How often writing starts again because another writer was faster.
_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Note:
    """A commit's note."""

    commit: str
    text: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


def notes(repo: git.Repository, ref: str = NOTES) -> list[Note]:
    """All notes, those on commits that are gone included."""
    listed = checked(git.git(repo, "notes", f"--ref={ref}", "list"), repo.subject, "reading the ledger failed").stdout
    pairs = [line.split() for line in listed.splitlines()]
    texts = _blobs(repo, [blob for blob, _commit in pairs])
    return [Note(commit, text) for (_blob, commit), text in zip(pairs, texts, strict=True)]


def _blobs(repo: git.Repository, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    result = git.git(repo, "cat-file", "--batch", stdin="".join(f"{name}\n" for name in names))
    left = checked(result, repo.subject, "reading the ledger failed").stdout.encode("utf-8", "surrogateescape")
    texts = []
    for name in names:
        head, _newline, left = left.partition(b"\n")
        words = head.split()
        if len(words) != 3:
            raise CommandFailed(repo.subject, f"the ledger is damaged: {NOTES} names {name}, which is not there", "Run git fsck.")
        size = int(words[2])
        texts.append(left[:size].decode("utf-8", "surrogateescape"))
        left = left[size + 1 :]
    return texts


def rewrite(repo: git.Repository, wanted: Callable[[Sequence[Note]], Mapping[str, Sequence[str]]], token: str) -> bool:
    """Give commits' notes other lines, in one step for all readers. False if there was nothing to write.

    wanted: from the notes that are there to all lines of those that change, by commit; asked again when another writer was
    faster. token: a word that no other run has.
    """

    def write(ref: str) -> bool:
        lines = wanted(notes(repo, ref))
        for commit, new in lines.items():
            _set(repo, ref, commit, "".join(f"{line}\n" for line in new))
        return bool(lines)

    return _swap(repo, write, token)


def _set(repo: git.Repository, ref: str, commit: str, text: str) -> None:
    stored = git.git(repo, "hash-object", "-w", "--stdin", stdin=text)
    blob = checked(stored, repo.subject, "storing a line of the ledger failed").stdout.strip()
    words = ("notes", f"--ref={ref}", "add", "--force", "-C", blob, commit)
    checked(git.git(repo, *words, env=_identity(repo)), repo.subject, "writing the ledger failed")


def _swap(repo: git.Repository, write: Callable[[str], bool], token: str) -> bool:
    """Let `write` change a copy of the notes, and put it in their place unless these have moved: then all over again."""
    for _attempt in range(_ATTEMPTS):
        before = git.commit_of(repo, NOTES)
        with _named(repo, f"{NOTES}.{token}", before) as copy:
            if not write(copy):
                return False
            after = git.commit_of(repo, copy)
            if after == before:
                return False
            if after and git.update_ref(repo, NOTES, after, before, "flotilla: record"):
                return True
    raise CommandFailed(repo.subject, f"{NOTES} kept moving while a line was to be added", "Try again.")


@contextmanager
def _named(repo: git.Repository, ref: str, commit: str | None) -> Iterator[str]:
    """A ref of ours that names the commit (None: one that is to be made), gone afterwards."""
    _delete(repo, ref)
    if commit:
        git.update_ref(repo, ref, commit, None, "flotilla: record")
    try:
        yield ref
    finally:
        _delete(repo, ref)


def _delete(repo: git.Repository, ref: str) -> None:
    if left := git.commit_of(repo, ref):
        git.delete_ref(repo, ref, left)


def _identity(repo: git.Repository) -> dict[str, str]:
    """git's own identity, or one of ours where it has none: a record is worth more than its author's name, which it holds."""
    if git.git(repo, "var", "GIT_COMMITTER_IDENT").status == 0 and git.git(repo, "var", "GIT_AUTHOR_IDENT").status == 0:
        return {}
    return {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "flotilla"), ("EMAIL", f"flotilla@{repo.runner.name}"))
    }


def join(repo: git.Repository, remote: str, token: str) -> bool:
    """Merge the remote's notes into ours line by line, and push what comes of it. True if ours changed.

    A remote without notes gets ours. CommandFailed if the remote cannot be read or does not take them.
    """
    changed = False
    for _attempt in range(_ATTEMPTS):
        theirs = _fetched(repo, remote, token)
        if theirs:
            changed |= _swap(repo, _merger(repo, theirs), token)
        ours = git.commit_of(repo, NOTES)
        if ours is None or ours == theirs:
            return changed
        result = git_remote.push(repo, remote, ours, NOTES)
        if result.status == 0:
            return changed
        refusal = git_remote.refusal(result, git_remote.url_of(repo, remote), repo.runner.name)
        if not refusal.moved:
            raise CommandFailed(
                repo.subject,
                f"{remote} did not take the ledger: {refusal.why}. It is kept here",
                "Mend that; the next rollout pushes it, too.",
                result=result,
            )
    raise CommandFailed(repo.subject, f"{NOTES} of {remote} kept moving while it was to be pushed", "Try again.")


def absorb(repo: git.Repository, theirs: str, token: str) -> bool:
    """Merge notes that were fetched into ours, line by line, and push nothing. True if ours changed."""
    ours = git.commit_of(repo, NOTES)
    if ours is not None and git.is_ancestor(repo, theirs, ours):
        return False
    return _swap(repo, _merger(repo, theirs), token)


def _merger(repo: git.Repository, theirs: str) -> Callable[[str], bool]:
    def merge(ref: str) -> bool:
        words = ("notes", f"--ref={ref}", "merge", "--quiet", "--strategy=cat_sort_uniq", theirs)
        checked(git.git(repo, *words, env=_identity(repo)), repo.subject, "merging the remote's ledger failed")
        return True

    return merge


def _fetched(repo: git.Repository, remote: str, token: str) -> str | None:
    """The remote's notes, fetched; None if it has none."""
    ref = f"refs/flotilla/fetched/{token}"
    words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", remote, f"+{NOTES}:{ref}")
    result = git_remote.over_network(repo, *words)
    if result.status != 0 and f"couldn't find remote ref {NOTES}" in result.stderr:
        return None
    checked(result, repo.subject, f"fetching the ledger from {remote} failed", "It is kept here; the next rollout tries again.")
    commit = git.commit_of(repo, ref)
    # The objects stay for longer than we need them.
    _delete(repo, ref)
    return commit
