# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and addresses from the outputs that colmena and deploy-rs read, with real nix.

The flakes have these outputs as the tools' own functions make them (colmena.lib.makeHive, deploy-rs.lib.*.activate.nixos).
Neither tool can be fetched here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.group_build import BuildSettings, build_groups
from ansible_collections.flotilla.nixos.plugins.module_utils.group_info import inspect
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import Member, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Fixture, fixture
from integration.test_inventory import Inventory

#: What makeHive gives, as far as anybody outside colmena reads it: evaluated nodes with the defaults of their options.
MAKE_HIVE = """
  makeHive = hive: rec {
    __schema = "v0.5";
    nodes = builtins.mapAttrs (name: node: lib.host {
      inherit name;
      config.deployment = { targetHost = name; targetUser = "root"; targetPort = null; tags = [ ]; allowLocalDeployment = false; }
        // (hive.defaults.deployment or { }) // node.deployment;
    }) (builtins.removeAttrs hive [ "meta" "network" "defaults" ]);
    deploymentConfig = builtins.mapAttrs (_: node: node.config.deployment) nodes;
  };
  activate = host: let base = host.config.system.build.toplevel; in derivation {
    name = "activatable-${base.name}"; inherit (base) system; builder = "/bin/sh"; args = [ "-c" "exit 1" ]; paths = [ base ];
  };
"""

FLAKE = """{
  inputs.nixpkgs.url = "git+file://%s?ref=main";
  outputs = { self, nixpkgs }: let
    lib = nixpkgs.lib;
%s
  in {
%s
  };
}
"""
CONFIGURATIONS = """
    nixosConfigurations.web1 = lib.host { name = "web1"; };
    nixosConfigurations.web2 = lib.host { name = "web2-internal"; };
"""
HIVE = """
    colmenaHive = makeHive {
      meta.nixpkgs = { };
      defaults.deployment.targetUser = "deploy";
      web1.deployment = { targetHost = "192.0.2.1"; targetPort = 2222; tags = [ "web" "eu-west" ]; };
      lab1.deployment = { targetHost = "lab1.example.org"; targetUser = null; };
    };
"""
NODES = """
    deploy.sshUser = "admin";
    deploy.sshOpts = [ "-p" "2222" "-J" "jump.example.org" ];
    deploy.nodes.web1 = { hostname = "192.0.2.1"; profiles.system.path = activate self.nixosConfigurations.web1; };
    deploy.nodes.shop = {
      hostname = "shop.example.org";
      profiles.system = { sshUser = "root"; path = activate self.nixosConfigurations.web2; };
    };
    deploy.nodes.laptop = { hostname = "laptop"; profiles.home.path = "/nix/store/x"; };
"""


@pytest.fixture
def made(tmp_path: Path, controller: Mapping[str, str]) -> Fixture:  # noqa: ARG001 - nix comes from it
    return fixture(tmp_path)


def servers(made: Fixture, *outputs: str) -> Inventory:
    """The group servers with a flake with these outputs, and its inventory."""
    made.repo.write("hosts/servers/flake.nix", FLAKE % (made.upstream.path, MAKE_HIVE, "".join(outputs)))
    made.repo.git("add", ".")
    made.nix_lock("hosts/servers")
    made.repo.commit()
    return Inventory(made.repo.path / "fleet.flotilla.yml")


def address(inventory: Inventory, host: str, **options: Any) -> dict[str, Any]:
    names = ("ansible_host", "ansible_user", "ansible_port", "ansible_ssh_common_args", "flotilla_attribute", "flotilla_tags")
    found = inventory.variables(host, **options)
    return {name.partition("_")[2]: found[name] for name in names if name in found}


def test_hosts_of_a_hive_have_its_addresses_and_tags(made: Fixture) -> None:
    inventory = servers(made, CONFIGURATIONS, HIVE)
    before = made.repo.git("status", "--porcelain", "--ignored")
    assert inventory.hosts() == {
        "servers": ["web1", "web2", "lab1"],
        "tag_web": ["web1"],
        "tag_eu_west": ["web1"],
    }
    assert inventory.warnings == ""
    assert address(inventory, "web1") == {
        "host": "192.0.2.1",
        "user": "deploy",
        "port": 2222,
        "attribute": "web1",
        "tags": ["web", "eu-west"],
    }
    assert address(inventory, "web2") == {"attribute": "web2"}
    assert address(inventory, "lab1") == {"host": "lab1.example.org", "attribute": "colmenaHive.nodes.lab1"}
    assert inventory.hosts(sources=["deploy-rs"]) == {"servers": ["web1", "web2"]}
    assert inventory.hosts(exclude=["lab*"])["servers"] == ["web1", "web2"]
    assert made.repo.git("status", "--porcelain", "--ignored").replace("?? fleet.flotilla.yml", "").strip() == before.strip()


def test_a_flake_that_has_a_hive_alone_is_built_from_it(made: Fixture) -> None:
    inventory = servers(made, HIVE)
    assert inventory.hosts()["servers"] == ["lab1", "web1"]
    assert inventory.variables("lab1")["flotilla_host_name"] == "lab1"
    members = [Member(name, inventory.variables(name)["flotilla_attribute"]) for name in ("lab1", "web1")]
    group = update_group("servers", str(made.repo.path), members=members)
    built = build_groups(
        LocalRunner(), [(group, None)], BuildSettings(keep=str(made.repo.path.parent / "roots")), lambda _line: None
    )
    assert {host.name: (host.phase, host.error) for host in built.groups["servers"].hosts} == {
        "lab1": ("done", ""),
        "web1": ("done", ""),
    }
    found = inspect(LocalRunner(), group, now=time.time())
    assert not [problem.what for problem in found.problems if problem.error]
    gone = update_group("servers", str(made.repo.path), members=[Member("lab2", "colmenaHive.nodes.lab2")])
    (host,) = build_groups(LocalRunner(), [(gone, None)], BuildSettings(dry=True), lambda _line: None).groups["servers"].hosts
    assert "there is no 'lab2' in colmenaHive.nodes of hosts/servers" in host.error


def test_nodes_of_deploy_rs_are_the_hosts_that_they_deploy(made: Fixture) -> None:
    inventory = servers(made, CONFIGURATIONS, NODES)
    assert inventory.hosts() == {"servers": ["web1", "web2"]}
    assert inventory.warnings == ""
    jump = {"port": 2222, "ssh_common_args": "-J jump.example.org"}
    assert address(inventory, "web1") == {"host": "192.0.2.1", "user": "admin", "attribute": "web1", **jump}
    assert address(inventory, "web2") == {"host": "shop.example.org", "user": "root", "attribute": "web2", **jump}


def test_what_a_node_deploys_may_be_unknown(made: Fixture) -> None:
    strange = """
    deploy.nodes.other = { hostname = "x"; profiles.system.path = derivation { name = "x"; system = "s"; builder = "b"; }; };
    deploy.nodes.bad = { hostname = throw "no"; profiles.system.path = activate self.nixosConfigurations.web1; };
    """
    inventory = servers(made, CONFIGURATIONS, strange)
    assert inventory.hosts() == {"servers": ["web1", "web2"]}
    assert "deploy.nodes.other deploys none of nixosConfigurations that could be told" in inventory.warnings
    assert "how bad in its output deploy are reached cannot be read" in inventory.warnings
    assert "cannot be read" in inventory.refuse(strict=True)


def test_sources_that_agree_are_one_and_those_that_do_not_are_named(made: Fixture) -> None:
    inventory = servers(made, CONFIGURATIONS, HIVE, NODES)
    # The host and the port are the same in both, the user is not.
    found = address(inventory, "web1")
    assert (found["host"], found["port"]) == ("192.0.2.1", 2222)
    assert "user" not in found
    assert "ansible_user is deploy in colmenaHive.web1 and admin in deploy.nodes.web1" in inventory.warnings
    assert "ansible_user is deploy in colmenaHive.web1" in inventory.refuse(strict=True)
    assert address(inventory, "web1", variables={"ansible_user": '"op"'})["user"] == "op"
    assert address(inventory, "web1", sources=["colmena"])["user"] == "deploy"
    assert inventory.warnings == ""


RAW = """
    colmena = {
      meta.nixpkgs = { lib = { mkDefault = content: { _type = "override"; priority = 1000; inherit content; }; }; };
      defaults = { lib, ... }: { deployment.targetUser = lib.mkDefault "deploy"; deployment.tags = [ "all" ]; };
      web1 = { name, nodes, pkgs, ... }: {
        imports = [ { deployment.targetHost = "${name}.example.org"; } ];
        deployment = { targetPort = 2222; tags = [ "web" ]; };
      };
      web2 = { config, ... }: { deployment.targetHost = config.networking.fqdn; };
      web3.deployment.targetUser = "root";
    };
"""


def test_a_hive_of_modules_is_read_as_far_as_it_goes(made: Fixture) -> None:
    inventory = servers(made, CONFIGURATIONS, RAW)
    hosts = inventory.hosts()
    assert hosts["servers"] == ["web1", "web2", "web3"]
    assert hosts["tag_web"] == ["web1"]
    assert (
        "how web2 in its output colmena are reached cannot be read. Give the flake the output colmenaHive" in inventory.warnings
    )
    assert "web3 is in no output but colmena, of which it cannot be built" in inventory.warnings
    assert address(inventory, "web1") == {
        "host": "web1.example.org",
        "user": "deploy",
        "port": 2222,
        "attribute": "web1",
        "tags": ["all", "web"],
    }
    assert address(inventory, "web3")["host"] == "web3"
    assert address(inventory, "web3")["user"] == "root"


def test_a_hive_that_does_not_evaluate_leaves_the_rest(made: Fixture) -> None:
    inventory = servers(made, CONFIGURATIONS, "colmena = { web1 = { lib }: { deployment = lib.x.y + 1; }; };\n")
    assert inventory.hosts() == {"servers": ["web1", "web2"]}
    assert "its output colmena cannot be read" in inventory.warnings or "how web1 in its output colmena" in inventory.warnings


def test_what_was_found_is_cached(made: Fixture) -> None:
    inventory = servers(made, CONFIGURATIONS, HIVE)
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(made.repo.path.parent / "cache")}
    first, second = (inventory.hosts(**cache) for _time in range(2))
    assert first == second
    assert first["tag_web"] == ["web1"]
