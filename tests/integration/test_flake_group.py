# SPDX-License-Identifier: GPL-3.0-or-later
"""flake_group with real nix and git: what it writes evaluates, moves change no lock, and what is not ours is left alone."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import FlotillaError
from ansible_collections.flotilla.nixos.plugins.module_utils.flake_text import Render, built_in
from ansible_collections.flotilla.nixos.plugins.module_utils.group_layout import GroupWish, HostWish, Order
from ansible_collections.flotilla.nixos.plugins.module_utils.group_making import Made, Means, make_groups
from ansible_collections.flotilla.nixos.plugins.plugin_utils.file_diffs import owner
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Repo, new_repo, sh
from testbed import upstream

SYSTEM = f"{platform.machine()}-linux"
BASE = '{ services.openssh.enable = true; system.stateVersion = "25.05"; }\n'


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


@pytest.fixture
def source(tmp_path: Path) -> upstream.Upstream:
    return upstream.create(tmp_path / "nixpkgs.git")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository with a module for all hosts."""
    made = new_repo(tmp_path / "fleet")
    identify(made)
    made.write("modules/base.nix", BASE)
    made.commit()
    return made


@pytest.fixture
def fleet_repo(repo: Repo, source: upstream.Upstream) -> Repo:
    """The groups servers (web1) and sbcs (pi-1, pi-2), with locks to different releases, committed."""
    for name, hosts in (("sbcs", ("pi-1", "pi-2")), ("servers", ("web1",))):
        make(repo, wish(name, *hosts, source=source), commit=True)
        source.release("25.05.2")
    assert lock(repo, "sbcs") != lock(repo, "servers")
    return repo


def identify(repo: Repo) -> None:
    repo.git("config", "user.name", "Op Erator")
    repo.git("config", "user.email", "op@example.org")


def wish(name: str, *hosts: str | HostWish, source: upstream.Upstream | None = None, **more: Any) -> GroupWish:
    listed = tuple(host if isinstance(host, HostWish) else HostWish(host) for host in hosts)
    new = {"inputs": {"nixpkgs": source.url()}, "modules": ("modules/base.nix",)} if source else {}
    return GroupWish(name, listed or None, **{**new, **more})


def make(
    repo: Repo,
    *wishes: GroupWish,
    render: Render = built_in,
    present: bool = True,
    append: bool = False,
    force: bool = False,
    **means: Any,
) -> Made:
    order = Order(tuple(wishes), render, SYSTEM, present, append, force)
    return make_groups(LocalRunner(), str(repo.path), order, Means(owner(), **means))


def flake(repo: Repo, group: str) -> str:
    return (repo.path / f"hosts/{group}/flake.nix").read_text()


def lock(repo: Repo, group: str) -> bytes:
    return (repo.path / f"hosts/{group}/flake.lock").read_bytes()


def names(repo: Repo, group: str) -> list[str]:
    found: list[str] = json.loads(
        sh(
            "nix", "eval", "--json", "--no-update-lock-file", f"git+file://{repo.path}?dir=hosts/{group}#nixosConfigurations",
            "--apply", "builtins.attrNames",
        )
    )  # fmt: skip
    return found


def drv(repo: Repo, group: str, host: str) -> str:
    ref = f"git+file://{repo.path}?dir=hosts/{group}#nixosConfigurations.{host}.config.system.build.toplevel.drvPath"
    return sh("nix", "eval", "--raw", "--no-update-lock-file", ref)


def everything(repo: Repo) -> tuple[str, dict[str, bytes], str]:
    """Index, refs, files and their contents."""
    files = {
        str(p.relative_to(repo.path)): p.read_bytes() for p in repo.path.rglob("*") if p.is_file() and ".git/" not in f"{p}/"
    }
    return repo.state(), files, repo.git("diff", "--cached")


# Making and changing


def test_a_new_group_evaluates_and_a_second_run_does_nothing(repo: Repo, source: upstream.Upstream) -> None:
    wanted = wish("sbcs", "pi-1", HostWish("green.example.org", "pi-3", system="aarch64-linux"), source=source)
    before = everything(repo)
    checked = make(repo, wanted, check=True)
    assert checked.changed
    assert everything(repo) == before
    made = make(repo, wanted)
    assert [file.path for file in made.files] == [file.path for file in checked.files]
    assert [file.after for file in made.files] == [file.after for file in checked.files]
    assert sorted(made.changes.texts) == [
        "hosts/sbcs/flake.lock", "hosts/sbcs/flake.nix", "hosts/sbcs/green.example.org.nix", "hosts/sbcs/pi-1.nix",
    ]  # fmt: skip
    assert names(repo, "sbcs") == ["pi-1", "pi-3"]
    assert drv(repo, "sbcs", "pi-1").endswith("-nixos-system-pi-1-25.05.1.drv")
    assert "nixos-system-green-" in drv(repo, "sbcs", "pi-3")
    # Nix sees them, and nothing is staged.
    assert repo.git("diff", "--name-only").splitlines() == sorted(made.changes.texts)
    assert repo.git("diff", "--cached", "--name-only") == ""
    after = everything(repo)
    assert not make(repo, wanted).changed
    assert everything(repo) == after


def test_a_moved_host_takes_its_files_along_and_no_lock_changes(fleet_repo: Repo) -> None:
    repo = fleet_repo
    repo.write("hosts/sbcs/pi-2.nix", '{ environment.etc."board".text = "two"; }\n')
    repo.write("hosts/sbcs/pi-1/default.nix", "{ imports = [ ./disk.nix ]; }\n")
    repo.write("hosts/sbcs/pi-1/disk.nix", '{ environment.etc."disk".text = "one"; }\n')
    repo.git("rm", "--quiet", "--force", "hosts/sbcs/pi-1.nix")
    repo.git("add", "hosts")
    make(repo, wish("sbcs", HostWish("pi-1", modules=("hosts/sbcs/pi-1",)), "pi-2"))
    repo.commit()
    locks = lock(repo, "sbcs"), lock(repo, "servers")
    made = make(repo, wish("servers", "pi-1", "pi-2"), append=True)
    assert {group.name: group.moved for group in made.plan.groups} == {"servers": {"pi-1": "sbcs", "pi-2": "sbcs"}, "sbcs": {}}
    assert (lock(repo, "sbcs"), lock(repo, "servers")) == locks
    assert (names(repo, "sbcs"), names(repo, "servers")) == ([], ["pi-1", "pi-2", "web1"])
    assert "nixos-system-pi-1-25.05.2" in drv(repo, "servers", "pi-1")
    assert (repo.path / "hosts/servers/pi-1/disk.nix").exists()
    assert not (repo.path / "hosts/sbcs/pi-1").exists()
    assert "R  hosts/sbcs/pi-2.nix -> hosts/servers/pi-2.nix" in repo.git("status", "--porcelain").splitlines()
    assert not make(repo, wish("servers", "web1", "pi-1", "pi-2")).changed


def test_a_new_group_has_the_pins_that_its_hosts_had(fleet_repo: Repo) -> None:
    before = drv(fleet_repo, "sbcs", "pi-2")
    made = make(fleet_repo, wish("canary", "pi-2"))
    assert made.locks == {"canary": "hosts/sbcs"}
    assert lock(fleet_repo, "canary") == lock(fleet_repo, "sbcs")
    assert drv(fleet_repo, "canary", "pi-2") == before
    # And back again, with nothing left of it.
    start = fleet_repo.git("rev-parse", "HEAD:hosts")
    make(fleet_repo, wish("sbcs", "pi-1", "pi-2"))
    make(fleet_repo, wish("canary"), present=False)
    fleet_repo.git("add", "-A")
    assert fleet_repo.git("write-tree", "--prefix=hosts/") == start


def test_a_commit_has_these_files_alone(fleet_repo: Repo) -> None:
    repo = fleet_repo
    repo.write("modules/other.nix", "{ }\n")
    repo.git("add", "modules/other.nix")
    repo.write("modules/base.nix", BASE + "# edited\n")
    made = make(repo, wish("servers", "web1", "pi-2"), commit=True)
    assert made.commit == repo.git("rev-parse", "HEAD")
    assert repo.git("show", "--format=%s", "--name-status", "--no-renames", "HEAD").split("\n") == [
        "servers: take pi-2 from sbcs",
        "",
        "M\thosts/sbcs/flake.nix",
        "D\thosts/sbcs/pi-2.nix",
        "M\thosts/servers/flake.nix",
        "A\thosts/servers/pi-2.nix",
    ]
    assert repo.git("diff", "--name-only") == "modules/base.nix"
    assert repo.git("diff", "--cached", "--name-only") == "modules/other.nix"


def test_a_removed_host_keeps_its_file(fleet_repo: Repo) -> None:
    made = make(fleet_repo, wish("sbcs", "pi-1"))
    assert made.plan.groups[0].removed == ["pi-2"]
    assert (fleet_repo.path / "hosts/sbcs/pi-2.nix").exists()
    assert made.plan.warnings == [
        "sbcs: pi-2 is no longer in hosts/sbcs/flake.nix; its hosts/sbcs/pi-2.nix is left: git rm it if it is of no more use"
    ]


def test_a_group_goes_when_it_is_empty_or_forced(fleet_repo: Repo) -> None:
    before = everything(fleet_repo)
    with pytest.raises(FlotillaError, match=r"sbcs: it still has hosts: pi-1, pi-2\. Move them"):
        make(fleet_repo, wish("sbcs"), present=False)
    assert everything(fleet_repo) == before
    made = make(fleet_repo, wish("sbcs"), present=False, force=True)
    assert made.plan.warnings == ["sbcs: other files of its directory are left: hosts/sbcs/pi-1.nix, hosts/sbcs/pi-2.nix"]
    assert sorted(os.listdir(fleet_repo.path / "hosts/sbcs")) == ["pi-1.nix", "pi-2.nix"]
    assert not make(fleet_repo, wish("sbcs"), present=False).changed


def test_other_inputs_change_only_the_pins_that_they_must(fleet_repo: Repo, source: upstream.Upstream) -> None:
    old = json.loads(lock(fleet_repo, "sbcs"))["nodes"]["nixpkgs"]
    inputs = {"nixpkgs": source.url(), "stable": source.url("nixos-25.05")}
    make(fleet_repo, wish("sbcs", inputs=inputs))
    nodes = json.loads(lock(fleet_repo, "sbcs"))["nodes"]
    assert nodes["nixpkgs"] == old
    assert nodes["root"]["inputs"] == {"nixpkgs": "nixpkgs", "stable": "stable"}
    assert names(fleet_repo, "sbcs") == ["pi-1", "pi-2"]


def test_hosts_of_another_flake_get_a_lock_of_their_own(repo: Repo, source: upstream.Upstream) -> None:
    repo.write(
        "flake.nix",
        f"""{{
  inputs.nixpkgs.url = "{source.url()}";
  outputs = {{ nixpkgs, ... }}: {{
    nixosConfigurations.web1 = nixpkgs.lib.nixosSystem {{ system = "{SYSTEM}"; modules = [ ./modules/base.nix ]; }};
  }};
}}
""",
    )
    repo.git("add", "flake.nix")
    sh("nix", "flake", "lock", f"path:{repo.path}")
    repo.commit()
    source.release("25.05.2")
    main = {"url": "path:../..", "inputs": {"nixpkgs": {"follows": "nixpkgs"}}}
    inputs = {"nixpkgs": source.url(), "fleet": main}
    make(repo, wish("servers", "web1", inputs=inputs, hosts_from="fleet", lock_from="flake.lock"))
    main_drv = sh("nix", "eval", "--raw", f"git+file://{repo.path}#nixosConfigurations.web1.config.system.build.toplevel.drvPath")
    assert drv(repo, "servers", "web1") == main_drv
    assert not make(repo, wish("servers", "web1")).changed
