# SPDX-License-Identifier: GPL-3.0-or-later
"""flake_group with real nix and git: what it writes evaluates, moves change no lock, and what is not ours is left alone."""

from __future__ import annotations

import json
import os
import platform
import re
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
from testbed.playbooks import Ansible, Played

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


@pytest.mark.parametrize("state", ["changed", "staged", "untracked"])
def test_a_group_does_not_go_with_pins_that_no_commit_has(fleet_repo: Repo, state: str) -> None:
    path = "hosts/sbcs/flake.lock"
    if state == "untracked":
        fleet_repo.git("rm", "--quiet", "--cached", path)
        fleet_repo.git("commit", "--quiet", "-m", "Forget the lock")
    else:
        fleet_repo.write(path, lock(fleet_repo, "sbcs").decode() + "\n")
    if state == "staged":
        fleet_repo.git("add", path)
    said = refused(fleet_repo, wish("sbcs"), present=False, force=True)
    assert said.endswith(
        f"{path} has pins that no commit has, and would be removed. Commit it first, or remove it yourself: git rm -f {path}"
    )
    fleet_repo.commit()
    assert make(fleet_repo, wish("sbcs"), present=False, force=True).changed
    assert not (fleet_repo.path / path).exists()


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


# What is not ours


HAND = """{
  inputs.nixpkgs.url = "%s";
  outputs = { nixpkgs, ... }: {
    nixosConfigurations.desk1 = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ]; };
  };
}
"""


@pytest.fixture
def hand_written(fleet_repo: Repo, source: upstream.Upstream) -> Repo:
    """The same with the group desktops (desk1), whose flake the user wrote."""
    fleet_repo.write("hosts/desktops/flake.nix", HAND % source.url())
    fleet_repo.git("add", "hosts/desktops")
    sh("nix", "flake", "lock", f"path:{fleet_repo.path}?dir=hosts/desktops")
    fleet_repo.commit()
    return fleet_repo


def refused(repo: Repo, *wishes: GroupWish, **more: Any) -> str:
    """The message of an order that is refused, with and without check mode; nothing was changed."""
    before, said = everything(repo), []
    for check in (True, False):
        with pytest.raises(FlotillaError) as caught:
            make(repo, *wishes, **{"check": check, **more})
        # The commit that is looked at has the second in it.
        said.append(re.sub(r"rev=[0-9a-f]{40}", "rev=…", str(caught.value)))
    assert everything(repo) == before
    assert said[0] == said[1]
    return said[0]


def test_a_hand_written_flake_is_told_what_to_add(hand_written: Repo) -> None:
    repo = hand_written
    assert not make(repo, wish("desktops", "desk1")).changed
    new = HostWish("desk2", modules=("modules/base.nix",), system="aarch64-linux")
    said = refused(repo, wish("desktops", "desk1", new))
    start, _colon, lines = said.partition("Add to its nixosConfigurations:\n")
    assert start == "desktops: hosts/desktops/flake.nix was written by hand, so it is left alone, and it has no desk2. "
    assert lines.splitlines()[0] == "desk2 = nixpkgs.lib.nixosSystem {"
    # What it says to paste is right.
    text = flake(repo, "desktops")
    repo.write(
        "hosts/desktops/flake.nix",
        text.replace("nixosConfigurations.desk1", f"nixosConfigurations.{lines}\n    nixosConfigurations.desk1"),
    )
    assert not make(repo, wish("desktops", "desk1", new)).changed
    assert "nixos-system-desk2-25.05" in drv(repo, "desktops", "desk2")


def test_a_hand_written_flake_is_told_what_to_remove(hand_written: Repo) -> None:
    assert refused(hand_written, wish("desktops", "pi-9")).startswith("desktops: hosts/desktops/flake.nix was written by hand")
    said = refused(hand_written, wish("desktops"), present=False)
    assert said == (
        "desktops: hosts/desktops/flake.nix was written by hand or edited since, so it is left alone. "
        "Remove it: git rm hosts/desktops/flake.nix"
    )
    said = refused(hand_written, wish("servers", "web1", "desk1"))
    assert said.startswith("servers: desk1 is in hosts/desktops/flake.nix, too, which was written by hand. Remove it there")


def test_a_host_moves_to_a_hand_written_flake_once_it_is_there(hand_written: Repo) -> None:
    repo = hand_written
    said = refused(repo, wish("desktops", "desk1", "pi-2"))
    lines = said.partition("nixosConfigurations:\n")[2]
    assert "    ../sbcs/pi-2.nix" in lines.splitlines()
    text = flake(repo, "desktops")
    repo.write(
        "hosts/desktops/flake.nix",
        text.replace("nixosConfigurations.desk1", f"nixosConfigurations.{lines}\n    nixosConfigurations.desk1"),
    )
    assert make(repo, wish("desktops", "desk1", "pi-2")).changed
    assert (names(repo, "sbcs"), names(repo, "desktops")) == (["pi-1"], ["desk1", "pi-2"])
    assert drv(repo, "desktops", "pi-2")


def test_a_flake_that_was_edited_is_left_alone(fleet_repo: Repo) -> None:
    fleet_repo.write("hosts/sbcs/flake.nix", flake(fleet_repo, "sbcs").replace("Update group sbcs", "Boards"))
    said = refused(fleet_repo, wish("sbcs", "pi-1", "pi-2", "pi-3"))
    assert said.startswith(
        "sbcs: hosts/sbcs/flake.nix was edited since it was written here, so it is left alone, and it has no pi-3."
    )
    assert not make(fleet_repo, wish("sbcs", "pi-1", "pi-2")).changed


# Bad input


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"sbcs": ["pi-1"], "servers": ["pi-1"]}, "host pi-1: it is listed in sbcs and in servers. A host has one lock"),
        ({"sbcs": ["pi-1", "pi-1"]}, "host pi-1: it is listed twice."),
        ({"sbcs": ["-pi"]}, "host '-pi': this name cannot be used in a path"),
        ({"sbcs": ["a/b"]}, "host 'a/b': this name cannot be used in a path"),
        ({"sbcs": ["pi 1"]}, "host 'pi 1': this name cannot be used in a path"),
        ({"sbcs": ["pi_"]}, "host 'pi_': this is no name that NixOS takes for a host."),
        ({"sbcs": ["x" * 64]}, "this is no name that NixOS takes for a host."),
        ({"sbcs": ["flake"]}, "host 'flake': its file would be the group's flake.nix."),
        ({"a b": ["pi-1"]}, "update group 'a b': this name cannot be used"),
        ({"..": ["pi-1"]}, "update group '..': this name cannot be used"),
    ],
)
def test_names_that_cannot_be_used(repo: Repo, groups: Mapping[str, list[str]], says: str) -> None:
    assert says in refused(repo, *(wish(name, *hosts) for name, hosts in groups.items()))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"modules": ("modules/none.nix",)}, "x: there is no modules/none.nix in "),
        (
            {"modules": ("modules/new.nix",)},
            "x: modules/new.nix is not tracked by git, so nix does not see it. Run: git add modules/new.nix",
        ),
        ({"modules": ("modules",)}, "x: the directory modules has no default.nix."),
        ({"modules": ("../x.nix",)}, "module '../x.nix': this is not a plain path inside the repository."),
        ({"modules": (".",)}, "module '.': this is the whole repository."),
        ({"system": "x86"}, "x: 'x86' is no system."),
        ({"flake": "/srv"}, "flake '/srv': this is not a plain path inside the repository."),
        ({"flake": "hosts/sbcs"}, "x: hosts/sbcs/flake.nix is that of the group sbcs."),
        ({"flake": "modules/base.nix"}, "modules/base.nix is a file, and no directory"),
        ({"inputs": {"nixpkgs": ["no"]}}, "x: input nixpkgs has neither a url nor a mapping"),
        ({"inputs": {"self": "path:."}}, "x: an input cannot be called self."),
        ({"hosts_from": "main"}, "x: there is no input 'main' to take hosts from."),
        ({"lock_from": "nobody"}, "x: there is no lock hosts/nobody/flake.lock to take its pins from."),
        ({"flake": "ignored/x"}, "git ignores ignored/x/"),
    ],
)
def test_what_a_group_cannot_be(fleet_repo: Repo, source: upstream.Upstream, more: Mapping[str, Any], says: str) -> None:
    fleet_repo.write("modules/new.nix", "{ }\n")
    fleet_repo.write(".gitignore", "ignored\n")
    fleet_repo.git("add", ".gitignore")
    assert says in refused(fleet_repo, wish("x", "host-x", source=source, **more))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{ outputs = { self }: { nixosConfigurations.x = 1 }; }\n",
            "hosts/x/flake.nix:1: nix cannot read what would be written there",
        ),
        ("{ outputs = { self }: { nixosConfigurations.y = 1; }; }\n", "x: what the template makes lacks host-x and has y"),
        ('{ outputs = { self }: throw "not today"; }\n', "x: evaluation failed: not today at hosts/x/flake.nix:1."),
        ("{ outputs = { self }: { }; }\n", "x: evaluation failed: the flake has no nixosConfigurations."),
    ],
)
def test_a_template_that_is_no_flake(fleet_repo: Repo, template: str, says: str) -> None:
    said = refused(fleet_repo, wish("x", HostWish("host-x", modules=()), inputs={}), render=lambda _layout: template)
    assert says in said


def test_a_template_without_a_lock_is_looked_at_as_far_as_it_goes(fleet_repo: Repo) -> None:
    wanted = wish("x", HostWish("host-x", modules=()), inputs={"nixpkgs": "github:NixOS/nixpkgs"})
    said = refused(fleet_repo, wanted, render=lambda _layout: '{ inputs.nixpkgs.url = throw "nope"; outputs = 1; }', lock=False)
    assert said.startswith("x: its flake.nix does not evaluate: nope")
    made = make(fleet_repo, wanted, lock=False)
    assert sorted(made.changes.texts) == ["hosts/x/flake.nix"]


def test_repositories_that_cannot_be_used(tmp_path: Path, repo: Repo) -> None:
    wanted = wish("x", "host-x")
    sh("git", "clone", "--quiet", "--bare", str(repo.path), str(tmp_path / "bare.git"))
    (tmp_path / "empty").mkdir()
    said = {}
    for name in ("bare.git", "empty", "nothing"):
        with pytest.raises(FlotillaError) as caught:
            make(Repo(tmp_path / name), wanted)
        said[name] = str(caught.value)
    assert (
        said["bare.git"]
        == f"{tmp_path}/bare.git: this is a bare repository, which has no files to change. Name a clone with a work tree."
    )
    assert "is not a git repository" in said["empty"]
    assert "is not a git repository" in said["nothing"]
    assert not list((tmp_path / "empty").iterdir())


def test_files_that_are_dirty_do_not_get_into_a_commit(fleet_repo: Repo) -> None:
    fleet_repo.write("hosts/sbcs/pi-2.nix", '{ environment.etc."board".text = "two"; }\n')
    said = refused(fleet_repo, wish("servers", "web1", "pi-2"), commit=True)
    assert "hosts/sbcs/pi-2.nix has uncommitted changes, which would get into the commit." in said
    make(fleet_repo, wish("servers", "web1", "pi-2"))
    assert "two" in (fleet_repo.path / "hosts/servers/pi-2.nix").read_text()


def test_conflicts_and_merges(fleet_repo: Repo) -> None:
    repo = fleet_repo
    repo.git("checkout", "--quiet", "-b", "other")
    make(repo, wish("sbcs", "pi-1"), commit=True)
    repo.git("checkout", "--quiet", "main")
    make(repo, wish("sbcs", "pi-2"), commit=True)
    sh("sh", "-c", f"git -C {repo.path} -c user.name=t -c user.email=t@example.org merge other >/dev/null 2>&1 || true")
    assert "a merge is under way there. Finish it first" in refused(repo, wish("servers", "web1", "web2"), commit=True)
    # A flake with a conflict in it is no longer what was written here.
    assert "sbcs: " in refused(repo, wish("sbcs", "pi-1", "pi-2", "pi-3"))


def test_a_directory_that_cannot_be_written(fleet_repo: Repo) -> None:
    place = fleet_repo.path / "hosts/servers"
    sh("mount", "--bind", str(place), str(place))
    try:
        sh("mount", "-o", "remount,ro,bind", str(place))
        said = refused(fleet_repo, wish("servers", "web1", "pi-2"))
    finally:
        sh("umount", str(place))
    assert said.endswith(": hosts/servers cannot be written by this user on localhost. Nothing was changed. Make it writable.")


def test_symbolic_links(fleet_repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (fleet_repo.path / "hosts/x").symlink_to(tmp_path / "elsewhere")
    said = refused(fleet_repo, wish("x", "host-x"))
    assert "hosts/x is a symbolic link, and what hosts/x/flake.nix is behind it is not ours to write" in said
    assert not list((tmp_path / "elsewhere").iterdir())
    (fleet_repo.path / "hosts/sbcs/flake.nix").rename(tmp_path / "flake.nix")
    (fleet_repo.path / "hosts/sbcs/flake.nix").symlink_to(tmp_path / "flake.nix")
    assert "hosts/sbcs/flake.nix is a symbolic link" in refused(fleet_repo, wish("sbcs", "pi-1"))


def test_moves_that_would_break_a_host(fleet_repo: Repo) -> None:
    repo = fleet_repo
    repo.write("hosts/sbcs/common.nix", "{ }\n")
    repo.write("hosts/sbcs/pi-2.nix", "{ imports = [ ./common.nix ]; }\n")
    repo.commit()
    said = refused(repo, wish("servers", "web1", "pi-2"))
    assert said.startswith("servers: pi-2 would not evaluate there as it does in sbcs: ")
    assert "common.nix" in said
    repo.write("hosts/servers/pi-1.nix", "{ }\n")
    said = refused(repo, wish("servers", "web1", "pi-1"))
    assert said.startswith("pi-1: hosts/sbcs/pi-1.nix would move to hosts/servers/pi-1.nix, which is there already.")


def test_pins_that_a_new_group_cannot_have(fleet_repo: Repo, source: upstream.Upstream) -> None:
    said = refused(fleet_repo, wish("mixed", "pi-1", "web1"))
    assert said == "mixed: its hosts come from sbcs and servers, whose locks differ. Say in lock_from whose pins it shall have."
    assert make(fleet_repo, wish("mixed", "pi-1", "web1", lock_from="servers"), check=True).locks == {"mixed": "servers"}
    other = {"nixpkgs": source.url("nixos-25.05")}
    said = refused(fleet_repo, wish("mixed", "pi-1", inputs=other, lock_from="servers"))
    assert said.startswith("mixed: it cannot have the pins of servers: nixpkgs has another url there.")


def test_an_upstream_that_is_not_there(repo: Repo, tmp_path: Path) -> None:
    gone = {"nixpkgs": f"git+file://{tmp_path}/gone.git?ref=main"}
    said = refused(repo, wish("x", "host-x", inputs=gone))
    assert said.startswith("x: locking the inputs failed")


# The module


def run_module(ansible: Ansible, options: Mapping[str, Any], *words: str, check: bool = True) -> Played:
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"flotilla.nixos.flake_group": dict(options)}]}
    return ansible.playbook([play], "-c", "local", *words, inventory="localhost,", check=check)


TEMPLATE = """#jinja2:variable_start_string:'[%', variable_end_string:'%]'
# For [% owner %].
{
[% group.inputs_text %]
  outputs = { self, nixpkgs, ... }@inputs: {
    nixosConfigurations = {{% for host in group.hosts %}

      [% host.attribute %] = nixpkgs.lib.nixosSystem {
        system = "[% host.system %]";
        modules = [ { networking.hostName = "[% host.host_name %]"; } [% (group.modules + host.modules) | join(" ") %] ];
      };
{% endfor %}
    };
  };
}
"""


def test_the_module_with_a_template(ansible: Ansible, repo: Repo, source: upstream.Upstream, tmp_path: Path) -> None:
    (tmp_path / "flake.nix.j2").write_text(TEMPLATE)
    options = {
        "repo": str(repo.path),
        "template": str(tmp_path / "flake.nix.j2"),
        "groups": [
            {
                "name": "kiosks",
                "inputs": {"nixpkgs": source.url()},
                "modules": ["modules/base.nix"],
                "hosts": [{"name": "kiosk-1"}, {"name": "kiosk-2", "attribute": "two.x"}],
            }
        ],
    }
    words = ("-e", "owner='{{ \"the\" }} museum'")
    before = everything(repo)
    checked = run_module(ansible, options, *words, "--check", "--diff")
    assert everything(repo) == before
    assert "+# For the museum." in checked.text
    [first] = run_module(ansible, options, *words).of("flake_group")
    [second] = run_module(ansible, options, *words).of("flake_group")
    assert (first.result["changed"], second.result["changed"]) == (True, False)
    assert first.result["groups"]["kiosks"] == {
        "flake": "hosts/kiosks", "hosts": ["kiosk-1", "kiosk-2"], "added": ["kiosk-1", "kiosk-2"], "moved": {}, "removed": [],
        "ours": True, "locked": True, "lock_from": None,
    }  # fmt: skip
    assert first.result["files"] == [f"hosts/kiosks/{name}" for name in ("flake.lock", "flake.nix", "kiosk-1.nix", "kiosk-2.nix")]
    assert names(repo, "kiosks") == ["kiosk-1", "two.x"]
    [bad] = run_module(ansible, options, check=False).of("flake_group")
    assert bad.status == "failed"
    assert bad.result["msg"].startswith(f"template {tmp_path}/flake.nix.j2: it cannot be filled in: ")
    assert "owner" in bad.result["msg"]
