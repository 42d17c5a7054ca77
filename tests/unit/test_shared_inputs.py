# SPDX-License-Identifier: GPL-3.0-or-later
"""Which inputs an update of one group moves for others that have their pins in the same lock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.filter.rollout import judge_update, with_sharing
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Candidate
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.follows import own_path
from ansible_collections.flotilla.nixos.plugins.module_utils.git import Repository
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import difference, parse_lock
from ansible_collections.flotilla.nixos.plugins.module_utils.planning import Findings, Pace, make_plan
from ansible_collections.flotilla.nixos.plugins.module_utils.report import plan_lines
from ansible_collections.flotilla.nixos.plugins.module_utils.shared_inputs import (
    agreed_lines,
    moved_for,
    not_agreed,
    sharing,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.fleet import other_groups

from .fakes import FakeRunner, Step
from .lock_strategies import node

FACTS = ("rev-parse", "--is-bare-repository", "--is-shallow-repository", "--path-format=absolute", "--git-common-dir")


def lock_text(**digits: str) -> str:
    """The channel stable, and unstable with what follows it: a flake of the desktops', and in a nested way one of the kiosks'."""
    pinned = {"stable": "1", "unstable": "1", "home": "1", "home-lib": "1", "kiosk": "1", "kiosk-app": "1", **digits}
    inputs: dict[str, dict[str, Any]] = {
        "home": {"nixpkgs": ["unstable"], "lib": "home-lib"},
        "kiosk": {"app": "kiosk-app"},
        "kiosk-app": {"nixpkgs": ["home", "nixpkgs"]},
    }
    nodes: dict[str, Any] = {
        name: node(digit, url=name, **({"inputs": inputs[name]} if name in inputs else {})) for name, digit in pinned.items()
    }
    own = {name: name for name in ("stable", "unstable", "home", "kiosk")} | {"also-stable": ["stable"]}
    return json.dumps({"nodes": {**nodes, "root": {"inputs": own}}, "root": "root", "version": 7}, indent=2) + "\n"


def group(name: str, *inputs: str, **fields: Any) -> UpdateGroup:
    return update_group(name, "/srv/fleet", strategy="channel_inputs", inputs=inputs or None, **fields)


def candidate(new: str, runner: FakeRunner) -> Candidate:
    """A candidate of the servers that makes the lock so."""
    repo = Repository(runner, "servers", "/srv/fleet", "/srv/fleet/.git", bare=False, shallow=False)
    changes = difference(parse_lock(lock_text(), "t", "t"), parse_lock(new, "t", "t")).changes
    servers = group("servers", "stable")
    return Candidate(repo, servers, "main", "a" * 40, "b" * 40, None, changes, "", (), "", "")


def opened(branch: str = "main") -> list[Step]:
    """The commands that look where a group's lock is."""
    git = ["git", "-C", "/srv/fleet"]
    return [
        Step([*git, *FACTS], "false\nfalse\n/srv/fleet/.git\n"),
        Step([*git, "rev-parse", "--show-toplevel"], "/srv/fleet\n"),
        Step([*git, "symbolic-ref", "--quiet", "--short", "HEAD"], f"{branch}\n"),
    ]


def shown(*texts: str) -> list[Step]:
    """The commands that read the lock before and after."""
    git = ["git", "-C", "/srv/fleet"]
    return [
        step
        for digit, text in zip("ab", texts, strict=True)
        for step in (
            Step([*git, "ls-tree", "-z", digit * 40, "--", "flake.lock"], f"100644 blob {digit * 39}0\tflake.lock\0"),
            Step([*git, "cat-file", "blob", f"{digit * 39}0"], text),
        )
    ]


@pytest.mark.parametrize(
    ("moved", "inputs", "expected"),
    [
        ({"stable": "2"}, ("stable",), ("stable",)),
        ({"stable": "2"}, ("unstable",), ()),
        ({"stable": "2"}, (), ("stable",)),
        # What follows the input has it, under whatever name, however deep.
        ({"stable": "2"}, ("also-stable",), ("stable",)),
        ({"unstable": "2"}, ("home",), ("unstable",)),
        ({"unstable": "2"}, ("kiosk",), ("unstable",)),
        ({"home": "2"}, ("kiosk",), ()),
        # A nested input comes along, and only the one above it is named.
        ({"home": "2", "home-lib": "2"}, ("home",), ("home",)),
        ({"home-lib": "2"}, ("home",), ("home/lib",)),
        ({"home-lib": "2"}, ("home/nixpkgs",), ()),
        ({"stable": "2", "unstable": "2"}, (), ("stable", "unstable")),
        ({"stable": "2"}, ("no-such",), ()),
    ],
)
def test_what_moves_for_another_group(moved: dict[str, str], inputs: tuple[str, ...], expected: tuple[str, ...]) -> None:
    text = lock_text(**moved)
    runner = FakeRunner(*opened(), *shown(lock_text(), text))
    found = moved_for(runner, candidate(text, runner), [group("desktops", *inputs)])
    assert found == ({"desktops": expected} if expected else {})
    runner.done()


@pytest.mark.parametrize(
    "other",
    [
        group("servers"),
        update_group("sbcs", "/srv/fleet"),
        group("kiosks", branch="kiosks"),
    ],
)
def test_groups_whose_pins_are_elsewhere_share_nothing(other: UpdateGroup) -> None:
    text = lock_text(stable="2")
    runner = FakeRunner(*(opened() if other.lock == "flake.lock" and other.name != "servers" else ()))
    if other.branch:
        # That one's branch is known.
        runner = FakeRunner(*opened(), *opened()[:2])
    assert moved_for(runner, candidate(text, runner), [other]) == {}
    runner.done()


def test_two_paths_of_one_repository_are_one_place() -> None:
    linked = update_group("kiosks", "/home/op/fleet", strategy="group_inputs")
    gone = update_group("attic", "/srv/gone", strategy="group_inputs")
    there = ["git", "-C", "/home/op/fleet"]
    runner = FakeRunner(
        *opened(),
        Step([*there, *FACTS], "false\nfalse\n/srv/fleet/.git\n"),
        Step([*there, "rev-parse", "--show-toplevel"], "/home/op/fleet\n"),
        Step([*there, "symbolic-ref", "--quiet", "--short", "HEAD"], "main\n"),
        Step(["git", "-C", "/srv/gone", *FACTS], status=128, stderr="fatal: cannot change to '/srv/gone'"),
    )
    assert sharing(runner, group("servers"), [linked, gone]) == (linked,)
    runner.done()


def test_a_first_lock_moves_for_nobody() -> None:
    git = ["git", "-C", "/srv/fleet"]
    listed = Step([*git, "ls-tree", "-z", "a" * 40, "--", "flake.lock"])
    runner = FakeRunner(*opened(), listed, *shown(lock_text(), lock_text())[2:])
    assert moved_for(runner, candidate(lock_text(), runner), [group("desktops")]) == {}
    runner.done()


def test_an_input_that_follows_itself_has_no_pin() -> None:
    broken = lock_text().replace('"also-stable": [\n          "stable"', '"also-stable": [\n          "also-stable"')
    with pytest.raises(BadInput, match="follows"):
        parse_lock(broken, "t", "t")
    lock = parse_lock(lock_text(), "t", "t")
    assert own_path(lock, ("kiosk", "app", "nixpkgs")) == ("unstable",)


def test_the_refusal_is_one_sentence_that_names_all_and_the_fix() -> None:
    moves = {"desktops": ["nixpkgs"], "kiosks": ["nixpkgs"], "lab": ["nixpkgs", "tools"]}
    error = str(not_agreed(group("servers"), moves))
    assert error.startswith(
        "servers: this would also move nixpkgs for desktops and kiosks, and nixpkgs and tools for lab, in the lock flake.lock"
    )
    assert "-e flotilla_allow_shared_inputs=true" in error
    assert agreed_lines({"desktops": ["nixpkgs"], "lab": ["a", "b"]}) == (
        "nixpkgs also moves for desktops, whose hosts get it at their next rollout",
        "a and b also move for lab, whose hosts get them at their next rollout",
    )


LOCKED = {
    "groups": {
        "servers": {
            "candidate": "b" * 40,
            "commit": "b" * 40,
            "branch": "main",
            "shared": {"desktops": ["nixpkgs"]},
            "notes": ["nixpkgs also moves for desktops"],
        }
    }
}
SERVERS: dict[str, Any] = {"name": "servers", "repo": "/r", "flake": ".", "hosts": [{"name": "web1", "attribute": "web1"}]}
DESKTOPS: dict[str, Any] = {
    "name": "desktops",
    "repo": "/r",
    "strategy": "channel_inputs",
    "hosts": [{"name": "desk1", "attribute": "desk1"}],
}


def test_hosts_that_get_the_pins_later_have_to_build() -> None:
    assert with_sharing([SERVERS], {}, [DESKTOPS]) == [SERVERS]
    (built,) = with_sharing([SERVERS], LOCKED, [DESKTOPS])
    assert [host["name"] for host in built["hosts"]] == ["web1", "desk1"]
    assert len(SERVERS["hosts"]) == 1
    # A flake of its own is not built with that of the group.
    assert with_sharing([SERVERS], LOCKED, [{**DESKTOPS, "flake": "desktops"}]) == [SERVERS]


def test_a_host_of_another_group_that_would_not_build_stops_the_group() -> None:
    build = {"servers": {"hosts": {"web1": {"system": "/s"}, "desk1": {"failed": True, "error": "desk1: no."}}}}
    info = {"web1": {"reachable": True, "running": "/old"}}
    plan = make_plan(Findings([SERVERS], LOCKED["groups"], build, info), {"servers": Pace([1], 0)})
    assert plan.groups["servers"].error.startswith("desk1, outside the limit, would not build any more")
    good = {"servers": {"hosts": {"web1": {"system": "/s"}, "desk1": {"system": "/d"}}}}
    lines = plan_lines(make_plan(Findings([SERVERS], LOCKED["groups"], good, info), {"servers": Pace([1], 0)}))
    assert "    nixpkgs also moves for desktops" in lines
    assert "servers: nixpkgs also moves for desktops" in judge_update(LOCKED, {"groups": {"servers": {"failed": False}}})["lines"]


def test_the_other_groups_of_an_inventory() -> None:
    hostvars: dict[str, dict[str, Any]] = {
        "web1": {"flotilla_update_group": "servers", "flotilla_repo": "/r"},
        "web2": {"flotilla_update_group": "servers", "flotilla_repo": "/r"},
        "desk1": {"flotilla_update_group": "desktops", "flotilla_repo": "/r", "flotilla_inputs": ["a"]},
        "desk2": {"flotilla_update_group": "desktops", "flotilla_repo": "/elsewhere"},
        "router": {},
        "lost": {"flotilla_update_group": "lost"},
    }
    found = other_groups([{"name": "servers"}], list(hostvars)[1:], hostvars)
    assert [(other["name"], other["repo"], other["inputs"], len(other["hosts"])) for other in found] == [
        ("desktops", "/r", ["a"], 2)
    ]
