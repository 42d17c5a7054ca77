# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what nix says when it fails, for people. Nothing is decided by it: wordings change with nix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import BadInput, CommandFailed, FlotillaError, NixTooOld
from .runner import RunResult

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_POSITION = re.compile(r"^\s*at (?P<file>/\S+?|«[^»]*»):(?P<line>\d+):\d+:?\s*$", re.MULTILINE)
_BLOCK = re.compile(r"^(?P<indent> *)error:(?P<first>.*)$", re.MULTILINE)
_SOURCE = re.compile(r"^/nix/store/[^/]+/")
_CODE = re.compile(r"^\s*(\d+)?\|")


class LockIncomplete(BadInput):
    """The flake.nix has inputs that its lock has not, or has none at all."""


@dataclass(frozen=True, slots=True)
class NixMessage:
    """The cause that nix names last, in one line, and the source positions: the cause's own, then those that led there.

    positions: (file, line), nearest first.
    """

    text: str
    positions: tuple[tuple[str, int], ...]

    def place(self, source: str | None, flake: str) -> str:
        """The nearest position in the flake's own source, as a path in the repository; "" if there is none.

        source: the source's store path. Where it is not known, a file of the same path as one of the flake's directory counts.
        """
        for file, line in self.positions:
            inner = _SOURCE.sub("", file)
            ours = file.startswith(f"{source}/") if source else inner != file and inner.startswith(f"{flake}/")
            if ours:
                return f"{inner}:{line}"
        return ""


def parsed(stderr: str) -> NixMessage:
    """The last `error:` block of what nix wrote. Noise such as `error (ignored): …` is none."""
    text = _ANSI.sub("", stderr)
    blocks = [block for block in _BLOCK.finditer(text) if block["first"].strip()]
    if not blocks:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return NixMessage(lines[-1] if lines else "nix said nothing", ())
    last = blocks[-1]
    tail = text[last.start() :]
    own = [(m["file"], int(m["line"])) for m in _POSITION.finditer(tail)]
    before = [(m["file"], int(m["line"])) for m in _POSITION.finditer(text[: last.start()])]
    return NixMessage(_cause(last["first"].strip(), tail), (*own, *reversed(before)))


def _cause(first: str, tail: str) -> str:
    """The block's words: its first line, and those that follow until the position or the shown source begins."""
    words = [first]
    for line in tail.splitlines()[1:]:
        if _POSITION.match(line) or _CODE.match(line) or line.lstrip().startswith(("note:", "… ")):
            break
        words.append(line.strip())
    return " ".join(" ".join(words).split())[:1000]


#: SIGKILL, as subprocess and as shells tell it.
_KILLED = (-9, 137)

#: Pattern in nix's words → kind of error, sentence, hint. For failures whose own message does not tell the user what to do.
_KNOWN: tuple[tuple[str, type[FlotillaError], str, str], ...] = (
    (
        r"experimental Nix feature '?(nix-command|flakes)'? is disabled",
        NixTooOld,
        "nix has flakes switched off there, and does not let a command switch them on",
        "Put `experimental-features = nix-command flakes` into its nix.conf.",
    ),
    (
        r"is not owned by current user|dubious ownership",
        BadInput,
        "the repository belongs to another user, and git refuses such repositories",
        "Run as its owner, or allow it: git config --global --add safe.directory REPOSITORY (its exact path).",
    ),
    (
        r"requires lock file changes",
        LockIncomplete,
        "the lock is not complete for its flake.nix: inputs were added or changed since it was written",
        "Lock it (flotilla_update=true, or `nix flake lock`) and commit the lock.",
    ),
    (
        r"does not provide attribute .*nixosConfigurations",
        BadInput,
        "the flake has no nixosConfigurations",
        "Name the flake that has them in flotilla_flake.",
    ),
    (
        r"big-lock.*Permission denied|cannot connect to (socket|daemon)|daemon-socket",
        CommandFailed,
        "nix may not use its store",
        "Run as a user that may: start nix-daemon there, or become root.",
    ),
    (
        r"creating directory .*\.cache",
        CommandFailed,
        "nix has no directory for its cache",
        "Set XDG_CACHE_HOME to one that can be written.",
    ),
    (
        r"No space left on device",
        CommandFailed,
        "the disk of the builder is full",
        "Make room there, for instance with nix-collect-garbage.",
    ),
)


def explained(result: RunResult, subject: str, what: str, hint: str = "") -> FlotillaError:
    """The error for a nix command that failed: a known cause in our words with its fix, else nix's own last words."""
    if result.status in _KILLED:
        sentence = "nix was killed, most likely because memory ran out"
        return CommandFailed(
            subject, f"{what}: {sentence}", "Give it more, or lower chunk, the hosts per evaluator.", result=result
        )
    for pattern, kind, sentence, fix in _KNOWN:
        if re.search(pattern, _ANSI.sub("", result.stderr)):
            return kind(subject, f"{what}: {sentence}", fix, result=result)
    return CommandFailed(subject, f"{what}: {parsed(result.stderr).text}", hint, result=result)
