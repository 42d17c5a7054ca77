# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time for an update group: real links in a real directory, with words for runs that a test knows to be over."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.claims import Claim, Claimed, Claims, holders, link_of, parse_claim
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed
from ansible_collections.flotilla.nixos.plugins.module_utils.git import Repository
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner

NOW = 1_800_000_000
OVER = {"dead"}


def claims(run: str, *, now: int = NOW, take_over: bool = False) -> Claims:
    claim = Claim(run, now, now + 3600, f"anna@{run}", "rollout")
    return Claims(LocalRunner(), claim, lambda word: word in OVER, take_over)


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return Repository(LocalRunner(), "test", str(tmp_path), str(tmp_path / "git dir"), bare=True, shallow=False)


def held(repo: Repository) -> dict[str, str]:
    found = holders(LocalRunner(), [(name, repo) for name in ("sbcs", "servers")])
    return {name: claim.run for name, claim in found.items()}


def test_the_second_is_refused_until_the_first_gives_back(repo: Repository) -> None:
    first, second = claims("one"), claims("two")
    both = [("sbcs", repo), ("servers", repo)]
    assert first.take(both) == ("sbcs", "servers")
    assert first.take(both) == ()
    with pytest.raises(Claimed) as error:
        second.take(both)
    assert str(error.value) == (
        "sbcs: anna@one has been at work on it since 2027-01-15 08:00 UTC (rollout). Wait for it (flotilla_wait), or, "
        f"if it is dead, run with flotilla_take_over=true. It holds {link_of(repo, 'sbcs')} on localhost."
    )
    second.give_back(both)
    assert held(repo) == {"sbcs": "one", "servers": "one"}
    first.give_back(both)
    assert held(repo) == {}
    assert second.take(both) == ("sbcs", "servers")


def test_all_or_none(repo: Repository) -> None:
    claims("one").take([("servers", repo)])
    with pytest.raises(Claimed):
        claims("two").take([("sbcs", repo), ("servers", repo)])
    assert held(repo) == {"servers": "one"}
    # What a run had before a failed attempt it keeps.
    claims("one").take([("sbcs", repo)])
    assert held(repo) == {"sbcs": "one", "servers": "one"}


@pytest.mark.parametrize(
    ("holder", "taker"),
    [
        ("dead", claims("two")),
        ("alive", claims("two", now=NOW + 3601)),
        ("alive", claims("two", take_over=True)),
    ],
    ids=["its run is over", "its lease is over", "taken over"],
)
def test_a_claim_left_behind_is_taken_up(repo: Repository, holder: str, taker: Claims) -> None:
    claims(holder).take([("sbcs", repo)])
    assert taker.take([("sbcs", repo)]) == ("sbcs",)
    assert held(repo) == {"sbcs": "two"}
    # Who comes back gives nothing away that is not its own.
    claims(holder).give_back([("sbcs", repo)])
    assert held(repo) == {"sbcs": "two"}


def test_a_claim_of_a_run_that_is_known_to_go_on_does_not_lapse(repo: Repository) -> None:
    claims("alive").take([("sbcs", repo)])
    late = dataclasses.replace(claims("two", now=NOW + 3601), can_tell=lambda run: run == "alive")
    with pytest.raises(Claimed):
        late.take([("sbcs", repo)])


def test_a_claim_is_read_as_it_was_written() -> None:
    claim = Claim("a-1-2", 1, 2, "anna@awx job 4711", "rollout 'x'")
    assert parse_claim(claim.to_text()) == claim
    for text in ("", "{}", "null", "[]", claim.to_text()[1:], '{"run": "a", "since": "x", "until": 1, "who": "", "what": ""}'):
        assert parse_claim(text) is None


def test_what_cannot_be_read_or_made_is_named(repo: Repository, tmp_path: Path) -> None:
    link = Path(link_of(repo, "sbcs"))
    link.parent.mkdir(parents=True)
    link.write_text("something else")
    with pytest.raises(BadInput, match="cannot be made or read"):
        claims("one").take([("sbcs", repo)])
    elsewhere = dataclasses.replace(repo, git_dir=str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed, match="could not be made"):
        claims("one").take([("sbcs", elsewhere)])
