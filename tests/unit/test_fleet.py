# SPDX-License-Identifier: GPL-3.0-or-later
"""From hosts and their variables to update groups, and the role's filters and variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flotilla.nixos.plugins.action.rollout_scope import _refuse_slice, _refuse_unlimited
from ansible_collections.flotilla.nixos.plugins.filter.rollout import at_commits, built_system, judge_update, wants_reboot
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES
from ansible_collections.flotilla.nixos.plugins.plugin_utils.fleet import FIELDS, repository_above, update_groups, with_others
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import groups_from_options
from ansible_collections.flotilla.nixos.plugins.plugin_utils.role_options import (
    ONE_FOR_A_GROUP,
    ONE_FOR_ALL,
    check_role_options,
    known_variables,
    require_one_value,
    role_options,
    unknown_variables,
)

ROLE = Path(__file__).parents[2] / "roles/rollout"
SERVERS = {"flotilla_update_group": "servers", "flotilla_repo": "/srv/fleet", "group_names": ["servers"]}
SBCS = {"flotilla_update_groups": ["servers", "sbcs"], "flotilla_repo": "/srv/fleet", "group_names": ["all_pis", "sbcs"]}


def test_update_groups() -> None:
    hostvars = {
        "web1": SERVERS,
        "web2": SERVERS | {"flotilla_attribute": "shop"},
        "pi-1": SBCS | {"flotilla_inputs": ["nixpkgs"]},
    }
    assert update_groups(hostvars, hostvars) == [
        {
            "name": "servers",
            "repo": "/srv/fleet",
            "hosts": [{"name": "web1", "attribute": "web1"}, {"name": "web2", "attribute": "shop"}],
        },
        {"name": "sbcs", "repo": "/srv/fleet", "inputs": ["nixpkgs"], "hosts": [{"name": "pi-1", "attribute": "pi-1"}]},
    ]


def test_what_they_give_is_what_the_modules_take() -> None:
    (group,) = update_groups(["web1"], {"web1": SERVERS | {"flotilla_strategy": "group_branches", "flotilla_branch": "prod"}})
    defaults = dict.fromkeys(("branch", "flake", "lock", "inputs")) | {"strategy": "group_flakes"}
    (found,) = groups_from_options([defaults | group])
    assert (found.branch, found.flake, [member.name for member in found.members]) == ("prod", ".", ["web1"])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"h": {"group_names": ["x"]}}, "h: the host is in no update group"),
        ({"h": SBCS | {"group_names": []}}, "h: the host is in no update group .flotilla_update_groups: servers, sbcs"),
        ({"h": SBCS | {"group_names": ["sbcs", "servers"]}}, "h: the host is in 2 update groups: sbcs, servers"),
        ({"h": SBCS | {"flotilla_update_group": "servers"}}, "h: flotilla_update_group says 'servers', and the inventory"),
        ({"h": SERVERS, "i": SERVERS | {"flotilla_lock": "x.lock"}}, "servers: its hosts disagree on flotilla_lock: h has None"),
        (
            {"h": SERVERS, "i": SERVERS | {"flotilla_lock": "x.lock"}},
            r"for a lock per host, write \{host\}",
        ),
        ({"h": {"flotilla_update_group": "servers"}}, "h: the repository is not known"),
    ],
)
def test_hosts_without_a_lock_of_their_own(variables: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        update_groups(variables, variables)


def test_the_hosts_outside_the_limit_that_an_update_touches() -> None:
    hostvars = {"web1": SERVERS, "web2": SERVERS, "pi-1": SBCS, "router": {"group_names": []}}
    groups = update_groups(["web1"], hostvars)
    whole = with_others(groups, ["web2", "pi-1", "router"], hostvars)
    assert [[host["name"] for host in group["hosts"]] for group in whole] == [["web1", "web2"]]
    assert [host["name"] for host in groups[0]["hosts"]] == ["web1"]


@pytest.mark.parametrize("own", [{"flotilla_strategy": "host_locks"}, {"flotilla_lock": "locks/{host}.lock"}])
def test_an_update_touches_no_host_outside_the_limit_that_has_a_lock_of_its_own(own: dict[str, str]) -> None:
    hostvars = {"web1": SERVERS | own, "web2": SERVERS | own}
    whole = with_others(update_groups(["web1"], hostvars), ["web2"], hostvars)
    assert [[host["name"] for host in group["hosts"]] for group in whole] == [["web1"]]


def test_the_repository_is_the_one_that_holds_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "fleet/.git").mkdir(parents=True)
    (tmp_path / "fleet/inventory/prod").mkdir(parents=True)
    inventory = str(tmp_path / "fleet/inventory/prod")
    assert repository_above(inventory) == str(tmp_path / "fleet")
    (group,) = update_groups(["h"], {"h": {"flotilla_update_group": "servers", "inventory_dir": inventory}})
    assert group["repo"] == str(tmp_path / "fleet")


LOCKED = {
    "groups": {
        "a": {"failed": False, "commit": "c1", "candidate": "c1", "changes": []},
        "b": {"failed": True, "msg": "b: no such input."},
        "d": {"failed": False, "commit": "c2", "candidate": None},
        "e": {"failed": False, "commit": "c3", "candidate": "c3", "changes": []},
    }
}
BUILT = {
    "groups": {
        "a": {"failed": False, "hosts": {"a1": {"system": "/nix/store/x"}, "a2": {"system": None}}},
        "e": {"failed": True, "msg": "e1: no."},
    }
}


def test_at_commits() -> None:
    groups = [{"name": "a"}, {"name": "b"}, {"name": "z"}]
    assert at_commits(groups, LOCKED) == [{"name": "a", "commit": "c1"}, {"name": "z"}]
    assert at_commits(groups, {"skipped": True}) == groups


@pytest.mark.parametrize(("host", "system"), [("a1", "/nix/store/x"), ("a2", ""), ("nobody", "")])
def test_built_system(host: str, system: str) -> None:
    assert built_system(BUILT, host) == system


def test_judge_update() -> None:
    verdict = judge_update(LOCKED, BUILT)
    assert (verdict["good"], verdict["red"]) == (["a"], ["e"])
    assert verdict["problems"] == ["b: no such input.", "e: the candidate does not build, and was dropped. e1: no."]
    assert verdict["lines"] == ["a: every host builds at c1", "d: nothing to update"]


@pytest.mark.parametrize(
    ("activated", "policy", "goal", "expected"),
    [
        ({"outcome": "activated", "reboot_needed": True}, "if_needed", "switch", True),
        ({"outcome": "activated", "reboot_needed": False}, "if_needed", "switch", False),
        ({"outcome": "staged_for_boot"}, "if_needed", "switch", True),
        ({"outcome": "staged_for_boot"}, "if_needed", "boot", False),
        ({"outcome": "staged_for_boot"}, "always", "boot", True),
        ({"outcome": "activated", "reboot_needed": True}, "never", "switch", False),
        ({"outcome": "activated"}, "always", "switch", True),
        ({"outcome": "unchanged"}, "always", "switch", False),
        ({"outcome": "activated", "reboot_needed": True}, "if_needed", "test", False),
    ],
)
def test_wants_reboot(activated: dict[str, Any], policy: str, goal: str, expected: bool) -> None:
    assert wants_reboot(activated, policy, goal) is expected


ENTRY_POINTS = ("prepare", "batch", "finish", "status", "update", "rollback", "promote", "restore")
#: Read by rollout_scope from what the inventory says of a host, so that the role needs no defaults for them.
PLACES = {f"flotilla_{field}" for field in (*FIELDS, "hold", "update_group", "update_groups", "attribute")}
#: What -e names in each run of a playbook: `to` is a group or a commit.
NAMED = {"from", "to", "group", "branch"}


def test_every_variable_has_one_default() -> None:
    """argument_specs.yml is the home of the defaults; Ansible takes them from defaults/main.yml."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    options = [(name, option) for entry in ENTRY_POINTS for name, option in role_options("rollout", entry).items()]
    options = [(name, option) for name, option in options if name not in NAMED]
    assert {name: option["default"] for name, option in options if name not in PLACES} == defaults
    assert {name for name, _option in options} == defaults.keys() | PLACES
    specs = dict(options)
    for name, option in options:
        assert (option, bool(option["description"])) == (specs[name], True)
        assert "default" in option or "By default" in str(option["description"])
    assert specs["flotilla_strategy"]["choices"] == list(STRATEGIES)


def test_an_unknown_variable_is_named_with_the_nearest() -> None:
    known = known_variables()
    assert known["flotilla_goal"]
    assert not known["flotilla_planned"], "a variable of the role's own"
    used = {name for path in (ROLE / "tasks").glob("*.yml") for name in re.findall(r"flotilla_\w+", path.read_text())}
    given = set(re.findall(r'"(flotilla_\w+)"', (ROLE.parents[1] / "plugins/inventory/flakes.py").read_text()))
    assert unknown_variables([*used, *given, "ansible_host", "flotilla_strategy"], known) == []
    assert unknown_variables(["flotilla_stratgy", "flotilla_xyz", "ansible_goal"], known) == [
        "flotilla_stratgy is no variable of flotilla.nixos; the nearest is flotilla_strategy",
        "flotilla_xyz is no variable of flotilla.nixos",
    ]


def test_a_value_that_the_role_cannot_use_is_named() -> None:
    check_role_options("rollout", "prepare", ["h"], {"h": {"flotilla_reboot": "never"}})
    with pytest.raises(BadInput, match="i: value of flotilla_reboot must be one of"):
        check_role_options("rollout", "prepare", ["h", "i"], {"h": {}, "i": {"flotilla_reboot": "sometimes"}})


@pytest.mark.parametrize(
    ("a", "b", "groups", "message"),
    [
        ({}, {"flotilla_goal": "boot"}, "gh", "rollout: g and h differ in flotilla_goal"),
        ({"flotilla_land": True}, {"flotilla_land": "false"}, "gh", "g and h differ in flotilla_land"),
        ({}, {"flotilla_land": "yes"}, "gh", None),
        ({}, {"flotilla_goal": "boot"}, "gg", "g: a and b differ in flotilla_goal"),
        ({}, {"flotilla_serial": [2]}, "gh", None),
        ({}, {"flotilla_serial": [2]}, "gg", "g: a and b differ in flotilla_serial"),
        ({}, {"flotilla_reboot": "never", "flotilla_ignored_units": "x"}, "gg", None),
    ],
)
def test_what_has_one_value_in_a_run(a: dict[str, Any], b: dict[str, Any], groups: str, message: str | None) -> None:
    values = check_role_options("rollout", "prepare", ["a", "b"], {"a": a, "b": b})
    if message is None:
        return require_one_value(values, dict(zip("ab", groups, strict=True)))
    with pytest.raises(BadInput, match=message):
        require_one_value(values, dict(zip("ab", groups, strict=True)))
    return None


def test_what_runs_once_for_all_is_one_of_the_roles_variables() -> None:
    names = {name for entry in ENTRY_POINTS for name in role_options("rollout", entry)}
    assert {*ONE_FOR_ALL, *ONE_FOR_A_GROUP} <= names


def test_a_run_that_nobody_limited_is_refused() -> None:
    _refuse_unlimited({"ansible_limit": "sbcs"}, everything=False, count=6)
    _refuse_unlimited({}, everything=True, count=6)
    with pytest.raises(BadInput, match="all 6 hosts of the inventory would be updated"):
        _refuse_unlimited({}, everything=False, count=6)


def test_a_slice_of_an_awx_job_is_refused() -> None:
    _refuse_slice({})
    _refuse_slice({"awx_job_template_name": "rollout", "awx_workflow_job_name": "weekly"})
    with pytest.raises(BadInput, match="in slices, which do not know of each other"):
        _refuse_slice({"awx_job_template_name": "rollout", "awx_workflow_job_name": "rollout"})
