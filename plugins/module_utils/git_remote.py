# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: git's commands that talk to another repository, and what its refusals mean.

Nothing is asked: what needs a person fails. Keys are those of the user who runs, and of that user's ssh agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import git
from .errors import CommandFailed, masked
from .runner import RunResult

#: Seconds for a fetch or a push, and for a first clone.
NETWORK = 600.0
FIRST = 3600.0
#: No window may ask either.
_SILENT = {"SSH_ASKPASS_REQUIRE": "never", "SSH_ASKPASS": ""}
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=30"
#: Whether the user has an ssh command of their own, which git prefers in this order.
_OWN_SSH = 'test -n "${GIT_SSH_COMMAND-}${GIT_SSH-}" || git -C "$1" config --get core.sshCommand'


@dataclass(frozen=True, slots=True)
class Listed:
    """What a remote has: refs by full name, and the branch that its HEAD names (None: it has no commit)."""

    refs: Mapping[str, str]
    default: str | None

    def below(self, prefix: str) -> dict[str, str]:
        """Refs below a prefix, by the rest of their names."""
        return {ref.removeprefix(prefix): commit for ref, commit in self.refs.items() if ref.startswith(prefix)}


def listed(repo: git.Repository, remote: str, patterns: Sequence[str]) -> Listed:
    """The remote's refs that match, and its default branch. CommandFailed, with why and what to do, if it does not answer."""
    result = over_network(repo, "ls-remote", "--symref", remote, "HEAD", *patterns)
    if result.status != 0:
        raise unanswered(repo, remote, result)
    refs: dict[str, str] = {}
    default = None
    for line in result.stdout.splitlines():
        what, _tab, name = line.partition("\t")
        if name == "HEAD" and what.startswith("ref: refs/heads/"):
            default = what.removeprefix("ref: refs/heads/")
        elif name.startswith("refs/") and not name.endswith("^{}"):
            refs[name] = what
    return Listed(refs, default if f"refs/heads/{default}" in refs else None)


def fetch(repo: git.Repository, remote: str, refspecs: Sequence[str], *, prune: bool = False, timeout: float = NETWORK) -> None:
    """Fetch these refs; prune: and drop ours that are not there any more. CommandFailed if the remote does not answer."""
    words = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", *(["--prune"] if prune else []), remote, *refspecs]
    result = over_network(repo, *words, timeout=timeout)
    if result.status != 0:
        raise unanswered(repo, remote, result)


def fetched(repo: git.Repository, remote: str, ref: str) -> str | None:
    """The commit that a remote's ref names, fetched; None if it is not there. CommandFailed if the remote does not answer."""
    commit = listed(repo, remote, [ref]).refs.get(ref)
    if commit is None:
        return None
    result = over_network(repo, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", remote, ref)
    if result.status != 0:
        raise unanswered(repo, remote, result)
    return git.commit_of(repo, commit)


def push(repo: git.Repository, remote: str, commit: str, ref: str) -> RunResult:
    """Push a commit to a ref of a remote, which refuses if the ref has anything that the commit has not."""
    return over_network(repo, "push", "--quiet", remote, f"{commit}:{ref}")


def over_network(repo: git.Repository, *words: str, timeout: float = NETWORK) -> RunResult:
    """Run a git command that talks to a remote and asks nobody anything."""
    own = repo.runner.run(["sh", "-c", _OWN_SSH, "sh", repo.path]).status == 0
    silent = () if own else ("-c", f"core.sshCommand={_SSH}")
    return git.git(repo, *silent, *words, env=_SILENT, timeout=timeout)


def unanswered(repo: git.Repository, remote: str, result: RunResult) -> CommandFailed:
    """The error for a remote that could not be read."""
    where = url_of(repo, remote)
    why, hint = reason(result.stderr, where, repo.runner.name)
    return CommandFailed(repo.subject, f"{masked(where)} cannot be fetched from: {why}", hint, result=result)


def url_of(repo: git.Repository, remote: str) -> str:
    """A remote's URL; the remote itself if it has none."""
    return git.git(repo, "config", "--get", f"remote.{remote}.url").stdout.rstrip("\n") or remote


@dataclass(frozen=True, slots=True)
class _Cause:
    pattern: str
    why: str
    hint: str


_CAUSES = (
    _Cause(
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one in known_hosts",
        "Check the new key's fingerprint with its owner, and forget the old one on {machine}: ssh-keygen -R {host}",
    ),
    _Cause(
        "Host key verification failed",
        "its host key is not in known_hosts",
        "Check its fingerprint, and add it on {machine}: ssh-keyscan {host} >>~/.ssh/known_hosts",
    ),
    _Cause(
        r"Permission denied \(|Too many authentication failures",
        "it lets nobody in with the ssh keys that git has there",
        "Load the key into the ssh agent of the user who runs on {machine}, or name it in that user's ~/.ssh/config.",
    ),
    _Cause(
        r"Could not resolve host|Name or service not known|[Nn]ame resolution|No address associated",
        "there is no machine of this name",
        "Correct the URL, or see to the network of {machine}.",
    ),
    _Cause(
        r"Connection (refused|timed out|reset|closed)|No route to host|Network is unreachable|Failed to connect|Couldn't connect",
        "it cannot be reached",
        "Try again when it answers.",
    ),
    _Cause(
        r"could not read (Username|Password)|terminal prompts disabled|Authentication failed|Access denied|error: 40[13]",
        "it does not let git in without a user and password, or not with these",
        "Use an ssh URL, or give git a credential helper on {machine}.",
    ),
    _Cause(
        r"does not appear to be a git repository|[Rr]epository .*not found|error: 404|does not exist",
        "there is no such repository, or it is not shown to this user",
        "Correct the URL, or have this user admitted.",
    ),
    _Cause(
        "dubious ownership",
        "it belongs to another user, whose repositories git refuses",
        "Allow it on {machine}: git config --global --add safe.directory {path}",
    ),
)
_NOISE = re.compile(
    r"Could not read from remote repository|correct access rights|and the repository exists|^(warning|hint): |^\s*$"
)
_HOST = re.compile(r"^(?:[\w+.-]+://)?(?:[^/@]*@)?(\[[^\]]+\]|[^/:]+)")


def reason(stderr: str, url: str, machine: str) -> tuple[str, str]:
    """What git's words mean, and what to do about it."""
    found = _HOST.match(url)
    values = {"host": found[1] if found else url, "machine": machine, "path": url.removeprefix("file://")}
    for cause in _CAUSES:
        if re.search(cause.pattern, stderr):
            return cause.why, cause.hint.format_map(values)
    said = [line.strip() for line in stderr.splitlines() if not _NOISE.search(line)]
    return (said[-1].removeprefix("fatal: ") if said else "git says nothing of it"), "Mend that, and try again."


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a push was refused. moved: the remote's branch has commits that ours has not, so that merging helps."""

    moved: bool
    why: str
    hint: str


#: Somebody else's push was under way.
_RACE = re.compile(r"cannot lock ref|failed to update ref|incorrect old value|reference already exists|stale info|fetch first")
_REJECTED = re.compile(r"! \[remote rejected\] .* \((?P<why>.*)\)$", re.MULTILINE)


def refusal(result: RunResult, url: str, machine: str) -> Refusal:
    """What a push that failed says."""
    text = result.stderr
    rejected = _REJECTED.search(text)
    if "[rejected]" in text or (rejected and _RACE.search(rejected["why"])):
        return Refusal(moved=True, why="its branch has moved", hint="Try again.")
    if rejected:
        said = [line.removeprefix("remote:").strip() for line in text.splitlines() if line.startswith("remote:")]
        words = "; ".join(line.removeprefix("error: ") for line in said if line and not line.startswith("error: hook declined"))
        return Refusal(
            moved=False,
            why=f"{rejected['why']}{f' ({words})' if words else ''}"[:600],
            hint="Have that allowed there, or name another branch in flotilla_branch",
        )
    why, hint = reason(text, url, machine)
    return Refusal(moved=False, why=why, hint=hint.rstrip("."))
