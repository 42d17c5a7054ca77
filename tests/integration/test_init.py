# SPDX-License-Identifier: GPL-3.0-or-later
"""init.yml on the testbed: from nothing, and from one flake, to a fleet whose hosts are rolled out; and what it refuses."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from integration.repositories import Repo, new_repo, sh
from testbed import Host, upstream
from testbed.playbooks import Ansible, Played

SYSTEM = f"{platform.machine()}-linux"
ONE_FLAKE = """{
  inputs.nixpkgs.url = "%s";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = nixpkgs.lib.genAttrs [ "web1" "pi-1" ] (name: nixpkgs.lib.nixosSystem {
      system = "%s";
      specialArgs = { inherit self; };
      modules = [ ./base.nix { networking.hostName = name; } ];
    });
  };
}
"""


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


@pytest.fixture
def source(tmp_path: Path) -> upstream.Upstream:
    return upstream.create(tmp_path / "nixpkgs.git")


@pytest.fixture
def one_flake(tmp_path: Path, source: upstream.Upstream) -> Repo:
    """A repository with one flake for two hosts, locked, with upstream ahead of the lock."""
    made = new_repo(tmp_path / "fleet")
    identify(made)
    made.write("flake.nix", ONE_FLAKE % (source.url(), SYSTEM))
    made.write("base.nix", '{ self, ... }: { system.stateVersion = "25.05"; system.configurationRevision = self.rev or null; }\n')
    made.write("README.md", "Mine.\n")
    made.git("add", ".")
    sh("nix", "flake", "lock", f"path:{made.path}")
    made.commit()
    source.release("25.05.2")
    return made


def identify(repo: Repo) -> None:
    repo.git("config", "user.name", "Op Erator")
    repo.git("config", "user.email", "op@example.org")


def init(ansible: Ansible, path: Path, *words: str, check: bool = True, **variables: Any) -> Played:
    given = json.dumps({"flotilla_repo": str(path), **variables})
    return ansible.playbook("flotilla.nixos.init", "-e", given, *words, inventory="localhost,", check=check)


def everything(path: Path) -> dict[str, bytes]:
    """All files but git's objects, which a look may leave."""
    files = [p for p in path.rglob("*") if p.is_file() and "/objects/" not in str(p) and "/.git/flotilla" not in str(p)]
    return {str(p.relative_to(path)): p.read_bytes() for p in files if p.name != "index"}


def drv(path: Path, flake: str, host: str) -> str:
    where = "" if flake == "." else f"?dir={flake}"
    ref = f"git+file://{path}{where}#nixosConfigurations.{host}.config.system.build.toplevel.drvPath"
    return sh("nix", "eval", "--raw", "--no-update-lock-file", ref)


def test_from_nothing_to_hosts_that_run_it(
    ansible: Ansible, fresh_hosts: Callable[..., list[Host]], source: upstream.Upstream, tmp_path: Path
) -> None:
    web, pi = fresh_hosts("web1", "pi-1")
    path = tmp_path / "new" / "fleet"
    groups = {
        "servers": [{"name": "web1", "address": web.address}],
        "sbcs": {"hosts": [{"name": "pi-1", "address": pi.address}]},
    }
    wanted = {"flotilla_groups": groups, "flotilla_nixpkgs": source.url()}
    init(ansible, path, "--check", "--diff", **wanted)
    assert not path.exists()
    [made] = init(ansible, path, **wanted).of("fleet_init")
    assert made.result["to_fill_in"] == ["hosts/servers/web1.nix", "hosts/sbcs/pi-1.nix"]
    before = everything(path)
    [again] = init(ansible, path, **wanted).of("fleet_init")
    assert (again.result["changed"], again.result["kept"]) == (False, [])
    assert everything(path) == before
    repo = Repo(path)
    identify(repo)
    repo.write("hosts/sbcs/pi-1.nix", '{ environment.etc."site".text = "roof"; }\n')
    repo.git("commit", "--quiet", "--all", "-m", "Start")
    assert repo.git("status", "--porcelain") == ""
    done = ansible.run(["ansible-playbook", "rollout.yml", "-l", "sbcs"], cwd=path)
    assert done.ok, done.stdout + done.stderr
    assert pi.run("cat /etc/site").stdout.strip() == "roof"
    # The host moves to the servers, with neither lock, and its next rollout is theirs.
    locks = [(path / f"hosts/{group}/flake.lock").read_bytes() for group in ("servers", "sbcs")]
    move = {"repo": str(path), "groups": [{"name": "servers", "hosts": [{"name": "pi-1"}]}], "append": True, "commit": True}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"flotilla.nixos.flake_group": move}]}
    ansible.playbook([play], "-c", "local", inventory="localhost,")
    assert [(path / f"hosts/{group}/flake.lock").read_bytes() for group in ("servers", "sbcs")] == locks
    repo.write("hosts/servers/pi-1.nix", '{ environment.etc."site".text = "cellar"; }\n')
    repo.commit()
    done = ansible.run(["ansible-playbook", "rollout.yml", "-l", "pi-1"], cwd=path)
    assert done.ok, done.stdout + done.stderr
    assert "servers" in done.stdout
    assert pi.run("cat /etc/site").stdout.strip() == "cellar"


@pytest.mark.parametrize("how", ["whole", "split", "locks"])
def test_one_flake_becomes_a_fleet_without_a_changed_derivation(ansible: Ansible, one_flake: Repo, how: str) -> None:
    groups = {"flotilla_groups": {"servers": ["web1"], "sbcs": ["pi-1"]}}
    wanted = {"whole": {}, "split": groups, "locks": {**groups, "flotilla_strategy": "host_locks"}}[how]
    path, before = one_flake.path, everything(one_flake.path)
    init(ansible, path, "--check", **wanted)
    assert everything(path) == before
    [made] = init(ansible, path, "-e", "flotilla_commit=true", **wanted).of("fleet_init")
    assert made.result["kept"] == ["README.md"]
    assert {p: text for p, text in everything(path).items() if p in before and not p.startswith(".git/")} == {
        p: text for p, text in before.items() if not p.startswith(".git/")
    }
    old = {host: drv(path, ".", host) for host in ("web1", "pi-1")}
    if how == "split":
        assert made.result["proven"] == ["pi-1", "web1"]
        assert {"web1": drv(path, "hosts/servers", "web1"), "pi-1": drv(path, "hosts/sbcs", "pi-1")} == old
    if how == "locks":
        assert (path / "locks/sbcs.lock").read_bytes() == (path / "flake.lock").read_bytes()
    [again] = init(ansible, path, **wanted).of("fleet_init")
    assert not again.result["changed"]
    listed = json.loads(ansible.run(["ansible-inventory", "--list"], cwd=path).stdout)
    found = {name: sorted(listed[name]["hosts"]) for name in ("servers", "sbcs", "fleet") if name in listed}
    assert found == ({"fleet": ["pi-1", "web1"]} if how == "whole" else {"servers": ["web1"], "sbcs": ["pi-1"]})


@pytest.mark.parametrize(
    ("prepare", "variables", "says"),
    [
        ("", {}, "which hosts there are is not known. Give an inventory with -i"),
        ("", {"flotilla_groups": {}}, "groups: there are none."),
        ("", {"flotilla_groups": {"a": []}}, "the group a has no hosts."),
        ("", {"flotilla_groups": {"a": ["x"], "b": ["x"]}}, "host x: it is listed in a and in b."),
        ("", {"flotilla_groups": {"a": [{"nam": "x"}]}}, "a host of group a: there is no nam."),
        ("", {"flotilla_grups": {}}, "flotilla_grups is no variable of flotilla.nixos; the nearest is flotilla_groups."),
        ("echo '{ outputs = _: { }; }' >flake.nix", {"flotilla_groups": {"a": ["x"]}}, "there are flakes, and no git repository"),
        ("git init -q --bare .", {"flotilla_groups": {"a": ["x"]}}, "this is a bare repository"),
        ("git init -q ..", {"flotilla_groups": {"a": ["x"]}}, "this is inside the repository "),
    ],
)
def test_what_cannot_become_a_fleet(
    ansible: Ansible, tmp_path: Path, prepare: str, variables: Mapping[str, Any], says: str
) -> None:
    path = tmp_path / "outer" / "fleet"
    path.mkdir(parents=True)
    sh("sh", "-c", prepare or "true", cwd=path)
    before = everything(path)
    played = init(ansible, path, check=False, **variables)
    assert not played.ok
    assert says in played.of("fleet_init")[0].result["msg"]
    assert everything(path) == before
    assert sorted(p.name for p in path.iterdir()) == sorted({name.split("/")[0] for name in before} | set(_git_parts(path)))


def _git_parts(path: Path) -> list[str]:
    return [p.name for p in path.iterdir() if (path / "HEAD").exists()]
