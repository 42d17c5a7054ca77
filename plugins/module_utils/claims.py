# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: one run at a time works on an update group, from its beginning to its end.

A claim is a symbolic link in the repository's git directory whose target is its text: it is made and read in one step each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from . import git
from .errors import BadInput, CommandFailed
from .runner import Runner, checked

#: How often taking starts again because a claim that was left behind had to go first.
_ATTEMPTS = 20
_HELD = 75

_TAKE = r"""
link=$1 text=$2 former=$3
mkdir -p -- "${link%/*}"
if [ -n "$former" ]; then
  # Of all who see it left behind, one takes it away; to the others it is another's by then.
  ( flock 9; [ "$(readlink -- "$link")" != "$former" ] || rm -f -- "$link" ) 9<"${link%/*}"
fi
ln -s -- "$text" "$link" 2>/dev/null || { readlink -- "$link" || :; exit 75; }
"""
_GIVE_BACK = '[ "$(readlink -- "$1")" != "$2" ] || rm -f -- "$1"'


@dataclass(frozen=True, slots=True)
class Claim:
    """Who works on a group. run: a word that no other run has; since, until: Unix seconds, `until` for those who cannot tell
    whether the run is over; who: for people; what: what it does, such as `rollout`.
    """

    run: str
    since: int
    until: int
    who: str
    what: str

    def to_text(self) -> str:
        """The link's target."""
        return json.dumps(asdict(self), sort_keys=True)

    def said(self) -> str:
        """For a message: `anna@desk has been at work on it since 10:03 UTC (rollout)`."""
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"{self.who} has been at work on it since {since} ({self.what})"


def parse_claim(text: str) -> Claim | None:
    """The claim of a link's target; None if it is not one."""
    try:
        value = json.loads(text)
        return Claim(str(value["run"]), int(value["since"]), int(value["until"]), str(value["who"]), str(value["what"]))
    except (ValueError, KeyError, TypeError):
        return None


class Claimed(BadInput):
    """Another run works on the group. link: the claim's path on the builder."""

    def __init__(self, group: str, holder: Claim, link: str, builder: str) -> None:
        hint = f"Wait for it (flotilla_wait), or, if it is dead, run with flotilla_take_over=true. It holds {link} on {builder}."
        super().__init__(group, holder.said(), hint)


def link_of(repo: git.Repository, group: str) -> str:
    """The path of a group's claim."""
    return f"{repo.git_dir}/flotilla/runs/{group}"


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims that one run takes. is_over: whether a run has ended for certain, by its word; can_tell: whether that can be
    known at all. take_over: whoever holds it.
    """

    runner: Runner
    claim: Claim
    is_over: Callable[[str], bool]
    take_over: bool = False
    can_tell: Callable[[str], bool] = lambda _run: False

    def take(self, groups: Sequence[tuple[str, git.Repository]]) -> tuple[str, ...]:
        """Take the claims on all these groups, or on none; the groups whose claim this run had not before.

        Raises Claimed for the first that another run has.
        """
        taken: list[tuple[str, git.Repository]] = []
        try:
            # Always in one order, so that two runs over the same groups do not keep each other out of both.
            for name, repo in sorted(groups, key=lambda one: (one[1].git_dir, one[0])):
                if self._take(name, repo):
                    taken.append((name, repo))
        except Exception:
            self.give_back(taken)
            raise
        return tuple(name for name, _repo in taken)

    def _take(self, group: str, repo: git.Repository) -> bool:
        link, former = link_of(repo, group), ""
        for _attempt in range(_ATTEMPTS):
            result = self.runner.run(["sh", "-euc", _TAKE, "sh", link, self.claim.to_text(), former])
            if result.status != _HELD:
                checked(result, group, f"the claim {link} could not be made", "May this user write there?")
                return True
            former = result.stdout.rstrip("\n")
            holder = parse_claim(former)
            if holder is None:
                raise BadInput(group, f"{link} on {self.runner.name} cannot be made or read", "Look at it, and remove it.")
            if holder.run == self.claim.run:
                return False
            if not (self.take_over or self.is_over(holder.run) or self._has_lapsed(holder)):
                raise Claimed(group, holder, link, self.runner.name)
        raise CommandFailed(group, f"the claim {link} kept changing hands", "Try again.")

    def _has_lapsed(self, holder: Claim) -> bool:
        return holder.until < self.claim.since and not self.can_tell(holder.run)

    def give_back(self, groups: Iterable[tuple[str, git.Repository]]) -> None:
        """Give up the claims of this run on the groups; others stay."""
        for name, repo in groups:
            link = link_of(repo, name)
            held = self.runner.run(["readlink", "--", link]).stdout.rstrip("\n")
            holder = parse_claim(held)
            if holder is not None and holder.run == self.claim.run:
                self.runner.run(["sh", "-euc", _GIVE_BACK, "sh", link, held])


def holders(runner: Runner, groups: Iterable[tuple[str, git.Repository]]) -> dict[str, Claim]:
    """Who has which group, without taking anything."""
    found = {}
    for name, repo in groups:
        claim = parse_claim(runner.run(["readlink", "--", link_of(repo, name)]).stdout)
        if claim is not None:
            found[name] = claim
    return found
