# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin flakes with real nix, and flake_info beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from integration.repositories import UPSTREAM, Fixture, fixture
from testbed.playbooks import Ansible

HOSTS = {
    "sbcs": {"pi-1": 'lib.host { name = "one"; }', '"pi.2"': 'lib.host { name = "two"; system = "aarch64-linux"; }'},
    "servers": {"web": 'lib.host { name = "web"; }'},
}


@pytest.fixture
def fleet_repo(tmp_path: Path, controller: Mapping[str, str]) -> Fixture:  # noqa: ARG001 - nix comes from it
    made = fixture(tmp_path, name="the fleet")
    for name, hosts in HOSTS.items():
        made.group(name, hosts)
    return made


@dataclass(slots=True)
class Inventory:
    """The plugin on a file of options in the fleet's repository, in this process. warnings: those of the last run."""

    file: Path
    warnings: str = ""

    def write(self, options: Mapping[str, Any]) -> None:
        self.file.write_text(json.dumps({"plugin": "flotilla.nixos.flakes", **options}))

    def groups(self, *, flush: bool = False, **options: Any) -> InventoryData:
        self.write(options)
        plugin = inventory_loader.get("flotilla.nixos.flakes")
        data, said = InventoryData(), list[str]()
        assert plugin.verify_file(str(self.file))
        with patch.object(plugin.display, "warning", said.append):
            plugin.parse(data, DataLoader(), str(self.file), cache=not flush)
        plugin.update_cache_if_changed()
        self.warnings = "\n".join(said)
        return data

    def hosts(self, **options: Any) -> dict[str, list[str]]:
        """The hosts of each group."""
        groups = self.groups(**options).groups
        return {name: [host.name for host in group.hosts] for name, group in groups.items() if group.hosts}

    def variables(self, host: str, **options: Any) -> dict[str, Any]:
        """A host's variables, and its groups'."""
        data = self.groups(**options)
        found = [data.groups["all"].vars, *(group.vars for group in data.hosts[host].groups), data.hosts[host].vars]
        return {name: value for variables in found for name, value in variables.items()}

    def refuse(self, **options: Any) -> str:
        with pytest.raises(AnsibleParserError) as caught:
            self.groups(**options)
        return str(caught.value)


@pytest.fixture
def inventory(fleet_repo: Fixture) -> Inventory:
    return Inventory(fleet_repo.repo.path / "fleet.flotilla.yml")


def test_groups_hosts_and_variables(inventory: Inventory, fleet_repo: Fixture, ansible: Ansible) -> None:
    before = fleet_repo.repo.state()
    inventory.write(
        {
            "keyed_groups": [{"key": "flotilla_platform", "prefix": "on"}],
            "compose": {"ansible_host": "flotilla_attribute ~ '.lan'"},
            "groups": {"small": "flotilla_update_group == 'sbcs'"},
        }
    )
    done = ansible.run(["ansible-inventory", "-i", str(inventory.file), "--list"])
    assert done.ok, done.stderr
    found = json.loads(done.stdout, object_hook=lambda value: value.get("__ansible_unsafe", value))
    assert found["sbcs"]["hosts"] == ["pi-1", "pi.2"]
    assert found["servers"]["hosts"] == ["web"]
    assert found["small"]["hosts"] == ["pi-1", "pi.2"]
    assert found["on_aarch64_linux"]["hosts"] == ["pi.2"]
    variables = found["_meta"]["hostvars"]["pi.2"]
    assert variables.pop("flotilla_lock_age") < 1
    assert variables == {
        "ansible_host": "pi.2.lan",
        "flotilla_attribute": "pi.2",
        "flotilla_flake": "hosts/sbcs",
        "flotilla_fqdn": "two.example.org",
        "flotilla_host_name": "two",
        "flotilla_lock": "hosts/sbcs/flake.lock",
        "flotilla_platform": "aarch64-linux",
        "flotilla_repo": str(fleet_repo.repo.path),
        "flotilla_update_group": "sbcs",
        "flotilla_update_groups": ["sbcs", "servers"],
    }
    inventory.file.unlink()
    assert fleet_repo.repo.state() == before


def test_host_names_addresses_and_variables_from_the_configuration(inventory: Inventory) -> None:
    options = {
        "host_name": "{host_name}.{group}",
        "variables": {
            "ansible_host": "c.config.networking.fqdn",
            "ports": "[ 22 2222 ]",
            "none": "null",
            "refused": 'throw "no"',
        },
    }
    assert inventory.hosts(**options)["sbcs"] == ["one.sbcs", "two.sbcs"]
    variables = inventory.variables("two.sbcs", **options)
    assert variables["flotilla_attribute"] == "pi.2"
    assert variables["ansible_host"] == "two.example.org"
    assert variables["ports"] == [22, 2222]
    assert "none" not in variables
    assert "not" not in variables


def test_names_alone(inventory: Inventory, fleet_repo: Fixture) -> None:
    fleet_repo.group("sbcs", {"installer": 'throw "not to be looked at"', "pi-1": "{ }"})
    options = {"details": False, "exclude": ["inst*"]}
    assert inventory.hosts(**options)["sbcs"] == ["pi-1"]
    assert "flotilla_platform" not in inventory.variables("pi-1", **options)


def test_names_that_are_no_group_names_for_ansible(inventory: Inventory, fleet_repo: Fixture) -> None:
    fleet_repo.group("sbcs-field", {"far": 'lib.host { name = "far"; }'})
    with patch("ansible.constants.TRANSFORM_INVALID_GROUP_CHARS", "always"):
        assert inventory.hosts()["sbcs_field"] == ["far"]
        assert inventory.variables("far")["flotilla_update_group"] == "sbcs-field"


def test_values_from_flakes_are_no_templates(inventory: Inventory, ansible: Ansible, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    template = "{{ lookup('ansible.builtin.pipe', 'touch " + str(trap) + "') }}"
    options = {"variables": {"motto": json.dumps(template).replace("${", "\\${")}}
    inventory.write(options)
    plays = [
        {"hosts": "web", "gather_facts": False, "tasks": [{"name": "Say it", "ansible.builtin.debug": {"msg": "{{ motto }}"}}]}
    ]
    played = ansible.playbook(plays, inventory=inventory.file)
    assert played.of("debug")[0].result["msg"] == template
    assert not trap.exists()


def test_groups_as_they_are_named(inventory: Inventory, fleet_repo: Fixture) -> None:
    fleet_repo.group("all", {f'"{n}"': f'lib.host {{ name = "{n}"; }}' for n in ("canary-1", "web-1", "web-2")}, flake="fleet")
    fleet_repo.repo.git("branch", "kiosks")
    groups = {
        "canary": {"strategy": "group_inputs", "flake": "fleet", "inputs": ["nixpkgs"], "hosts": ["canary-*"]},
        "stable": {"flake": "fleet", "exclude": ["canary-*"]},
        "kiosks": {"strategy": "group_branches", "flake": "fleet", "hosts": ["none"]},
    }
    found = inventory.hosts(update_groups=groups)
    assert found["canary"] == ["canary-1"]
    assert found["stable"] == ["web-1", "web-2"]
    assert "sbcs" not in found
    variables = inventory.variables("canary-1", update_groups=groups)
    assert variables["flotilla_strategy"] == "group_inputs"
    assert variables["flotilla_inputs"] == ["nixpkgs"]
    assert variables["flotilla_flake"] == "fleet"
    assert "flotilla_lock" not in variables
    assert set(inventory.hosts(update_groups={"stable": {"flake": "fleet"}}, discover=True)) >= {"stable", "sbcs", "servers"}


def test_a_lock_for_each_host(inventory: Inventory, fleet_repo: Fixture) -> None:
    versions = 'lib.host { name = "NAME"; config.networking = { hostName = "NAME"; fqdn = "${lib.release}.NAME"; }; }'
    fleet_repo.upstream.write(
        "flake.nix", UPSTREAM.replace("VERSION", "1").replace("lib.run =", 'lib.release = "old"; lib.run =')
    )
    fleet_repo.upstream.commit()
    hosts = {name: versions.replace("NAME", name) for name in ("a", "b", "c")}
    fleet_repo.group("all", hosts, flake="fleet")
    lock = (fleet_repo.repo.path / "fleet/flake.lock").read_text()
    fleet_repo.repo.git("rm", "--quiet", "fleet/flake.lock")
    groups = {"all": {"strategy": "host_locks", "flake": "fleet"}}
    fleet_repo.repo.commit()
    assert "all: there is no lock locks/{host}.lock of any host at commit" in inventory.refuse(update_groups=groups, strict=True)
    fleet_repo.repo.write("locks/a.lock", lock)
    fleet_repo.upstream.write(
        "flake.nix", UPSTREAM.replace("VERSION", "2").replace("lib.run =", 'lib.release = "new"; lib.run =')
    )
    fleet_repo.upstream.commit()
    fleet_repo.nix_lock("fleet", "update")
    (fleet_repo.repo.path / "fleet/flake.lock").rename(fleet_repo.repo.path / "locks/b.lock")
    fleet_repo.repo.commit()
    assert inventory.hosts(update_groups=groups)["all"] == ["a", "b", "c"]
    assert "all: there is no lock locks/c.lock at commit" in inventory.warnings
    assert "locks/a.lock" not in inventory.warnings
    facts = {name: inventory.variables(name, update_groups=groups).get("flotilla_fqdn") for name in "abc"}
    assert facts == {"a": "old.a", "b": "new.b", "c": None}
    assert inventory.variables("a", update_groups=groups)["flotilla_strategy"] == "host_locks"
    assert inventory.hosts(update_groups=groups, details=False)["all"] == ["a", "b", "c"]
    assert inventory.warnings == ""
    # Its own lock goes by the host's name in the inventory.
    named = {"all": {"flake": "fleet", "lock": "locks/{host}.lock", "hosts": ["c"]}}
    fleet_repo.repo.git("mv", "locks/b.lock", "locks/kiosk-c.lock")
    fleet_repo.repo.commit()
    assert inventory.variables("kiosk-c", update_groups=named, host_name="kiosk-{host_name}")["flotilla_fqdn"] == "new.c"


def test_the_commit_counts_unless_the_work_tree_is_asked_for(inventory: Inventory, fleet_repo: Fixture) -> None:
    flake = fleet_repo.repo.path / "hosts/servers/flake.nix"
    flake.write_text(flake.read_text().replace("web =", "changed ="))
    assert inventory.hosts()["servers"] == ["web"]
    assert inventory.hosts(allow_dirty=True)["servers"] == ["changed"]


def test_a_broken_flake_leaves_the_others(inventory: Inventory, fleet_repo: Fixture) -> None:
    fleet_repo.group("servers", {"web": "a = syntax error"}, lock=False)
    fleet_repo.group("sbcs", {"bad": "lib.nope", "pi-1": 'lib.host { name = "one"; }'})
    assert inventory.hosts()["sbcs"] == ["bad", "pi-1"]
    assert "servers: evaluation failed: syntax error" in inventory.warnings
    assert "sbcs: evaluation of bad failed: attribute 'nope' missing at hosts/sbcs/flake.nix:5" in inventory.warnings
    assert "sbcs: evaluation of bad failed" in inventory.refuse(strict=True)


def test_a_flake_that_git_does_not_track(inventory: Inventory, fleet_repo: Fixture) -> None:
    shutil.copytree(fleet_repo.repo.path / "hosts/servers", fleet_repo.repo.path / "hosts/desktops")
    message = "hosts/desktops/flake.nix is not tracked by git, so nix does not see it. Run: git add hosts/desktops/flake.nix"
    assert "desktops" not in inventory.hosts()
    assert message in inventory.warnings
    assert message in inventory.refuse(strict=True)
    assert message in inventory.refuse(update_groups={"desktops": {}}, strict=True)


def test_a_host_in_two_groups(inventory: Inventory, fleet_repo: Fixture) -> None:
    fleet_repo.group("desktops", {"web": 'lib.host { name = "web"; }'})
    assert "host 'web': it would be in two update groups, as web of desktops and as web of servers." in inventory.refuse()
    assert inventory.hosts(host_name="{attribute}.{group}")["desktops"] == ["web.desktops"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"repo": "/nowhere"}, "is not a git repository"),
        ({"pattern": "nothing/*/flake.nix"}, "no flake at HEAD matches nothing/*/flake.nix"),
        ({"update_groups": {"../x": {}}}, "update group '../x': this name cannot be used"),
        ({"update_groups": {"x": {"flak": "y"}}}, "update_groups.x: there is no flak. Use strategy, repo"),
        ({"update_groups": {"x": {"hosts": "y"}}}, "update_groups.x.hosts: this is not a list"),
        ({"update_groups": {"x": {"strategy": "y"}}}, "there is no strategy 'y'. Choose one of group_flakes"),
        ({"host_name": "{nope}"}, "this is not a text with placeholders"),
    ],
)
def test_bad_options(inventory: Inventory, options: Mapping[str, Any], said: str) -> None:
    assert said in inventory.refuse(**options)


def test_a_controller_without_nix(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if shutil.which("nix"):
        monkeypatch.setattr("ansible_collections.flotilla.nixos.plugins.module_utils.nix.MINIMUM", (99, 0))
    assert "Install nix" in inventory.refuse()


def test_files_of_other_names_are_not_ours(inventory: Inventory) -> None:
    inventory.write({})
    plugin = inventory_loader.get("flotilla.nixos.flakes")
    other = inventory.file.with_name("fleet.yml")
    other.write_bytes(inventory.file.read_bytes())
    assert plugin.verify_file(str(inventory.file))
    assert not plugin.verify_file(str(other))


def test_the_cache_is_used_as_long_as_nothing_has_changed(inventory: Inventory, fleet_repo: Fixture, tmp_path: Path) -> None:
    options = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    assert inventory.variables("pi.2", **options)["flotilla_fqdn"] == "two.example.org"
    (kept,) = (tmp_path / "cache").iterdir()
    doctored = kept.read_text().replace("two.example.org", "kept.example.org")
    kept.write_text(doctored)
    assert inventory.variables("pi.2", **options)["flotilla_fqdn"] == "kept.example.org"
    assert inventory.variables("pi.2", **options, exclude=["web"])["flotilla_fqdn"] == "two.example.org"
    kept.write_text(doctored)
    assert inventory.variables("pi.2", **options, flush=True)["flotilla_fqdn"] == "two.example.org"
    kept.write_text(doctored)
    fleet_repo.group("servers", {"new": 'lib.host { name = "new"; }'})
    assert inventory.hosts(**options)["servers"] == ["new"]
    assert inventory.variables("pi.2", **options)["flotilla_fqdn"] == "two.example.org"


def info(ansible: Ansible, fleet_repo: Fixture, *groups: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    inventory = fleet_repo.repo.path.parent / "localhost.json"
    inventory.write_text('{"all": {"hosts": {"localhost": {"ansible_connection": "local"}}}}')
    given = [{"repo": str(fleet_repo.repo.path), **group} for group in groups]
    task = {"name": "Look", "flotilla.nixos.flake_info": {"groups": given, **options}}
    played = ansible.playbook([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}], inventory=inventory)
    result = played.of("flake_info")[0].result
    assert not result["changed"]
    found: dict[str, Any] = result["groups"]
    return found


def test_info_of_groups(ansible: Ansible, fleet_repo: Fixture) -> None:
    repo = fleet_repo.repo
    head = repo.git("rev-parse", "HEAD")
    repo.write("hosts/sbcs/extra.nix", "{ }")
    before = repo.state()
    found = info(
        ansible,
        fleet_repo,
        {"name": "sbcs", "hosts": [{"name": "a", "attribute": "pi-1"}, {"name": "pi.3"}], "inputs": ["nope"]},
        {"name": "servers", "hosts": [{"name": "web"}]},
        {"name": "web", "flake": "hosts/servers"},
        {"name": "missing"},
        {"name": "late", "flake": "hosts/servers", "lock": "locks/{group}.lock"},
    )
    assert repo.state() == before
    sbcs = found["sbcs"]
    assert (sbcs["commit"], sbcs["branch"], sbcs["hosts"], sbcs["lock_state"]) == (head, "main", ["pi-1", "pi.2"], "locked")
    assert sbcs["inputs"]["nixpkgs"]["rev"] == fleet_repo.upstream.git("rev-parse", "HEAD")
    assert sbcs["inputs"]["nixpkgs"]["age"] < 1
    assert sbcs["untracked_files"] == ["hosts/sbcs/extra.nix"]
    said = [(problem["level"], problem["msg"]) for problem in sbcs["problems"]]
    assert ("error", "sbcs: the lock has no input nope. Put others into flotilla_inputs; there are: nixpkgs.") in said
    assert any(level == "error" and "there is no 'pi.3'" in msg for level, msg in said)
    assert any("has hosts that the group has not: pi.2" in msg for _level, msg in said)
    assert any("what is not committed is not deployed: hosts/sbcs/extra.nix" in msg for _level, msg in said)
    assert not sbcs["usable"]
    assert found["servers"]["usable"]
    assert any("moves the group web too" in problem["msg"] for problem in found["servers"]["problems"])
    assert "there is no hosts/missing/flake.nix" in found["missing"]["problems"][0]["msg"]
    assert found["late"]["lock_state"] == "missing"


def test_info_of_locks(ansible: Ansible, fleet_repo: Fixture) -> None:
    fleet_repo.group("new", {"h": 'lib.host { name = "h"; }'}, lock=False)
    fleet_repo.group("conflict", {"h": 'lib.host { name = "h"; }'})
    fleet_repo.repo.write("hosts/conflict/flake.lock", "<<<<<<< a\n=======\n>>>>>>> b\n")
    fleet_repo.group("more", {"h": 'lib.host { name = "h"; }'})
    flake = (fleet_repo.repo.path / "hosts/more/flake.nix").read_text()
    more = flake.replace("inputs.nixpkgs", f'inputs.more.url = "git+file://{fleet_repo.upstream.path}";\n  inputs.nixpkgs')
    fleet_repo.repo.write("hosts/more/flake.nix", more.replace("self, nixpkgs", "self, nixpkgs, more"))
    fleet_repo.repo.write("hosts/none/flake.nix", "{ outputs = _: { nixosConfigurations = { }; }; }")
    fleet_repo.repo.commit()
    fleet_repo.nix_lock("hosts/new")
    names = ("new", "conflict", "more", "none", "sbcs")
    found = info(ansible, fleet_repo, *({"name": name} for name in names))
    assert {name: found[name]["lock_state"] for name in names} == {
        "new": "untracked",
        "conflict": "broken",
        "more": "unlocked",
        "none": "none",
        "sbcs": "locked",
    }
    assert [name for name in names if found[name]["usable"]] == ["none", "sbcs"]
    quick = info(ansible, fleet_repo, {"name": "sbcs"}, evaluate=False)
    assert quick["sbcs"]["hosts"] is None
