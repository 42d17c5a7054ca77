# SPDX-License-Identifier: GPL-3.0-or-later
"""What recognising a layout decides without nix: groups by inputs, relative paths, URLs, variables; and locks of the wild."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.flake_facts import FlakeFacts, Snapshot, relative_target
from ansible_collections.flotilla.nixos.plugins.module_utils.git import Repository
from ansible_collections.flotilla.nixos.plugins.module_utils.input_use import grouped_by_use
from ansible_collections.flotilla.nixos.plugins.module_utils.layout import Certainty, Layout, LayoutGroup
from ansible_collections.flotilla.nixos.plugins.module_utils.lint import lint, plain_url
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import parse_lock
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult
from unit.wild_locks import wild_texts


def uses(**hosts: str) -> dict[str, frozenset[str]]:
    return {host: frozenset(names.split()) for host, names in hosts.items()}


@pytest.mark.parametrize(
    ("used", "channels", "expected"),
    [
        ({}, (), []),
        (uses(a="n hm", b="n hm"), ("n",), []),
        (uses(a="n x", b="n"), ("n",), []),
        (uses(a="n x", b="n y"), ("n",), [(["a"], ["x"], False), (["b"], ["y"], False)]),
        (uses(a="x", b="x z", c="y"), (), [(["a", "b"], ["x", "z"], False), (["c"], ["y"], False)]),
        (uses(a="x z", b="y z", c="q"), (), [(["a", "b"], ["x", "y", "z"], False), (["c"], ["q"], False)]),
        (uses(a="n", b="n u"), ("n", "u"), [(["a"], ["n"], True), (["b"], ["u"], True)]),
        (uses(a="n", b="u"), ("n", "u"), [(["a"], ["n"], True), (["b"], ["u"], True)]),
        (uses(a="n hm", b="u hm", c="n hm"), ("n", "u"), [(["a", "c"], ["n"], True), (["b"], ["u"], True)]),
    ],
)
def test_hosts_are_grouped_by_what_they_use(used: Any, channels: Any, expected: Any) -> None:
    found = grouped_by_use(used, channels)
    assert [(list(g.hosts), list(g.inputs), g.channels) for g in found] == expected


@pytest.mark.parametrize(
    ("directory", "declared", "target"),
    [
        ("hosts/sbcs", {"url": "path:../.."}, "."),
        ("hosts/sbcs", {"url": "../../modules"}, "modules"),
        ("hosts/sbcs", {"url": "path:./../../modules"}, "modules"),
        (".", {"url": "./hosts/sbcs"}, "hosts/sbcs"),
        (".", {"url": "path:./hosts/sbcs?x=1"}, "hosts/sbcs"),
        (".", {"type": "path", "path": "./hosts/sbcs"}, "hosts/sbcs"),
        (".", {"url": "path:.."}, None),
        (".", {"url": "path:/srv/fleet"}, None),
        (".", {"url": "github:o/r"}, None),
        (".", {"url": "git+file:./x"}, None),
        (".", {"follows": "nixpkgs"}, None),
    ],
)
def test_where_a_relative_input_leads(directory: str, declared: dict[str, Any], target: str | None) -> None:
    assert relative_target(directory, declared) == target


@pytest.mark.parametrize(
    "url",
    [
        "git@github.com:Owner/fleet.git",
        "https://github.com/owner/fleet",
        "ssh://git@github.com/owner/fleet.git/",
        "git+ssh://git@github.com/owner/fleet?ref=main",
        "https://user:secret@github.com/owner/fleet.git",
    ],
)
def test_spellings_of_one_url_are_one(url: str) -> None:
    assert plain_url(url) == "github.com/owner/fleet"


def group(**fields: Any) -> LayoutGroup:
    return LayoutGroup("sbcs", fields.pop("strategy"), Certainty.SURE, (), **fields)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (group(strategy="group_flakes", flake="hosts/sbcs", lock="hosts/sbcs/flake.lock"), {}),
        (group(strategy="group_flakes", flake="fleet/sbcs", lock="fleet/sbcs/flake.lock"), {"flotilla_flake": "fleet/sbcs"}),
        (group(strategy="group_branches", branch="sbcs"), {"flotilla_strategy": "group_branches"}),
        (
            group(strategy="group_branches", branch="deploy/sbcs"),
            {"flotilla_strategy": "group_branches", "flotilla_branch": "deploy/sbcs"},
        ),
        (group(strategy="host_locks", lock="locks/{host}.lock"), {"flotilla_strategy": "host_locks"}),
        (
            group(strategy="host_locks", lock="pins/sbcs.lock"),
            {"flotilla_strategy": "host_locks", "flotilla_lock": "pins/sbcs.lock"},
        ),
        (group(strategy="group_inputs", inputs=("a",)), {"flotilla_strategy": "group_inputs", "flotilla_inputs": ["a"]}),
        (group(strategy="single"), {"flotilla_flake": "."}),
    ],
)
def test_only_variables_that_differ_from_the_defaults_are_proposed(known: LayoutGroup, expected: dict[str, Any]) -> None:
    assert known.variables() == {"flotilla_update_group": "sbcs", **expected}


class Silent:
    """A runner whose commands succeed and say nothing, as git does of a repository without remotes."""

    name = "builder"

    def run(self, argv: Sequence[str], **_options: Any) -> RunResult:
        return RunResult(tuple(argv), 0, "", "", 0.0)


def wild_layout() -> Layout:
    """A repository with a flake beside each of the locks in the wild that can be read."""
    flakes = {}
    for number, text in enumerate(wild_texts().values()):
        try:
            lock = parse_lock(text, "wild", "flake.lock")
        except BadInput:
            continue
        inputs = {name: {"url": "path:./g1"} for name in lock.nodes[lock.root].inputs}
        flakes[f"g{number}"] = FlakeFacts(f"g{number}", inputs=inputs, hosts=("x",), lock=lock)
    repo = Repository(Silent(), "fleet", "/srv/fleet", "/srv/fleet/.git", bare=False, shallow=False)
    return Layout(repo, Snapshot(repo, "main", "0" * 40, {}), "group_flakes", (), flakes)


def test_locks_of_the_wild_are_linted_without_a_crash() -> None:
    layout = wild_layout()
    said = "\n".join(f"{finding.problem.what}" for finding in lint(layout, evaluate=False))
    assert len(layout.flakes) > 50
    for words in ("names a revision in flake.nix", "has no url in flake.nix", "is a path of the machine", "old version 5"):
        assert words in said
