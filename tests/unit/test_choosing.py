# SPDX-License-Identifier: GPL-3.0-or-later
"""Between which groups a promotion or a restore is, and which group stands for a branch that none has."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import checked_name
from ansible_collections.flotilla.nixos.plugins.plugin_utils.choosing import Choice, choose, group_on_branch, require_no_group

UPDATE_GROUPS = ["canary", "early", "stable"]


def inventory(**variables: Any) -> dict[str, dict[str, Any]]:
    """c1 in canary, e1 in early, s1 and s2 in stable, all of one repository, and a host in no update group."""
    places = {"c1": "canary", "e1": "early", "s1": "stable", "s2": "stable"}
    common = {"flotilla_update_groups": UPDATE_GROUPS, "flotilla_repo": "/srv/fleet", **variables}
    found = {host: {**common, "group_names": [group]} for host, group in places.items()}
    return {**found, "printer": {"group_names": ["things"]}}


def chosen(target: str, source: str | None, *, play: tuple[str, ...] = (), **variables: Any) -> Choice:
    hosts = inventory(**variables)
    return choose(target, source, play or tuple(hosts), hosts, hosts)


def test_all_hosts_of_the_target_within_the_limit() -> None:
    found = chosen("stable", "canary")
    assert (found.chosen, found.source_hosts, found.groups) == (["s1", "s2"], ["c1"], ["canary", "early", "stable"])
    assert found.source == {"name": "canary", "repo": "/srv/fleet", "hosts": [{"name": "c1", "attribute": "c1"}]}
    assert found.target["name"] == "stable"
    narrowed = chosen("stable", "canary", play=("c1", "s2"))
    assert narrowed.chosen == ["s2"]
    assert [host["name"] for host in narrowed.target["hosts"]] == ["s1", "s2"], "the lock is that of all"


def test_groups_that_are_no_inventory_groups() -> None:
    hosts: dict[str, dict[str, Any]] = {
        "c1": {"group_names": ["lab"], "flotilla_update_group": "canary", "flotilla_repo": "/srv/fleet"},
        "s1": {"group_names": ["field"], "flotilla_update_group": "stable", "flotilla_repo": "/srv/fleet"},
    }
    found = choose("stable", "canary", list(hosts), hosts, hosts)
    assert (found.chosen, found.source_hosts) == (["s1"], ["c1"])


def test_a_source_that_is_no_group_is_a_branch_with_the_targets_flake_and_lock() -> None:
    found = chosen("stable", "feature/x")
    assert found.source_hosts == []
    assert found.source is not None
    assert {key: found.source[key] for key in ("name", "branch", "flake", "lock")} == {
        "name": "feature+x",
        "branch": "feature/x",
        "flake": "hosts/stable",
        "lock": "hosts/stable/flake.lock",
    }


def test_a_restore_has_no_source() -> None:
    assert chosen("stable", None).source is None


@pytest.mark.parametrize(
    ("target", "source", "variables", "expected"),
    [
        ("", None, {}, r"which update group is to go back.*-e group=GROUP. The update groups are canary, early, stable\."),
        ("", "", {}, r"to which update group.*-e from=GROUP -e to=GROUP"),
        ("stable", "", {}, "it is not said from where"),
        ("", "canary", {}, "it is not said to which update group"),
        ("beta", "canary", {}, r"'beta': there is no such update group.*canary, early, stable"),
        ("stable", "stable", {}, "cannot be promoted to itself"),
        ("stable", "canary", {"flotilla_update": True}, "flotilla_update would move inputs to what nobody has proven"),
        ("stable", "canary", {"flotilla_pin": {"nixpkgs": "abc"}}, "flotilla_pin would move inputs"),
        ("stable", None, {"flotilla_update_inputs": ["nixpkgs"]}, "flotilla_update_inputs would move inputs"),
    ],
)
def test_what_is_refused(target: str, source: str | None, variables: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        chosen(target, source, **variables)


def test_no_update_that_is_said_in_words() -> None:
    assert chosen("stable", "canary", flotilla_update="false").chosen == ["s1", "s2"]


def test_a_limit_without_any_host_of_the_target() -> None:
    with pytest.raises(BadInput, match=r"stable: none of its hosts \(s1, s2\) is in the limit"):
        chosen("stable", "canary", play=("c1",))


@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        ({"group_names": ["canary", "early"]}, "c1: the host is in 2 update groups: canary, early"),
        (
            {"flotilla_update_group": "other"},
            "c1: flotilla_update_group says 'other', and the inventory has the host in 'canary'",
        ),
        ({"flotilla_update_groups": ["early", "stable"]}, "c1: the host is in no update group"),
        (None, "flotilla_update_groups has an update group canary, and no host of this inventory is in it"),
    ],
)
def test_a_group_that_is_passed_over_is_not_taken_for_a_branch(canary: dict[str, Any] | None, expected: str) -> None:
    hosts = inventory()
    first = hosts.pop("c1")
    if canary is not None:
        hosts["c1"] = {**first, **canary}
    with pytest.raises(BadInput, match=expected):
        choose("stable", "canary", list(hosts), hosts, hosts)
    hosts["c2"] = {"group_names": ["canary"], **{key: value for key, value in first.items() if key != "group_names"}}
    if canary is not None:
        with pytest.raises(BadInput, match=expected):
            choose("stable", "canary", list(hosts), hosts, hosts)


def on_branch(branch: str, *limited: str, **variables: Any) -> dict[str, Any]:
    hosts = inventory(**variables)
    return group_on_branch(branch, limited, hosts, hosts)


def test_a_group_for_the_development_branch_has_every_host() -> None:
    found = on_branch("main", flotilla_strategy="group_branches")
    assert [host["name"] for host in found["hosts"]] == ["c1", "e1", "s1", "s2"]
    assert {key: found[key] for key in ("name", "branch", "flake", "lock")} == {
        "name": "main",
        "branch": "main",
        "flake": ".",
        "lock": "flake.lock",
    }


def test_a_branch_of_a_group_is_not_one_for_development() -> None:
    with pytest.raises(BadInput, match=r"it is the branch of the update group early\. Update that: -l early"):
        on_branch("early", flotilla_strategy="group_branches")


def test_groups_with_flakes_of_their_own_need_a_limit() -> None:
    with pytest.raises(BadInput, match=r"have different flakes.*\(canary; early; stable\).*Name one of the groups with -l"):
        on_branch("dev")
    found = on_branch("dev", "s1")
    assert ([host["name"] for host in found["hosts"]], found["lock"]) == (["s1", "s2"], "hosts/stable/flake.lock")


def test_each_branch_has_a_candidate_of_its_own() -> None:
    branches = ["feature/a", "feature-a", "feature+a", "feature+/a", "feature/+a"]
    names = [on_branch(branch, flotilla_strategy="group_branches")["name"] for branch in branches]
    assert names == ["feature+a", "feature-a", "feature+-a", "feature+-+a", "feature++-a"]
    assert [checked_name("update group", name) for name in names] == names


@pytest.mark.parametrize("variables", [{}, {"flotilla_update_groups": [*UPDATE_GROUPS, "dev"]}])
def test_a_branch_does_not_replace_the_candidate_of_a_group_of_its_name(variables: dict[str, Any]) -> None:
    name = "dev" if variables else "early"
    with pytest.raises(BadInput, match=f"branch {name}: there is an update group of the name {name}, whose candidate"):
        on_branch(name, "s1", **variables)


def test_a_restore_goes_back_to_a_commit_and_to_no_group() -> None:
    with pytest.raises(BadInput, match=r"early: canary is an update group.*promote -e from=canary -e to=early"):
        require_no_group("canary", "early", ["canary", "early"])
    require_no_group("abc123", "early", ["canary", "early"])
    require_no_group("", "early", ["canary", "early"])
