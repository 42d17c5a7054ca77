# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what of a closure a target lacks, whether it has room for it, and copying it there."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from . import nix
from .errors import BadInput, CommandFailed, FlotillaError, NixTooOld
from .nix_messages import parsed
from .runner import Runner, RunResult, checked

#: Room that a copy leaves on the target's disk: this share of what is sent, for the file system and nix's database.
_OVERHEAD = 0.05
#: Seconds between two lines of progress.
_PROGRESS = 10.0
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[A-Za-z0-9+._?=-]+")


@dataclass(frozen=True, slots=True)
class Closure:
    """A system and all store paths that it needs, itself included."""

    system: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What a target is asked before a copy.

    root: name of the GC root, "" to change nothing there. mark: names our copies to this host, to find what one left over.
    user: who logs in where that is not root, "" for root. trusted: whether unsigned paths are to be taken from that user.
    limit: seconds after which the daemon of that user's own ends by itself.
    """

    closure: Closure
    root: str
    mark: str
    user: str
    trusted: bool
    limit: float


@dataclass(frozen=True, slots=True)
class Survey:
    """What a target said. missing: its paths to send. free: bytes. unit: the nix-daemon for this copy, "" if none.

    copying: the marks of other copies that there are on it.
    """

    missing: tuple[str, ...]
    free: int
    rooted: bool
    unit: str
    copying: tuple[str, ...] = ()


class WatchingRunner(Protocol):
    """A runner that can end a command which gets nowhere: the controller's."""

    @property
    def name(self) -> str:
        """The machine's name for messages."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> RunResult: ...


class Stalled(FlotillaError):
    """A copy did not get on for too long and was ended."""


def checked_system(host: str, path: str) -> str:
    """The path itself if it is a store path; BadInput otherwise."""
    if not _STORE_PATH.fullmatch(path):
        raise BadInput(host, f"{path!r} is not a store path", "Give the system that flake_build has built, /nix/store/….")
    return path


def closure_of(builder: Runner, host: str, system: str) -> Closure:
    """The system's closure as the builder has it."""
    return Closure(system, nix.requisites(builder, host, system, hint="Build it there first (flake_build).", timeout=300))


def sign(builder: Runner, host: str, system: str, key: str) -> None:
    """Sign the system's closure with the key file on the builder."""
    hint = f"Make one with `nix-store --generate-binary-cache-key NAME {key} {key}.pub`, readable for the user that builds."
    result = nix.sign(builder, system, key)
    if result.status != 0:
        raise CommandFailed(
            host, f"signing with {key} on {builder.name} failed: {parsed(result.stderr).text}", hint, result=result
        )


def survey(target: Runner, script: str, request: Request) -> Survey:
    """Ask the target what it lacks, in one round trip; make it ready for the copy, or root the system if it lacks nothing."""
    closure = request.closure
    trusted = "yes" if request.trusted else "no"
    arguments = ["survey", closure.system, request.root, request.mark, request.user, trusted, f"{request.limit:.0f}"]
    result = _ask(target, script, arguments, "".join(f"{p}\n" for p in closure.paths))
    said = _answers(checked(result, target.name, "asking for its store's paths failed").stdout)
    if said.get("uid") != ["0"]:
        raise BadInput(
            target.name,
            "commands do not run as root there, which copying a system takes",
            "Set ansible_become to true, or ansible_user to root.",
        )
    _check_nix(target.name, said.get("nix", [""])[0])
    known = frozenset(closure.paths)
    missing = tuple(path for path in said.get("missing", ()) if path in known)
    rooted, copying = said.get("rooted") == ["yes"], tuple(said.get("copying", ()))
    return Survey(missing, int(said["free"][0]), rooted, said.get("unit", [""])[0], copying)


def end(target: Runner, script: str, marks: Sequence[str]) -> None:
    """End what copies of these marks have left on the target."""
    checked(_ask(target, script, ["end", *marks]), target.name, "what an earlier copy has left there could not be ended")


def finish(target: Runner, script: str, system: str, root: str, unit: str) -> bool:
    """Root the system, end what the survey started, and say whether the system is valid there (True where root is "")."""
    result = _ask(target, script, ["finish", system, root, unit])
    said = _answers(checked(result, target.name, "making the GC root failed").stdout)
    return not root or said.get("rooted") == ["yes"]


def require_room(host: str, needed: int, free: int, keep_free: int) -> None:
    """CommandFailed with the fix where the target's disk has no room for so many bytes and keep_free more."""
    wanted = int(needed * (1 + _OVERHEAD)) + keep_free
    if wanted > free:
        raise CommandFailed(
            host,
            f"its /nix/store has {human(free)} free, and {human(wanted)} are needed for this system: {human(needed)} to copy, "
            f"{human(wanted - needed)} to keep free; nothing was sent",
            "Make room there, for instance with `nix-collect-garbage --delete-older-than 30d`, which keeps what runs.",
        )


@dataclass
class Meter:
    """How far a copy is, from nix's internal-json log; says so now and then, and raises Stalled when it gets nowhere.

    host: for messages. total: bytes to send. patience: seconds without a word. clock: seconds, monotonic.
    """

    host: str
    total: int
    patience: float
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sent: int = 0
    messages: list[str] = field(default_factory=list)
    _paths: dict[int, int] = field(default_factory=dict)
    _moved: float = 0.0
    _said: float = 0.0
    _started: float = 0.0

    def __post_init__(self) -> None:
        self._moved = self._said = self._started = self.clock()

    def line(self, text: str) -> None:
        """Take a line of the log. Any is a sign of life: a host that fetches from its own substituters takes no bytes from us."""
        self._moved = self.clock()
        if not text.startswith("@nix "):
            self._message(text)
            return
        try:
            event = json.loads(text[5:])
        except ValueError:
            return
        match event:
            case {"action": "start", "type": 100, "id": int(activity)}:
                self._paths[activity] = 0
            case {"action": "result", "type": 105, "id": int(activity), "fields": [int(done), *_]} if activity in self._paths:
                self.sent += max(0, done - self._paths[activity])
                self._paths[activity] = done
            case {"action": "msg", "msg": str(message)}:
                self._message(message)
            case _:
                pass

    def tick(self) -> None:
        """Look at the clock."""
        now = self.clock()
        if now - self._moved > self.patience:
            raise Stalled(self.host, f"the copy did not get on for {self.patience:.0f} s, after {human(self.sent)}")
        if now - self._said >= _PROGRESS:
            self._said = now
            share = f" of {human(self.total)}" if self.total else ""
            rate = human(self.sent / max(now - self._started, 1.0))
            self.say(f"{self.host}: copied {human(self.sent)}{share} ({rate}/s)")

    def _message(self, text: str) -> None:
        text = _ANSI.sub("", text)
        if not text.startswith("error (ignored):"):
            self.messages.append(text)
        del self.messages[:-200]


def copy(runner: WatchingRunner, argv: Sequence[str], env: Mapping[str, str], meter: Meter, timeout: float) -> RunResult:
    """Run the copy and watch it. The result's stderr is nix's messages as text. Raises Stalled, CommandTimeout."""
    result = runner.run(argv, timeout=timeout, env=env, on_line=meter.line, on_tick=meter.tick)
    if result.status == 127:
        what = "there is no nix on its PATH, and the closure is to go through it"
        raise NixTooOld(runner.name, what, "Install nix 2.26 or newer there, or set flotilla_copy_via to builder.", result=result)
    return replace(result, stderr="\n".join(meter.messages))


#: Pattern in nix's words → sentence and hint. ssh's own words are the glue's.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"lacks a (valid )?signature",
        "it takes only paths that are signed with a key it trusts, and these are not",
        "Sign them (flotilla_signing_key) with a key whose public half is in its nix.settings.trusted-public-keys, "
        "or copy as root without check_signatures.",
    ),
    (
        r"No space left on device|disk full",
        "its disk became full",
        "Make room there with `nix-collect-garbage --delete-older-than 30d`, which also drops what was copied by halves.",
    ),
    (
        r"command not found|nix-daemon: not found|exec: nix-daemon",
        "the nix-daemon is not on the PATH that ssh gives commands there",
        "Check that it runs NixOS, or put nix-daemon on the PATH of its ssh user.",
    ),
    (
        r"waiting for (lock|exclusive access)",
        "another process there holds the lock of a path that is to be copied",
        "Wait for the other copy to end; what a cut connection has left ends with the next run.",
    ),
    (
        r"Permission denied|not permitted|not allowed to connect|big-lock",
        "nix refused it there",
        "Set ansible_become to true, or ansible_user to root.",
    ),
)


#: What to do about words that we do not know.
UNKNOWN = "Run it again: what has arrived is not sent anew. `journalctl -b -u nix-daemon` there may say more."


def explained(result: RunResult, host: str) -> CommandFailed:
    """The error for a nix copy that failed for another reason than the connection."""
    for pattern, sentence, hint in _KNOWN:
        if re.search(pattern, result.stderr, re.IGNORECASE):
            return CommandFailed(host, f"copying to it failed: {sentence}", hint, result=result)
    return CommandFailed(host, f"copying to it failed: {parsed(result.stderr).text}", UNKNOWN, result=result)


def human(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _ask(target: Runner, script: str, arguments: Sequence[str], stdin: str | None = None) -> RunResult:
    """Run the target's script. Its text is left out of the result, which is for people."""
    result = target.run(["sh", "-c", script, "closure.sh", *arguments], stdin=stdin, timeout=300)
    return replace(result, argv=("closure.sh", *arguments))


def _check_nix(host: str, text: str) -> None:
    if text == "none":
        raise NixTooOld(host, "there is no nix on it", "A target must run NixOS, or have nix on root's PATH.")
    number = re.search(r"(\d+)\.(\d+)(?:\.\d+)?\S*\s*$", text)
    # Older ones speak the protocol too, but what they do has not been tried.
    if number and (int(number[1]), int(number[2])) < (2, 4):
        minimum = ".".join(map(str, nix.MINIMUM))
        raise NixTooOld(host, f"its nix is too old: it says {text!r}", f"Update it by hand once, to nix {minimum} or newer.")


def _answers(text: str) -> dict[str, list[str]]:
    """`KEY VALUE` lines, by key."""
    answers: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _space, value = line.partition(" ")
        answers.setdefault(key, []).append(value.strip())
    return answers
