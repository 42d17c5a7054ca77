# SPDX-License-Identifier: GPL-3.0-or-later
"""The story that docs/story.md tells: three rings, a good release, a bad one, and a board that comes late.

It is one test for each step, in the order of the file. `make story` writes the page anew, from what was typed and printed.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from integration import strategies
from integration.strategies import Site, outcomes, said
from testbed import Fleet
from testbed.playbooks import PROJECT, Ansible, Played

PAGE = PROJECT / "docs/story.md"
SOAK = 20
TITLE = """<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Written by `make story`: what stands here was typed and printed. -->
# A story: three rings, a good release, a bad one, and a board that comes late
"""


@dataclass
class Teller:
    """Plays the story, and writes down what its user would tell."""

    site: Site
    page: list[str] = field(default_factory=lambda: [TITLE])
    landed: float = 0

    def tell(self, text: str) -> None:
        """A paragraph."""
        self.page.append(f"{' '.join(text.split())}\n")

    def play(self, line: str, *, check: bool = True) -> Played:
        """A playbook, as one types it."""
        book, *arguments = shlex.split(line)
        played = self.site.play(book, *arguments, check=check)
        self.landed = time.monotonic() if played.of("system_activate") else self.landed
        typed = " ".join([f"{book}.yml", *line.split(" ")[1:]])
        self.page.append(f"```\n$ ansible-playbook {typed}\n{shortened(played.command.stdout)}\n```\n")
        return played

    def soak(self) -> None:
        """Wait until what was rolled out last has soaked."""
        time.sleep(max(0, self.landed + SOAK + 1 - time.monotonic()))

    def git(self, line: str) -> str:
        """A git command, as one types it."""
        printed = self.site.layout.home.git(*shlex.split(line))
        self.page.append(f"```\n$ git {line}\n{printed}\n```\n")
        return printed


def shortened(output: str) -> str:
    """What is left of a run when Ansible's own lines go: the plan, the result; of a failure without them its message."""
    text = output.partition("\nPLAY RECAP")[0]
    errors = re.findall(r"\[ERROR\]: Task failed: (?:Action failed: )?(.*)", text)
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if re.match(r"Rollout (plan|result)$|  host +group +", line):
            inside = True
        elif re.match(r"(PLAY|TASK) \[", line):
            inside = False
        if inside:
            kept.append(line)
    kept = kept or [f"  {line}" for line in re.findall(r"(?m)^ +- '?(.*?)'?$", text.partition(": Say what was found]")[2])]
    lines = "\n".join(["…", *kept] if kept else [f"[ERROR]: {error}" for error in errors[:1]])
    return re.sub(r"\n{3,}", "\n\n", lines).rstrip()


@pytest.fixture(scope="module")
def teller(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teller]:
    """Hosts of three rings that run upstream's first release, and whoever tells of them."""
    for site in strategies.site("group_flakes", fleet, ansible, tmp_path_factory.mktemp("story"), flotilla_soak=SOAK):
        strategies.rolls_out_first(site)
        yield Teller(site)


def test_a_release_comes_to_the_canary(teller: Teller) -> None:
    teller.tell(
        f"""A fleet in three rings, canary, early and stable, each with a flake and a lock of its own:
        [examples/group_flakes](../examples/group_flakes/). A release has to soak in a ring before the next one may have it; for a
        story that is told in a minute `flotilla_soak` is {SOAK} seconds here. Ansible's own lines are left out."""
    )
    teller.tell("## Monday: upstream releases 25.05.2")
    teller.site.release("25.05.2")
    teller.tell("The canary gets it, and nobody else:")
    before = teller.site.snapshot()
    assert outcomes(teller.play("rollout -l canary -e flotilla_update=true")) == {"canary1": "updated"}
    before.assert_only(teller.site.layout, "canary", teller.site.snapshot())


def test_it_soaks_before_the_next_ring_may_have_it(teller: Teller) -> None:
    teller.tell("Somebody is in a hurry:")
    before = teller.site.snapshot()
    refused = teller.play("promote -e from=canary -e to=early", check=False)
    assert not refused.ok
    assert "soaks until" in said(refused)
    assert teller.site.snapshot() == before
    teller.soak()
    teller.tell("A soak later:")
    before = teller.site.snapshot()
    assert outcomes(teller.play("promote -e from=canary -e to=early")) == {"early1": "updated"}
    before.assert_only(teller.site.layout, "early", teller.site.snapshot())
    assert teller.site.pinned("early") == teller.site.pinned("canary") == {"25.05.2"}


def test_a_bad_release_ends_at_the_canary(teller: Teller) -> None:
    teller.tell("## Tuesday: a bad release")
    teller.tell(
        """It builds, it activates, and every unit is well; but sshd listens on another port now, and nobody could log in any
        more. The canary's guard brings it back:"""
    )
    teller.site.release("bad-sshd-port")
    head, system = teller.site.layout.home.head(), teller.site.running("canary")
    played = teller.play("rollout -l canary -e flotilla_update=true -e flotilla_confirm_timeout=20", check=False)
    assert not played.ok
    assert outcomes(played) == {"canary1": "rolled_back"}
    assert (teller.site.layout.home.head(), teller.site.running("canary")) == (head, system)
    teller.tell("Whoever promotes from the canary now gets what it has proven, and that is what the early ring has already:")
    played = teller.play("promote -e from=canary -e to=early")
    assert outcomes(played) == {"early1": "unchanged"}
    assert teller.site.pinned("early") == {"25.05.2"}


def test_the_bad_one_is_not_promoted_and_a_board_is_away(teller: Teller) -> None:
    teller.soak()
    teller.tell("## Wednesday: the good one for everybody")
    teller.tell(
        """The bad release is nobody's to promote: what the early ring has proven is 25.05.2, and that is what stable gets. One
        of its boards, at the end of a mobile link, is away."""
    )
    teller.site.fleet.fault("stable2", "link-down")
    before = teller.site.snapshot()
    played = teller.play("promote -e from=early -e to=stable")
    assert outcomes(played) == {"stable1": "updated", "stable2": "deferred"}
    before.assert_only(teller.site.layout, "stable", teller.site.snapshot(), hosts=["stable1"])
    assert teller.site.pinned("stable") == {"25.05.2"}


def test_the_late_board_gets_what_its_ring_has_proven(teller: Teller) -> None:
    teller.soak()
    teller.tell("## Friday: the board is back")
    teller.tell("Upstream has gone on to 25.05.3, and somebody has put that into stable's lock already, not rolled out yet:")
    teller.site.release("25.05.3")
    teller.play("update -l stable -e flotilla_land=true")
    teller.site.fleet.fault("stable2", "link-up")
    teller.tell("The board gets what its ring has proven, not what is newest:")
    before = teller.site.snapshot()
    assert outcomes(teller.play("catchup")) == {"stable2": "updated"}
    before.assert_only(teller.site.layout, "stable", teller.site.snapshot(), hosts=["stable2"])
    assert teller.site.running("canary", "early", "stable") == dict.fromkeys(teller.site.layout.hosts, "25.05.2")


def test_all_of_it_stands_in_git(teller: Teller) -> None:
    teller.tell("## What is left of it")
    assert "stable2" in teller.play("status").text
    subjects = teller.git("log --reverse --format=%s")
    assert subjects.splitlines()[1:3] == [
        "canary: nixpkgs 2026-10-05 → 2026-10-19",
        "early: nixpkgs 2026-10-05 → 2026-10-19 (from canary)",
    ]
    assert "2026-11-18" not in subjects, "no branch has had the bad release"
    if os.environ.get("FLOTILLA_STORY"):
        PAGE.write_text("\n".join(teller.page))
