# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving a repository to another strategy with real nix: the same derivations, or nothing at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.flotilla.nixos.plugins.action import flake_migrate
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import FlotillaError
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import failure
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Fixture, Repo, fixture, sh
from integration.test_layout import info
from testbed import layouts, upstream
from testbed.playbooks import Ansible
from testbed.upstream import Upstream

GROUPS = {"sbcs": ["pi-*"], "servers": ["web"]}
HOSTS = ("pi-1", "pi-2", "web")


def migrate(repo: Path, to: str, *, check: bool = False, diff: bool = False, **options: Any) -> dict[str, Any]:
    """The result of the action, run in this process."""
    given = {"repo": str(repo), "to": to, **options}
    checked = ArgumentSpecValidator(flake_migrate.ActionModule.ARGUMENT_SPEC).validate(given)
    assert not checked.error_messages
    action = object.__new__(flake_migrate.ActionModule)
    action._task = SimpleNamespace(check_mode=check, diff=diff)
    action._loader = None
    with (
        patch.object(flake_migrate.ActionModule, "builder", lambda _self: LocalRunner()),
        patch.object(flake_migrate.ActionModule, "progress", lambda _self, _line: None),
    ):
        try:
            return {"failed": False, **action.perform(checked.validated_parameters, {})}
        except FlotillaError as error:
            return {"changed": False, **failure(error, "")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    return upstream.create(tmp_path_factory.mktemp("upstream") / "nixpkgs.git")


@pytest.fixture
def made(tmp_path: Path, controller: dict[str, str]) -> Fixture:  # noqa: ARG001 - nix comes from it
    found = fixture(tmp_path)
    found.repo.git("config", "user.name", "test")
    found.repo.git("config", "user.email", "test@example.org")
    return found


SINGLE = """{
  description = "The fleet";

  inputs.nixpkgs.url = "git+file://%(url)s?ref=main"; # ours
  inputs.part.url = "path:./part";
  inputs.tools.url = "git+file://%(url)s?ref=main";

  outputs =
    { self, nixpkgs, part, ... }@inputs:
    let
      host = name: nixpkgs.lib.host { inherit name; config.note = ''
        ${name}; #{
      ''; needs = [ part.text %(needs)s ]; };
    in
    {
      nixosConfigurations = { pi-1 = host "pi-1"; pi-2 = host "pi-2"; web = host "web"; };%(more)s
    };
}
"""


def single(made: Fixture, *, needs: str = "", more: str = "") -> None:
    """A flake with three hosts and one lock, a relative input, and one that no host reads."""
    made.repo.write("part/flake.nix", '{ outputs = _: { text = "part"; }; }')
    made.repo.write("flake.nix", SINGLE % {"url": made.upstream.path, "needs": needs, "more": more})
    made.repo.git("add", ".")
    made.nix_lock(".")
    made.repo.commit()
    made.release("2")


def drv(repo: Path, flake: str, host: str) -> str:
    """What nix itself says, of what is committed."""
    rev = sh("git", "-C", str(repo), "rev-parse", "HEAD")
    where = "" if flake == "." else f"dir={flake}&"
    ref = f"git+file://{repo}?{where}rev={rev}#nixosConfigurations.{host}.config.system.build.toplevel.drvPath"
    return sh("nix", "eval", "--raw", "--no-update-lock-file", ref)


def pin(repo: Path, lock: str) -> str:
    nodes = json.loads((repo / lock).read_text())["nodes"]
    return str(nodes[nodes["root"]["inputs"]["nixpkgs"]]["locked"]["rev"])


# -- one flake into the flakes of groups ----------------------------------------------------------------------------------


def test_a_single_flake_becomes_flakes_of_groups_and_the_second_time_nothing(made: Fixture) -> None:
    single(made)
    path = made.repo.path
    before, old_pin = {host: drv(path, ".", host) for host in HOSTS}, pin(path, "flake.lock")
    result = migrate(path, "group_flakes", hosts=GROUPS)
    assert not result["failed"], result
    assert (result["changed"], result["landed"], result["from"]) == (True, True, "single")
    after = {host: drv(path, "hosts/servers" if host == "web" else "hosts/sbcs", host) for host in HOSTS}
    assert after == before
    assert pin(path, "hosts/sbcs/flake.lock") == pin(path, "hosts/servers/flake.lock") == old_pin
    assert not (path / "flake.nix").exists()
    assert not (path / "flake.lock").exists()
    flake = (path / "hosts/sbcs/flake.nix").read_text()
    assert 'url = "path:../../part"' in flake
    assert "tools" not in flake
    assert "pi-1" in flake
    assert "web" not in flake
    assert made.repo.git("status", "--porcelain") == ""
    assert made.repo.git("log", "-1", "--format=%s") == "sbcs, servers: a flake for each group"
    assert result["variables"] == {name: {"flotilla_update_group": name} for name in GROUPS}
    found = info(path)
    assert (found["strategy"], [group["hosts"] for group in found["groups"]]) == ("group_flakes", [["pi-1", "pi-2"], ["web"]])
    head = made.repo.state()
    for hosts in (GROUPS, {}):
        again = migrate(path, "group_flakes", hosts=hosts)
        assert (again["failed"], again["changed"], again["commit"]) == (False, False, None)
    assert made.repo.state() == head


def test_check_shows_the_files_and_changes_nothing(made: Fixture) -> None:
    single(made)
    before = made.repo.state()
    result = migrate(made.repo.path, "group_flakes", hosts=GROUPS, check=True, diff=True)
    assert (result["changed"], result["landed"]) == (True, False)
    assert result["files"]["outputs.nix"] == "added"
    assert result["files"]["flake.nix"] == "removed"
    assert all(host["same"] and host["before"] == host["after"] for host in result["hosts"].values())
    assert {part["after_header"] for part in result["diff"]} == set(result["files"])
    assert made.repo.state() == before


def test_what_else_the_flake_has_stays_and_so_do_hosts_of_no_group(made: Fixture) -> None:
    single(made, more="\n      lib.answer = 42;")
    before = drv(made.repo.path, ".", "web")
    result = migrate(made.repo.path, "group_flakes", hosts={"sbcs": ["pi-1", "pi-2"]})
    assert result["landed"], result
    ref = f"git+file://{made.repo.path}"
    assert sh("nix", "eval", f"{ref}#lib.answer") == "42"
    assert json.loads(sh("nix", "eval", "--json", f"{ref}#nixosConfigurations", "--apply", "builtins.attrNames")) == ["web"]
    assert drv(made.repo.path, ".", "web") == before
    second = migrate(made.repo.path, "group_flakes", hosts={"sbcs": ["pi-*"], "servers": ["web"]})
    assert second["landed"], second
    assert drv(made.repo.path, "hosts/servers", "web") == before


@pytest.mark.parametrize("needs", ["self.lib.name", '(builtins.readFile "${self}/part/flake.nix")'])
def test_hosts_that_use_self_are_given_the_whole_repository(made: Fixture, needs: str) -> None:
    single(made, needs=needs, more='\n      lib.name = "fleet";')
    before = {host: drv(made.repo.path, ".", host) for host in HOSTS}
    result = migrate(made.repo.path, "group_flakes", hosts=GROUPS)
    assert result["landed"], result
    assert "self = inputs.self // all" in (made.repo.path / "hosts/sbcs/flake.nix").read_text()
    assert {host: drv(made.repo.path, "hosts/servers" if host == "web" else "hosts/sbcs", host) for host in HOSTS} == before


def test_hosts_with_the_commit_in_them_are_refused_with_that_reason_unless_allowed(made: Fixture) -> None:
    single(made, needs='(self.rev or "dirty")')
    before = made.repo.state()
    result = migrate(made.repo.path, "group_flakes", hosts=GROUPS)
    assert result["failed"]
    assert result["changed"] is False
    assert "pi-1, pi-2, web would not be the same afterwards, so nothing was landed." in result["msg"]
    assert "nixos-system-pi-1: the commit that it is made from is written into its needs (self.rev, or self)" in result["msg"]
    assert "flotilla_allow_revision=true" in result["msg"]
    assert result["hosts"]["web"]["same"] is False
    assert made.repo.state() == before
    assert migrate(made.repo.path, "group_flakes", hosts=GROUPS, allow_revision=True)["landed"]


def test_hosts_that_differ_otherwise_are_refused_and_named(made: Fixture) -> None:
    single(made, needs="(toString (builtins.pathExists ./flake.nix))")
    before = made.repo.state()
    result = migrate(made.repo.path, "group_flakes", hosts=GROUPS, allow_revision=True)
    assert result["failed"]
    assert "nixos-system-web: needs is 'part 1' before, 'part ' after" in result["msg"]
    assert made.repo.state() == before


# -- from and to every other way ------------------------------------------------------------------------------------------

#: Example → the flake of a host now, and what its groups are.
EXAMPLES: Mapping[str, Mapping[str, list[str]]] = {
    "group_inputs": {"canary": ["canary1"], "stable": ["stable1", "stable2"]},
    "channel_inputs": {"canary": ["canary1"], "servers": ["server1", "server2"], "rest": ["kiosk1", "desk1"]},
    "group_branches": {"canary": ["canary1"], "early": ["early1"], "stable": ["stable1", "stable2"]},
    "host_locks": {"canary": ["canary1"], "stable": ["stable1", "stable2"]},
}


@dataclass(frozen=True, slots=True)
class Example:
    """An example's repository with locks that differ between its groups."""

    made: layouts.Layout

    @property
    def path(self) -> Path:
        return self.made.home.path

    @property
    def repo(self) -> Repo:
        return Repo(self.path)


def example(tmp_path: Path, name: str, source: Upstream, env: Mapping[str, str]) -> Example:
    return Example(layouts.create(tmp_path / name, name, source, env=env))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_way_with_one_flake_becomes_flakes_of_groups(
    tmp_path: Path, controller: dict[str, str], source: Upstream, name: str
) -> None:
    fleet = example(tmp_path, name, source, controller)
    before = {host: drv(fleet.path, ".", host) for group in EXAMPLES[name].values() for host in group}
    result = migrate(fleet.path, "group_flakes", hosts=EXAMPLES[name])
    assert result["landed"], result
    after = {host: drv(fleet.path, f"hosts/{group}", host) for group, hosts in EXAMPLES[name].items() for host in hosts}
    assert after == before
    assert {host: known["before"] for host, known in result["hosts"].items()} == before
    assert info(fleet.path)["strategy"] == "group_flakes"


def test_branches_with_locks_of_their_own_keep_these_pins(made: Fixture) -> None:
    single(made)
    path = made.repo.path
    for branch in ("stable", "canary"):
        made.repo.git("branch", branch, "main")
    made.repo.git("switch", "--quiet", "canary")
    made.nix_lock(".", "update")
    made.repo.commit()
    drvs = {host: drv(path, ".", host) for host in HOSTS}
    made.repo.git("switch", "--quiet", "main")
    result = migrate(path, "group_flakes", hosts={"canary": ["web"], "stable": ["pi-*"]})
    assert result["landed"], result
    assert drv(path, "hosts/canary", "web") == drvs["web"]
    assert drv(path, "hosts/stable", "pi-1") != drvs["pi-1"]
    assert pin(path, "hosts/canary/flake.lock") != pin(path, "hosts/stable/flake.lock")


def test_branches_whose_modules_differ_are_refused_with_the_files(made: Fixture) -> None:
    single(made, needs="(import ./module.nix)")
    made.repo.write("module.nix", '"one"')
    made.repo.commit()
    for branch in ("stable", "canary"):
        made.repo.git("branch", branch, "main")
    made.repo.write("module.nix", '"two"')
    made.repo.commit()
    before = made.repo.state()
    result = migrate(made.repo.path, "group_flakes", hosts={"canary": ["web"], "stable": ["pi-*"]})
    assert result["failed"]
    assert "branch canary differs from main in module.nix" in result["msg"]
    assert made.repo.state() == before


@pytest.mark.parametrize("name", ["single", "group_inputs", "group_flakes"])
def test_every_way_gets_a_lock_for_each_host_and_goes_back(
    tmp_path: Path, controller: dict[str, str], source: Upstream, made: Fixture, name: str
) -> None:
    if name == "single":
        single(made)
        path, groups = made.repo.path, GROUPS
        hosts: dict[str, list[str]] = {"sbcs": ["pi-1", "pi-2"], "servers": ["web"]}
    else:
        path = example(tmp_path, name, source, controller).path
        groups = hosts = {"canary": ["canary1"], "stable": ["stable1", "stable2"]}
        if name == "group_flakes":
            groups = hosts = {group: list(place.hosts) for group, place in layouts.LAYOUTS[name].items()}
    where = {host: f"hosts/{group}" if name == "group_flakes" else "." for group, some in hosts.items() for host in some}
    before = {host: drv(path, flake, host) for host, flake in where.items()}
    result = migrate(path, "host_locks", hosts=groups)
    assert result["landed"], result
    assert sorted(file.name for file in (path / "locks").iterdir()) == sorted(f"{host}.lock" for host in before)
    found = info(path)
    assert found["strategy"] == "host_locks"
    assert {host: known["after"] for host, known in result["hosts"].items()} == before
    assert not migrate(path, "host_locks", hosts=groups)["changed"]
    back = migrate(path, "group_flakes", hosts=groups)
    assert back["landed"], back
    assert {host: drv(path, f"hosts/{group}", host) for group, some in hosts.items() for host in some} == before


def test_flakes_of_groups_with_the_same_pins_become_one_and_others_are_refused(made: Fixture) -> None:
    path = made.repo.path
    made.group("sbcs", {"pi-1": 'lib.host { name = "pi-1"; }'})
    made.group("servers", {"web": 'lib.host { name = "web"; }'})
    before = {"pi-1": drv(path, "hosts/sbcs", "pi-1"), "web": drv(path, "hosts/servers", "web")}
    made.release("2")
    made.nix_lock("hosts/sbcs", "update")
    made.repo.commit()
    state = made.repo.state()
    refused = migrate(path, "single")
    assert "pi-1 and web have different pins of nixpkgs, and one lock has one pin of each" in refused["msg"]
    assert made.repo.state() == state
    made.repo.git("revert", "--no-edit", "HEAD")
    result = migrate(path, "single")
    assert result["landed"], result
    assert {host: drv(path, ".", host) for host in before} == before
    assert info(path)["strategy"] == "single"


# -- hosts that are in no group -------------------------------------------------------------------------------------------


def test_a_host_of_no_group_does_not_get_other_pins_with_the_one_lock(made: Fixture) -> None:
    single(made)
    assert migrate(made.repo.path, "host_locks", hosts={"sbcs": ["pi-*"]})["landed"]
    path = made.repo.path
    assert sorted(file.name for file in (path / "locks").iterdir()) == ["pi-1.lock", "pi-2.lock"]
    made.nix_lock(".", "update")
    made.repo.commit()
    state = made.repo.state()
    result = migrate(path, "single", hosts={"sbcs": ["pi-*"]})
    assert result["failed"], result
    assert "web would not be the same afterwards, so nothing was landed" in result["msg"]
    assert "web is in no group that is moved. Name them in flotilla_groups" in result["msg"]
    assert (result["hosts"]["web"]["group"], result["hosts"]["web"]["same"]) == (None, False)
    assert made.repo.state() == state


def test_a_host_of_no_group_keeps_its_own_lock_when_the_others_get_one(made: Fixture) -> None:
    single(made)
    path = made.repo.path
    assert migrate(path, "host_locks", hosts=GROUPS)["landed"]
    before = pin(path, "locks/web.lock")
    made.nix_lock(".", "update")
    made.repo.commit()
    result = migrate(path, "single", hosts={"sbcs": ["pi-*"]})
    assert result["landed"], result
    assert result["hosts"]["web"]["same"] is True
    assert (pin(path, "locks/web.lock"), (path / "locks/pi-1.lock").exists()) == (before, False)


def test_a_host_of_no_group_does_not_lose_the_lock_that_it_shares(made: Fixture) -> None:
    single(made)
    path = made.repo.path
    made.repo.write("locks/sbcs.lock", (path / "flake.lock").read_text())
    made.nix_lock(".", "update")
    made.repo.commit()
    state = made.repo.state()
    result = migrate(path, "host_locks", hosts={"sbcs": ["pi-1"]})
    assert result["landed"], result
    made.repo.git("reset", "--quiet", "--hard", "HEAD^")
    assert made.repo.state() == state
    result = migrate(path, "single", hosts={"sbcs": ["pi-1"]})
    assert result["failed"], result
    assert "pi-2, web would lose the files that they may be made with (locks/sbcs.lock)" in result["msg"]
    assert "Name them in flotilla_groups, too." in result["msg"]
    assert made.repo.state() == state


def test_hosts_of_no_group_do_not_lose_their_flake_when_flakes_are_joined(made: Fixture) -> None:
    single(made)
    path = made.repo.path
    assert migrate(path, "group_flakes", hosts=GROUPS)["landed"]
    state = made.repo.state()
    result = migrate(path, "host_locks", hosts={"sbcs": ["pi-1"], "servers": ["web"]})
    assert result["failed"], result
    assert "pi-2 would lose the files that they may be made with (hosts/sbcs/flake" in result["msg"]
    assert "Name them in flotilla_groups, too." in result["msg"]
    assert made.repo.state() == state
    assert migrate(path, "host_locks", hosts=GROUPS)["landed"]


def test_a_broken_host_of_no_group_is_in_nobodys_way(made: Fixture) -> None:
    single(made)
    _broken_host(made)
    assert migrate(made.repo.path, "group_flakes", hosts={"sbcs": ["pi-*"]})["landed"]


# -- refusals -------------------------------------------------------------------------------------------------------------


def _dirty(made: Fixture) -> dict[str, Any]:
    made.repo.write("hosts/sbcs/flake.nix", "mine")
    return {"hosts": GROUPS}


def _staged(made: Fixture) -> dict[str, Any]:
    made.repo.write("flake.lock", "{}")
    made.repo.git("add", "flake.lock")
    return {"hosts": GROUPS}


def _hand_written(made: Fixture) -> dict[str, Any]:
    made.repo.write("hosts/sbcs/flake.nix", "{ outputs = _: { }; }")
    made.repo.commit()
    return {"hosts": GROUPS}


def _broken_host(made: Fixture) -> dict[str, Any]:
    text = (made.repo.path / "flake.nix").read_text()
    made.repo.write("flake.nix", text.replace('web = host "web"', 'web = host (throw "no such disk")'))
    made.repo.commit()
    return {"hosts": GROUPS}


def _detached(made: Fixture) -> dict[str, Any]:
    made.repo.git("checkout", "--quiet", "--detach")
    return {"hosts": GROUPS}


REFUSED: Mapping[str, tuple[Any, str]] = {
    "dirty": (_dirty, "files are in the way that are not committed: hosts/sbcs/flake.nix. Commit them"),
    "staged": (_staged, "files are in the way that are not committed: flake.lock. Commit them"),
    "hand-written": (_hand_written, "sbcs: hosts/sbcs/flake.nix is there already, and hosts of the group are in another flake."),
    "broken": (_broken_host, "web: it does not evaluate as it is, so that nothing can be compared: .*no such disk"),
    "detached": (_detached, "its HEAD is detached, so there is no branch to land on"),
    "no groups": (lambda _made: {}, "one lock is for all hosts, and nothing says which of them belong together.*pi-1, pi-2, web"),
    "empty group": (lambda _made: {"hosts": {"sbcs": []}}, "sbcs: it has no hosts"),
    "no such host": (lambda _made: {"hosts": {"sbcs": ["pi-9"]}}, "there is no 'pi-9' in nixosConfigurations.*Did you mean pi-"),
    "twice": (lambda _made: {"hosts": {"a": ["pi-*"], "b": ["pi-1"]}}, "pi-1: it would be in two groups: a and b"),
    "unknown": (lambda _made: {"to": "flakes"}, "nothing can be moved to 'flakes'.*group_flakes, host_locks, single"),
    "by hand": (lambda _made: {"to": "stage_flakes"}, "stage_flakes is a strategy, but its flakes have to be written by hand"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_sentence_and_changes_nothing(made: Fixture, name: str) -> None:
    single(made)
    prepare, words = REFUSED[name]
    options = {"to": "group_flakes", **prepare(made)}
    before = made.repo.state()
    result = migrate(made.repo.path, options.pop("to"), **options)
    assert result["failed"]
    assert re.search(words, result["msg"]), result["msg"]
    assert made.repo.state() == before


# -- the playbook ---------------------------------------------------------------------------------------------------------


def test_the_playbook_takes_the_groups_of_the_inventory(
    tmp_path: Path, ansible: Ansible, controller: dict[str, str], source: Upstream
) -> None:
    fleet = example(tmp_path, "group_inputs", source, controller)
    before = {host: drv(fleet.path, ".", host) for host in ("canary1", "stable1")}
    words = ("flotilla.nixos.migrate", "-e", "flotilla_to=group_flakes")
    inventory = fleet.path / "inventory"
    state = fleet.repo.state()
    checked = ansible.playbook(*words, "--check", "--diff", inventory=inventory)
    assert "+      all = import ../../outputs.nix inputs;" in checked.text
    assert fleet.repo.state() == state
    misspelled = ansible.playbook(*words, "-e", "flotilla_allow_revison=true", inventory=inventory, check=False)
    assert "flotilla_allow_revison is no variable of flotilla.nixos" in misspelled.text
    assert fleet.repo.state() == state
    played = ansible.playbook(*words, inventory=inventory)
    assert played.of("flake_migrate")[0].result["landed"]
    assert "flotilla_update_group: canary" in played.text
    after = {"canary1": drv(fleet.path, "hosts/canary", "canary1"), "stable1": drv(fleet.path, "hosts/stable", "stable1")}
    assert after == before
    again = ansible.playbook(*words, inventory=inventory)
    assert not again.of("flake_migrate")[0].result["changed"]
    missing = ansible.playbook("flotilla.nixos.migrate", inventory=inventory, check=False)
    assert "flotilla_to is not set" in missing.text
