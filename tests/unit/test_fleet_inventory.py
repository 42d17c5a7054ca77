# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and patterns of the inventory plugin."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import fleet_inventory
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.fleet_inventory import ListedGroup, ListedHost, Listing, host_names
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import update_group


def listed(name: str, *hosts: ListedHost) -> tuple[Listing, ListedGroup]:
    return Listing(update_group(name, "/srv/fleet")), ListedGroup(name, hosts=list(hosts))


ONE = ListedHost("pi-1", host_name="one", fqdn="one.example.org")
BARE = ListedHost("pi-2")


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{attribute}", ["pi-1", "pi-2"]),
        ("{attribute}.{group}", ["pi-1.sbcs", "pi-2.sbcs"]),
        ("{host_name}", ["one", "pi-2"]),
        ("{fqdn}", ["one.example.org", "pi-2"]),
        ("{group}-{host_name}", ["sbcs-one", "pi-2"]),
    ],
)
def test_names(template: str, names: list[str]) -> None:
    assert list(host_names([listed("sbcs", ONE, BARE)], template).values()) == names


def test_the_same_name_twice_names_both() -> None:
    with pytest.raises(BadInput) as caught:
        host_names([listed("sbcs", ONE), listed("servers", BARE, ListedHost("pi-1"))], "{attribute}")
    assert "host 'pi-1': it would be in two update groups, as pi-1 of sbcs and as pi-1 of servers." in str(caught.value)


@pytest.mark.parametrize("template", ["{nope}", "{", "{0}", "{attribute!x}"])
def test_a_template_that_is_none(template: str) -> None:
    with pytest.raises(BadInput, match="not a text with placeholders"):
        host_names([listed("sbcs", ONE)], template)


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("hosts/sbcs/flake.nix", "hosts/*/flake.nix", True),
        ("hosts/sbcs/deep/flake.nix", "hosts/*/flake.nix", False),
        ("old/hosts/sbcs/flake.nix", "hosts/*/flake.nix", False),
        ("flake.nix", "flake.nix", True),
        ("updateGroupA/flake.nix", "updateGroup*/flake.nix", True),
    ],
)
def test_patterns(path: str, pattern: str, matches: bool) -> None:
    assert fleet_inventory._path_matches(path, pattern) is matches


@pytest.mark.parametrize(
    ("attribute", "has"), [("canary-1", True), ("web-1", False), ("canary-installer", False), ("Canary-1", False)]
)
def test_hosts_of_a_group(attribute: str, has: bool) -> None:
    assert Listing(update_group("canary", "/srv/fleet"), ("canary-*",), ("*installer",)).has(attribute) is has


def test_what_is_cached_comes_back() -> None:
    group = ListedGroup("sbcs", "abc", 1764000000, [ONE, ListedHost("pi-3", variables={"ports": [1]}, error="no")])
    assert fleet_inventory.loaded(fleet_inventory.dumped([group])) == [group]
