# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what can go wrong, as one small tree of exceptions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runner import RunResult

_CREDENTIALS = re.compile(r"(?<=://)[^\s/:@'\"]*:[^\s/@'\"]*(?=@)")


def masked(text: str) -> str:
    """The text with the user and password of every URL in it hidden. What runs unasked by people shows up in logs."""
    return _CREDENTIALS.sub("***", text)


class FlotillaError(Exception):
    """An expected failure: says on what, what and why, and what to do about it.

    subject: the update group, host, or file that it is about.
    what: one clause without a full stop; hint: one sentence that names the fix, or "".
    """

    def __init__(self, subject: str, what: str, hint: str = "", *, result: RunResult | None = None) -> None:
        self.subject = subject
        self.what = masked(what)
        self.hint = masked(hint)
        self.result = result
        super().__init__(str(self))

    def about(self, subject: str) -> FlotillaError:
        """The same error for another group or host."""
        return type(self)(subject, self.what, self.hint, result=self.result)

    def __str__(self) -> str:
        head = f"{self.subject}: {self.what}."
        return f"{head} {self.hint}" if self.hint else head


class BadInput(FlotillaError):
    """What the user gave cannot be used; nothing was run."""


class CommandFailed(FlotillaError):
    """A command ended with a status that is not a success; `result` holds it."""


class CommandTimeout(FlotillaError):
    """A command was still running at its time limit and was ended."""


class ConnectionLost(FlotillaError):
    """The machine could not be reached, or went away while a command ran."""


class NotAdmitted(ConnectionLost):
    """Something answers there, but one side does not trust the other: it is not away, and waiting will not mend it."""


class NixTooOld(FlotillaError):
    """The nix found is older than the minimum, or has what we need switched off."""
