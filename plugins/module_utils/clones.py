# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: bare clones of ours, for groups whose repository is a URL.

Their branches are ours to land on, so a fetch only ever brings them forward; what the remote has stands in refs/remotes/origin.
A clone is made aside and moved into place when it is whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from . import git, git_clone, git_remote
from .builder_files import held, write_file
from .errors import BadInput, CommandFailed, FlotillaError, masked
from .git_notes import NOTES, absorb
from .git_remote import Listed
from .runner import Runner, checked

ORIGIN = "origin"
_TRACKED = "refs/remotes/origin/"
_HEADS = "refs/heads/"
_KNOWN_GOOD = "refs/flotilla/known-good/"
#: What the remote has of ours, beside its branches.
_THEIR_NOTES = "refs/flotilla/origin/notes"
_THEIR_KNOWN_GOOD = "refs/flotilla/origin/known-good/"
_GLOBS = {_HEADS: _TRACKED, "refs/tags/": "refs/tags/", _KNOWN_GOOD: _THEIR_KNOWN_GOOD}
#: Names a clone as one of ours, and has its URL: beside git's own config, so that it can be written without showing it.
_MARK = "flotilla.config"
#: Refs that every fetch makes anew.
_NOT_OURS = ("refs/flotilla/origin/", "refs/flotilla/fetched/")
#: Seconds to wait for another run that is cloning.
_PATIENCE = 900

_SCHEMES = ("https", "http", "ssh", "git", "file")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s/\"\\]*/[^\s\"\\]+)")
#: As scp has it.
_SHORT = re.compile(r"(?:[\w.+-]+@)?(?P<host>[\w.][\w.-]*):(?!:)(?P<path>[^\s\"\\]+)")
#: What nix takes for a flake on a forge.
_FLAKE_URL = re.compile(r"(github|gitlab|sourcehut|flake|path|tarball|git):")


def is_url(repo: str) -> bool:
    """Whether a repository's name is a URL (also short: host:path) and no path."""
    return "://" in repo or (":" in repo.partition("/")[0])


def checked_url(url: str) -> str:
    """The URL itself if git can clone from it; BadInput otherwise."""
    match = _URL.fullmatch(url)
    short = None if "://" in url else _SHORT.fullmatch(url)
    if (match and match["scheme"] in _SCHEMES and not match["rest"].startswith("-")) or (short and not _FLAKE_URL.match(url)):
        return url
    raise BadInput(
        f"repository {masked(url)!r}",
        "this is not a URL that git clones from",
        "Give https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH or file:///PATH.",
    )


def clone_path(url: str, folder: str) -> str:
    """Where the clone of a URL is: the same for all who write it with or without `.git`, or with another password."""
    plain = re.sub(r"(?<=://)[^/@]*@", "", url) if url.startswith("http") else masked(url)
    plain = plain.rstrip("/").removesuffix(".git")
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", re.split(r"[/:]", plain)[-1]).lstrip("-.") or "repository"
    return f"{folder.rstrip('/')}/{name}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}.git"


def is_clone(repo: git.Repository) -> bool:
    """Whether this is a clone of ours, so that landing in it is nothing without a push."""
    return git_clone.is_set(repo, "flotilla.clone")


def give_known_good(repo: git.Repository, remote: str, group: str, *, anew: bool) -> None:
    """Push a group's known-good ref; anew: although nothing says that the remote has another. CommandFailed if it is refused."""
    ref, theirs = f"{_KNOWN_GOOD}{group}", f"{_THEIR_KNOWN_GOOD}{group}"
    commit, known = git.commit_of(repo, ref), git.commit_of(repo, theirs)
    if commit is None or commit == known or not (anew or is_clone(repo)):
        return
    # The ledger says which is right, on either side: it may go back.
    result = git_remote.push(repo, remote, f"+{commit}", ref)
    if result.status != 0:
        why = git_remote.refusal(result, git_remote.url_of(repo, remote), repo.runner.name).why
        raise CommandFailed(repo.subject, f"{remote} did not take {ref}: {why}", "It is kept here.", result=result)
    if is_clone(repo):
        git.update_ref(repo, theirs, commit, known, "flotilla: push")


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone that is up to date. default: its default branch. moved: what was fetched, in words.

    parted: for each guarded branch that cannot be brought forward, the error. warnings: for the user.
    """

    repo: git.Repository
    default: str | None
    created: bool = False
    moved: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    parted: Mapping[str, FlotillaError] = field(default_factory=dict)


def refresh(
    runner: Runner,
    url: str,
    path: str,
    owner: str,
    *,
    subject: str,
    token: str,
    guarded: Collection[str | None],
    offline: bool = False,
) -> Clone:
    """Make the clone, or fetch what is new.

    guarded: branches that update groups are on (None: the default one), which follow no rewritten history. offline: do not
    fetch. token: a word that no other run has. CommandFailed if the remote does not answer: then the clone is as it was.
    """
    with held(runner, subject, f"{path}.busy", owner, patience=_PATIENCE):
        back = _brought_back(runner, path, subject)
        state = _state(runner, path, subject)
        if state is not _State.WHOLE and offline:
            what = "there is no clone of" if state is _State.NONE else "there is but a damaged clone of"
            raise BadInput(subject, f"{what} {masked(url)}", "Run once without flotilla_offline.")
        if state is not _State.WHOLE:
            repo, there, warnings = _made(runner, url, path, subject, token, damaged=state is _State.DAMAGED)
            return _Fetch(repo, there, git_clone.all_refs(repo), token, guarded).clone(created=True, warnings=(*back, *warnings))
        repo = git.open_repository(runner, path, subject)
        _set_url(repo, url)
        if offline:
            said = f"{subject}: {masked(url)} was not fetched from."
            return Clone(repo, git.current_branch(repo), warnings=(*back, said))
        before = git_clone.all_refs(repo)
        there = git_remote.listed(repo, ORIGIN, _patterns())
        if _wanted(there) != _kept(before):
            git_remote.fetch(repo, ORIGIN, _refspecs(there), prune=True)
        return _Fetch(repo, there, before, token, guarded).clone(warnings=back)


def _patterns() -> list[str]:
    return [*(f"{prefix}*" for prefix in _GLOBS), NOTES]


def _refspecs(there: Listed) -> list[str]:
    notes = [f"+{NOTES}:{_THEIR_NOTES}"] if NOTES in there.refs else []
    return [*(f"+{theirs}*:{ours}*" for theirs, ours in _GLOBS.items()), *notes]


def _wanted(there: Listed) -> dict[str, str]:
    """What a fetch would make of the remote's refs."""
    wanted = {ours + name: commit for theirs, ours in _GLOBS.items() for name, commit in there.below(theirs).items()}
    return wanted | ({_THEIR_NOTES: there.refs[NOTES]} if NOTES in there.refs else {})


def _kept(refs: Mapping[str, str]) -> dict[str, str]:
    mine = (*_GLOBS.values(), _THEIR_NOTES)
    return {ref: commit for ref, commit in refs.items() if ref.startswith(mine)}


# -- the clone itself ---------------------------------------------------------------------------------------------------


class _State(StrEnum):
    """What there is where a clone should be."""

    NONE = "none"
    WHOLE = "whole"
    DAMAGED = "damaged"


def _state(runner: Runner, path: str, subject: str) -> _State:
    there = runner.run(["sh", "-c", 'test -e "$1" || exit 3; test -e "$1/$2"', "sh", path, _MARK]).status
    if there == 3:
        return _State.NONE
    if there != 0:
        raise BadInput(subject, f"{path} is in the way: it is no clone of ours", "Move it away, or set flotilla_clones.")
    looked = git_clone.read_all(runner, path, git_remote.NETWORK)
    if "dubious ownership" in looked.stderr:
        # That error has its own words.
        git.open_repository(runner, path, subject)
    bad = looked.status != 0 or re.search(r"^(error|fatal):|broken ref", looked.stderr, re.MULTILINE)
    return _State.DAMAGED if bad else _State.WHOLE


#: Gives a clone that was put aside its place back, where no new one has got there. Prints where it was.
_BRING_BACK = r"""
[ ! -e "$1" ] || exit 0
old=$(ls -1tcd -- "$1".damaged.* 2>/dev/null | head -n 1)
[ -n "$old" ] || exit 0
mv -- "$old" "$1"
printf '%s' "$old"
"""


def _brought_back(runner: Runner, path: str, subject: str) -> tuple[str, ...]:
    """Have the clone that a killed run was replacing in its place again: only it may have commits. What to say of it."""
    done = runner.run(["sh", "-euc", _BRING_BACK, "sh", path])
    old = checked(done, subject, f"the damaged clone of {path} cannot be moved back").stdout
    return (f"{subject}: a run was killed while it replaced the clone {path}; {old} was moved back there.",) if old else ()


def _made(
    runner: Runner, url: str, path: str, subject: str, token: str, *, damaged: bool
) -> tuple[git.Repository, Listed, tuple[str, ...]]:
    """A new clone, whole before it has its name; what a killed run left of one is removed. damaged: in place of one."""
    runner.run(["sh", "-c", 'rm -rf -- "$1".new.*', "sh", path])
    made = runner.run(["mktemp", "-d", f"{path}.new.XXXXXXXX"])
    aside = checked(made, subject, f"there is no place for a clone at {path}").stdout.strip()
    try:
        checked(git_clone.make_bare(runner, aside), subject, f"making a clone at {path} failed")
        repo = git.open_repository(runner, aside, subject)
        _set_url(repo, url)
        there = git_remote.listed(repo, ORIGIN, _patterns())
        git_remote.fetch(repo, ORIGIN, _refspecs(there), timeout=git_remote.FIRST)
        lost = _salvaged(repo, path) if damaged else ()
        old = f"{path}.damaged.{token}"
        checked(runner.run(["sh", "-euc", _REPLACE, "sh", aside, path, old]), subject, f"making a clone at {path} failed")
    finally:
        runner.run(["rm", "-rf", "--", aside])
    left = f", but for {', '.join(lost)}, which cannot be read there" if lost else ""
    warning = (
        f"{subject}: the clone {path} was damaged, and was made anew with all that only it had{left}. "
        f"The damaged one is {old}; remove it when you need nothing of it."
    )
    return git.open_repository(runner, path, subject), there, (warning,) if damaged else ()


#: Puts a new clone in the place of a damaged one. Killed between the two, it leaves what _BRING_BACK looks for.
_REPLACE = 'if [ -e "$2" ]; then mv -- "$2" "$3"; fi; mv -- "$1" "$2"'


def _salvaged(repo: git.Repository, path: str) -> tuple[str, ...]:
    """Take over the commits and refs that only a damaged clone may have; those that cannot be read there."""
    checked(git_clone.mend(repo.runner, path), repo.subject, f"the damaged clone {path} cannot be read")
    refs, lost = git_clone.readable_refs(repo.runner, path)
    for ref in refs:
        if ref == NOTES or (ref.startswith((_HEADS, "refs/flotilla/")) and not ref.startswith(_NOT_OURS)):
            lost += [] if git_clone.take_ref(repo, path, ref) else [ref]
    return tuple(lost)


def _set_url(repo: git.Repository, url: str) -> None:
    """Write the clone's settings. Not by git's command line, where everybody on the machine could read a password."""
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    text = (
        "[flotilla]\n\tclone = true\n[core]\n\tlogAllRefUpdates = always\n"
        f'[remote "{ORIGIN}"]\n\turl = "{quoted}"\n\tfetch = +{_HEADS}*:{_TRACKED}*\n'
    )
    write_file(repo.runner, repo.subject, f"{repo.git_dir}/{_MARK}", text)
    git_clone.include_settings(repo, _MARK)


# -- its refs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fetch:
    """What was fetched on its way into our own refs. before: all refs, before the fetch."""

    repo: git.Repository
    there: Listed
    before: Mapping[str, str]
    token: str
    guarded: Collection[str | None]

    def clone(self, *, created: bool = False, warnings: Sequence[str] = ()) -> Clone:
        """Bring our branches, notes and known-good forward."""
        default = self.there.default
        if default is None:
            url = masked(git_remote.url_of(self.repo, ORIGIN))
            raise BadInput(self.repo.subject, f"{url} has no commit on its default branch yet", "Push the fleet's files first.")
        if git.current_branch(self.repo) != default:
            git_clone.set_default_branch(self.repo, default)
        moved: list[str] = []
        said = list(warnings)
        parted: dict[str, FlotillaError] = {}
        guarded = {branch or default for branch in self.guarded}
        heads = self.there.below(_HEADS)
        ours = {ref.removeprefix(_HEADS): commit for ref, commit in self.before.items() if ref.startswith(_HEADS)}
        # Those that are gone first: they may be in the way of new ones (`a` and `a/b`).
        for name in sorted(ours.keys() - heads.keys()):
            self._gone(name, ours[name], name in guarded, moved, parted)
        for name, theirs in heads.items():
            if (mine := ours.get(name)) != theirs:
                self._forward(name, mine, theirs, name in guarded, moved, said, parted)
        moved += self._ledger()
        return Clone(self.repo, default, created, tuple(moved), tuple(said), parted)

    def _gone(self, name: str, mine: str, guarded: bool, moved: list[str], parted: dict[str, FlotillaError]) -> None:
        if guarded:
            parted[name] = BadInput(
                self.repo.subject,
                f"branch {name} is gone from {self._url()}; the clone still has it at {mine[:12]}",
                f"Name another in flotilla_branch, or push it again: git -C {self.repo.path} push origin {name}",
            )
        elif self.before.get(f"{_TRACKED}{name}") == mine:
            self._keep(name, mine)
            git.delete_ref(self.repo, f"{_HEADS}{name}", mine)
            moved.append(f"{name} is gone")

    def _forward(
        self,
        name: str,
        mine: str | None,
        theirs: str,
        guarded: bool,
        moved: list[str],
        warnings: list[str],
        parted: dict[str, FlotillaError],
    ) -> None:
        """Bring one branch to the remote's commit, if that loses nothing."""
        if mine is None or git.is_ancestor(self.repo, mine, theirs):
            self._move(name, mine, theirs, moved)
        elif git.is_ancestor(self.repo, theirs, mine):
            warnings.append(
                f"{self.repo.subject}: branch {name} of the clone has commits that {self._url()} has not; they were kept. "
                f"Push them: git -C {self.repo.path} push origin {name}"
            )
        elif not guarded and self.before.get(f"{_TRACKED}{name}") == mine:
            self._keep(name, mine)
            self._move(name, mine, theirs, moved)
        else:
            parted[name] = BadInput(
                self.repo.subject,
                f"branch {name} of {self._url()} has no longer the commit {mine[:12]}, which the clone has: "
                f"it was force-pushed, or that commit never arrived there",
                f"Take theirs: git -C {self.repo.path} update-ref refs/heads/{name} {_TRACKED}{name}",
            )

    def _move(self, name: str, mine: str | None, theirs: str, moved: list[str]) -> None:
        if git.update_ref(self.repo, f"{_HEADS}{name}", theirs, mine, "flotilla: fetch"):
            moved.append(f"{name} {f'{mine[:12]} → ' if mine else ''}{theirs[:12]}")

    def _keep(self, name: str, commit: str) -> None:
        """Have a ref name what a branch that others took back had."""
        ref = f"refs/flotilla/gone/{name.replace('/', '+')}"
        git.update_ref(self.repo, ref, commit, git.commit_of(self.repo, ref), "flotilla: taken back upstream", log=True)

    def _ledger(self) -> list[str]:
        """Take over the remote's notes, and those known-good commits that we have none for."""
        moved = []
        theirs = self.there.refs.get(NOTES)
        if theirs and absorb(self.repo, theirs, self.token):
            moved.append("the ledger")
        for group, commit in self.there.below(_KNOWN_GOOD).items():
            ref = f"{_KNOWN_GOOD}{group}"
            if ref not in self.before and git.update_ref(self.repo, ref, commit, None, "flotilla: fetch"):
                moved.append(f"known-good of {group}")
        return moved

    def _url(self) -> str:
        return masked(git_remote.url_of(self.repo, ORIGIN))
