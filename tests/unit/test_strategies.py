# SPDX-License-Identifier: GPL-3.0-or-later
"""Every strategy has what shows it: an example that is complete, a row in the table, and a story on real hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES
from testbed.layouts import EXAMPLES, LAYOUTS, Place

TOP = EXAMPLES.parent
SHOWN = (*STRATEGIES, "mixture")
PLAYBOOKS = ("catchup", "promote", "restore", "rollout", "status", "update")


def home(name: str) -> Path:
    """The part of an example that has the inventory and the playbooks."""
    control = EXAMPLES / name / "control"
    return control if control.exists() else EXAMPLES / name


def inventory(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((home(name) / "inventory/hosts.yml").read_text())["all"]
    return found


def test_there_is_an_example_for_each_and_for_nothing_else() -> None:
    assert set(LAYOUTS) == set(SHOWN)
    assert {path.parent.name for path in EXAMPLES.glob("*/README.md")} >= set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_each_has_its_story_its_row_and_its_page(name: str) -> None:
    assert (TOP / f"tests/integration/test_strategy_{name}.py").exists()
    rows = [line for line in (TOP / "docs/strategies.md").read_text().splitlines() if f"](../examples/{name}/)" in line]
    assert len(rows) == 1
    assert rows[0].count("|") == 6
    page = (EXAMPLES / name / "README.md").read_text()
    assert "**Choose it**" in page
    assert "**It costs**" in page
    assert len(page.splitlines()) <= 45, "a page is one screen"


@pytest.mark.parametrize("name", SHOWN)
def test_the_inventory_says_what_the_testbed_takes_it_to_say(name: str) -> None:
    said = inventory(name)
    assert said["vars"]["flotilla_update_groups"] == list(LAYOUTS[name])
    for group, place in LAYOUTS[name].items():
        assert tuple(said["children"][group]["hosts"]) == place.hosts
        assert fields({**said["vars"], **said["children"][group].get("vars", {})}, group, place.hosts) == place


def fields(variables: dict[str, Any], group: str, hosts: tuple[str, ...]) -> Place:
    """The five fields as STRATEGIES and the variables give them."""
    preset = STRATEGIES[variables.get("flotilla_strategy", "group_flakes")]
    flake = variables.get("flotilla_flake", preset["flake"]).format(group=group)
    beside = "flake.lock" if flake == "." else f"{flake}/flake.lock"
    lock = variables.get("flotilla_lock", beside if preset["lock"].endswith("flake.lock") else preset["lock"])
    locks = tuple(dict.fromkeys(lock.format(group=group, host=host) for host in hosts))
    branch = variables.get("flotilla_branch", preset.get("branch", "main")).format(group=group)
    inputs = variables.get("flotilla_inputs")
    repo = variables.get("flotilla_repo", "")
    name = re.sub(r"^git@git\.example\.org:fleet/(.*)\.git$", r"\1", repo)
    return Place(hosts, locks, flake, branch, tuple(inputs) if inputs else None, name)


@pytest.mark.parametrize("name", SHOWN)
def test_every_host_is_in_the_flake_that_its_group_has(name: str) -> None:
    for place in LAYOUTS[name].values():
        text = (EXAMPLES / name / place.repo / place.flake / "flake.nix").read_text()
        assert [host for host in place.hosts if not re.search(rf"\b{host}\b", text)] == []


@pytest.mark.parametrize("name", SHOWN)
def test_playbooks_and_settings_are_the_same_everywhere(name: str) -> None:
    assert sorted(path.stem for path in home(name).glob("*.yml")) == list(PLAYBOOKS)
    for file in (*(f"{book}.yml" for book in PLAYBOOKS), "ansible.cfg"):
        assert (home(name) / file).read_text() == (home("group_flakes") / file).read_text()
    for book in PLAYBOOKS:
        assert (TOP / f"playbooks/{book}.yml").exists()


def test_the_examples_name_no_address_that_could_be_somebodys() -> None:
    text = "".join((home(name) / "inventory/hosts.yml").read_text() for name in SHOWN)
    assert {address.rpartition(".")[0] for address in re.findall(r"ansible_host: (\S+)", text)} == {"192.0.2"}
