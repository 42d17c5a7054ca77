# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: nix's internal-json log as typed events, and what a build has come to so far.

The numbers are those of nix's src/libutil/logging.hh, the same in 2.8 to 2.34.
"""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

_PREFIX = "@nix "
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_DRV = re.compile(r"/nix/store/[0-9a-z]{32}-[A-Za-z0-9+._?=-]+\.drv")
_COPY_PATH, _COPIES, _BUILDS, _BUILD = 100, 103, 104, 105
_LOG_LINE, _PROGRESS = 101, 105
_LOG_KEPT = 25


@dataclass(frozen=True, slots=True)
class BuildStarted:
    """A derivation's builder was started. activity: by which later events name it."""

    activity: int
    drv: str


@dataclass(frozen=True, slots=True)
class CountOpened:
    """An activity begins whose Progress counts these (others count bytes)."""

    activity: int
    of: Literal["builds", "fetches"]


@dataclass(frozen=True, slots=True)
class PathCopied:
    """A store path is being fetched."""

    activity: int
    path: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """A builder wrote a line."""

    activity: int
    text: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """What was started has ended, well or not."""

    activity: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The numbers of those done, wanted, under way, and failed."""

    activity: int
    done: int
    expected: int
    running: int
    failed: int


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error that nix prints, without colours."""

    text: str


Event = BuildStarted | CountOpened | PathCopied | LogLine | Stopped | Progress | ErrorMessage


def parse_line(line: str) -> Event | None:
    """The event in a line of the log; None for those that we have no use for, and for lines of another kind."""
    if not line.startswith(_PREFIX):
        return None
    try:
        return _event(json.loads(line.removeprefix(_PREFIX)))
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _event(entry: dict[str, Any]) -> Event | None:
    match entry["action"], entry.get("type"), entry.get("fields", []):
        case "start", kind, [str(what), *_] if kind == _BUILD:
            return BuildStarted(entry["id"], what)
        case "start", kind, [str(what), *_] if kind == _COPY_PATH:
            return PathCopied(entry["id"], what)
        case "start", kind, _ if kind == _BUILDS:
            return CountOpened(entry["id"], "builds")
        case "start", kind, _ if kind == _COPIES:
            return CountOpened(entry["id"], "fetches")
        case "result", kind, [str(text)] if kind == _LOG_LINE:
            return LogLine(entry["id"], _ANSI.sub("", text))
        case "result", kind, [int(done), int(expected), int(running), int(failed)] if kind == _PROGRESS:
            return Progress(entry["id"], done, expected, running, failed)
        case "stop", _, _:
            return Stopped(entry["id"])
        case "msg", _, _ if entry.get("level") == 0:
            return ErrorMessage(_ANSI.sub("", entry["msg"]).removeprefix("error:").strip())
    return None


def name_of(path: str) -> str:
    """The name in a store path, for people: `/nix/store/…-linux-6.12.drv` gives `linux-6.12`."""
    base = path.rsplit("/", 1)[-1]
    return (base.split("-", 1)[1] if "-" in base else base).removesuffix(".drv")


@dataclass(slots=True)
class BuildLog:
    """What a build has come to, from the lines fed to it.

    started: every derivation of which a builder was started, with the last lines that it wrote. errors: nix's own messages.
    """

    started: dict[str, deque[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    _running: dict[int, str] = field(default_factory=dict)
    _fetching: dict[int, str] = field(default_factory=dict)
    _counts: dict[int, tuple[str, int, int]] = field(default_factory=dict)

    def feed(self, line: str) -> Event | None:
        """Take a line in, and give back the event in it."""
        event = parse_line(line)
        match event:
            case BuildStarted(activity, drv):
                self._running[activity] = drv
                self.started.setdefault(drv, deque(maxlen=_LOG_KEPT))
            case CountOpened(activity, of):
                self._counts[activity] = (of, 0, 0)
            case PathCopied(activity, path):
                self._fetching[activity] = path
            case LogLine(activity, text) if activity in self._running:
                self.started[self._running[activity]].append(text)
            case Stopped(activity):
                self._running.pop(activity, None)
                self._fetching.pop(activity, None)
            case Progress(activity, done, expected) if activity in self._counts:
                self._counts[activity] = (self._counts[activity][0], done, expected)
            case ErrorMessage(text):
                self.errors.append(text)
        return event

    def count(self, of: Literal["builds", "fetches"]) -> tuple[int, int]:
        """The number of those done, and of those that there are to do in all."""
        counts = ((done, expected) for kind, done, expected in self._counts.values() if kind == of)
        return max(counts, key=lambda pair: pair[1], default=(0, 0))

    @property
    def running(self) -> tuple[str, ...]:
        """The derivations being built now."""
        return tuple(self._running.values())

    @property
    def fetching(self) -> tuple[str, ...]:
        """The store paths being fetched now."""
        return tuple(self._fetching.values())

    def blamed(self) -> frozenset[str]:
        """The derivations that nix's errors name."""
        return frozenset(drv for text in self.errors for drv in _DRV.findall(text))

    def error_about(self, drv: str) -> str:
        """The first error that names the derivation, its first line; "" if none does."""
        return next((text.splitlines()[0] for text in self.errors if drv in text), "")
