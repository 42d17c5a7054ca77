# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: nix's command lines that lock inputs. They write to a file of ours, never to the flake.

Facts hold for nix 2.26 to 2.34 unless said otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .errors import BadInput, CommandFailed, FlotillaError
from .lockfile import Node
from .nix import nix_argv
from .nix_messages import explained, parsed
from .runner import Runner, RunResult

#: Seconds for nix to ask upstream and fetch new sources: nixpkgs on a slow line.
LOCKING = 1800.0
#: An upstream that does not answer is no failure to nix (status 0) if it has an older answer; only its words tell.
_STALE = re.compile(
    r"using cached version|could not update (local clone|mirror)|continuing with the most recent version"
    r"|^fatal: |Failed to fetch git repository",
    re.MULTILINE,
)


def update(
    runner: Runner,
    subject: str,
    flake: str,
    inputs: Sequence[str],
    *,
    reference: str | None,
    output: str,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Lock a flake with the newest revisions of the inputs (none named: of all) and write the lock to the path `output`.

    reference: path of the lock to start from. Nix takes unknown names for a success: check them before.
    """
    argv = nix_argv("flake", "update", *inputs, "--flake", flake, *_files(reference, output))
    _locked(runner.run(argv, timeout=LOCKING, on_line=on_line), subject)


def lock(
    runner: Runner,
    subject: str,
    flake: str,
    overrides: Mapping[str, str],
    *,
    reference: str | None,
    output: str,
    offline: bool = False,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Lock a flake with some inputs at given flake references, the others as in `reference`; write the lock to `output`.

    offline: without asking any upstream.
    """
    words = [word for name, ref in overrides.items() for word in ("--override-input", name, ref)]
    words += ["--offline"] if offline else []
    argv = nix_argv("flake", "lock", flake, *words, *_files(reference, output))
    _locked(runner.run(argv, timeout=LOCKING, on_line=on_line), subject)


def is_complete(runner: Runner, subject: str, flake: str, reference: str, *, offline: bool = False) -> bool:
    """Whether the lock in the file `reference` is complete and consistent for the flake as it is.

    Fetches no input if it is; if one is missing, nix asks its upstream before it says so. offline: fail then.
    """
    words = ["--offline"] if offline else []
    argv = nix_argv("flake", "lock", flake, "--no-update-lock-file", *words, *_files(reference, None))
    result = runner.run(argv, timeout=LOCKING)
    if result.status == 0:
        return True
    if "requires lock file changes" in result.stderr:
        return False
    raise explained(result, subject, "checking the lock failed")


def _files(reference: str | None, output: str | None) -> list[str]:
    words = ["--reference-lock-file", reference] if reference else []
    words += ["--output-lock-file", output] if output else []
    # Nix refuses such files where nix.conf says allow-dirty = false, even for a commit.
    return [*words, "--option", "allow-dirty", "true"]


def _locked(result: RunResult, subject: str) -> None:
    if result.status != 0:
        raise _failure(result, subject)
    if stale := _STALE.search(result.stderr):
        line = next(line for line in result.stderr.splitlines() if stale.group().strip() in line)
        raise CommandFailed(
            subject,
            f"an input's upstream did not answer, and nix went on with what it had cached: {line.strip()}",
            "Try again when it answers; nothing was changed.",
            result=result,
        )
    if "unlocked input" in result.stderr:
        raise BadInput(
            subject,
            f"an input cannot be locked, because it is a local tree with uncommitted changes: {parsed(result.stderr).text}",
            "Commit them, or name a revision.",
        )


#: What nix and git say when it is the upstream's or the network's doing.
_UPSTREAM = re.compile(r"unable to (download|connect|access)|resolve host|remote ref|revspec|HTTP error|^fatal: ", re.MULTILINE)
_STORE = re.compile(r"^/nix/store/[^/]+/")


def _failure(result: RunResult, subject: str) -> FlotillaError:
    """Nix's own last words; git's where git failed below it, and the place where flake.nix is wrong."""
    if git := re.search(r"^fatal: (.*)$", result.stderr, re.MULTILINE):
        return CommandFailed(subject, f"locking the inputs failed: {git[1]}", _REACHABLE, result=result)
    if _UPSTREAM.search(result.stderr):
        return explained(result, subject, "locking the inputs failed", _REACHABLE)
    place = next((f" at {_STORE.sub('', file)}:{line}" for file, line in parsed(result.stderr).positions), "")
    return explained(result, subject, f"locking the inputs failed{place}")


_REACHABLE = "Can the builder reach every input's upstream, and has it what flake.nix names?"


#: Types of flake references that can be given at a revision, beside git.
_FORGES = ("github", "gitlab", "sourcehut")
_GIT_OPTIONS = ("dir", "submodules", "shallow", "lfs", "allRefs", "exportIgnore")
_REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def pinned(subject: str, name: str, node: Node, wanted: str) -> str:
    """The flake reference of an input at a revision, branch or tag; a whole flake reference stands for itself.

    node: the input as it is locked now. BadInput if `wanted` cannot be used, or the input's type has no revisions.
    """
    if not wanted or wanted.startswith("-") or not wanted.isprintable() or " " in wanted:
        raise BadInput(subject, f"{wanted!r} is no revision of input {name}", "Give a full revision, a branch or a tag.")
    if ":" in wanted:
        return wanted
    source = next((ref for ref in (node.original, node.locked) if ref.get("type") in (*_FORGES, "git")), None)
    if source is None:
        kind = node.original.get("type", "path")
        raise BadInput(
            subject,
            f"input {name} comes from a {kind}, which has no revisions to choose from",
            "Give a whole flake reference, such as github:OWNER/REPOSITORY/REVISION.",
        )
    if source["type"] == "git" and re.fullmatch(r"[0-9a-f]{7,39}", wanted):
        raise BadInput(subject, f"{wanted!r} is a part of a revision, and git gives no input {name} by it", "Give all 40 digits.")
    where = {key: value for key, value in source.items() if key not in ("rev", "ref", "narHash", "lastModified", "revCount")}
    if not _REVISION.fullmatch(wanted):
        return reference({**where, "ref": wanted})
    # With git, nix looks for the revision on a branch, and writes that branch into the lock.
    ref = node.original.get("ref") or node.locked.get("ref")
    return reference({**where, "rev": wanted, **({"ref": ref} if ref and source["type"] == "git" else {})})


def reference(ref: Mapping[str, Any]) -> str:
    """A flake reference of a forge or of git as a URL, from its attributes."""
    if ref["type"] in _FORGES:
        path = f"{ref['type']}:{quote(str(ref['owner']), safe='~%')}/{quote(str(ref['repo']), safe='~%')}"
        # A forge takes one of the two.
        at = f"/{ref['rev']}" if ref.get("rev") else ""
        query = {} if at or not ref.get("ref") else {"ref": ref["ref"]}
        query |= {key: ref[key] for key in ("host", "dir") if ref.get(key)}
        return path + at + _query("?", query)
    url = str(ref["url"])
    query = {key: ref[key] for key in ("ref", "rev", *_GIT_OPTIONS) if ref.get(key) not in (None, "")}
    return f"git+{url}" + _query("&" if "?" in url else "?", query)


def _query(start: str, query: Mapping[str, Any]) -> str:
    values = {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in query.items()}
    return start + "&".join(f"{key}={quote(value, safe='/')}" for key, value in values.items()) if values else ""


def shared_reference(node: Node) -> str | None:
    """The flake reference by which another lock gets the same revision without asking upstream; None for types that cannot."""
    locked, original = node.locked, node.original
    if locked.get("type") not in (*_FORGES, "git") or original.get("type") != locked.get("type") or not locked.get("rev"):
        return None
    return reference(locked)
