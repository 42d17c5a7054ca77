# SPDX-License-Identifier: GPL-3.0-or-later
"""The example fleet's files agree with each other."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

import pytest
import yaml
from testbed import TestbedError, example, upstream
from testbed.example import ATTRIBUTES, GROUPS, HOSTS, INVENTORY, MONOREPO, Example


@pytest.fixture
def written(tmp_path: Path) -> Example:
    made = Example(tmp_path / "fleet", upstream.Upstream(Path("/srv/nixpkgs.git")), {})
    example._write_tree(made.path)
    example._fill(made, {"web1": "10.0.0.1", "pi-3": "10.0.0.2"})
    return made


def test_the_static_inventory_has_the_groups_and_hosts() -> None:
    children = yaml.safe_load((INVENTORY / "hosts.yml").read_text())["all"]["children"]
    assert {group: tuple(body["hosts"]) for group, body in children.items()} == GROUPS
    attributes = {
        host: values["flotilla_attribute"]
        for body in children.values()
        for host, values in body["hosts"].items()
        if "flotilla_attribute" in values
    }
    assert attributes == ATTRIBUTES


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_has_its_variables_and_its_flake(group: str) -> None:
    variables = yaml.safe_load((INVENTORY / f"group_vars/{group}.yml").read_text())
    assert variables["flotilla_update_group"] == group
    flake = (MONOREPO / f"hosts/{group}/flake.nix").read_text()
    assert re.findall(r'(\S+) = host "(\S+)"', flake) == [(ATTRIBUTES.get(host, host), host) for host in GROUPS[group]]


def test_the_groups_are_told_to_ansible() -> None:
    assert yaml.safe_load((INVENTORY / "group_vars/all.yml").read_text())["flotilla_update_groups"] == list(GROUPS)


def test_addresses_are_filled_in(written: Example) -> None:
    addresses = json.loads((written.path / "modules/addresses.json").read_text())
    assert tuple(addresses) == HOSTS
    assert (addresses["web1"], addresses["pi-3"], addresses["web2"]) == ("10.0.0.1", "10.0.0.2", "192.0.2.12")
    children = yaml.safe_load((written.path / "inventory/hosts.yml").read_text())["all"]["children"]
    assert children["sbcs"]["hosts"]["pi-3"]["ansible_host"] == "10.0.0.2"


@pytest.mark.parametrize("group", GROUPS)
def test_flakes_follow_the_upstream_on_this_machine(written: Example, group: str) -> None:
    flake = (written.path / f"hosts/{group}/flake.nix").read_text()
    assert 'inputs.nixpkgs.url = "git+file:///srv/nixpkgs.git?ref=nixos-unstable";' in flake
    assert f'system = "{platform.machine()}-linux";' in flake


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(TestbedError, match="is there already"):
        example.create(tmp_path, upstream.Upstream(Path("/srv/nixpkgs.git")), env={})
    assert (tmp_path / "kept").exists()


def test_text_that_is_not_there_is_an_error(written: Example) -> None:
    with pytest.raises(TestbedError, match=r"hosts\.yml does not hold 'nothing'"):
        written.replace("inventory/hosts.yml", "nothing", "something")
