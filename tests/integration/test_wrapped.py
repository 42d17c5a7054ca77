# SPDX-License-Identifier: GPL-3.0-or-later
"""A flake that wraps another of its repository: what stays behind there is said, and an update of all takes it over. Real nix."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Candidate, Run, make_candidate
from ansible_collections.flotilla.nixos.plugins.module_utils.group_info import inspect
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import UPSTREAM, Repo, new_repo, sh

RUNNER = LocalRunner()

MAIN = """{
  inputs.nixpkgs.url = "git+file://%(folder)s/nixpkgs?ref=main";
  inputs.dep.url = "git+file://%(folder)s/dep?ref=main";
  outputs = { self, nixpkgs, dep }: { nixosConfigurations.app1 = nixpkgs.lib.host { name = "app1"; }; };
}
"""
WRAPPER = """{
  inputs.nixpkgs.url = "git+file://%(folder)s/nixpkgs?ref=main";
  inputs.all.url = "path:../..";
  inputs.all.inputs.nixpkgs.follows = "nixpkgs";%(more)s
  outputs = { self, nixpkgs, all, ... }: { inherit (all) nixosConfigurations; };
}
"""
FOLLOWS = """
  inputs.dep.url = "git+file://%(folder)s/dep?ref=main";
  inputs.all.inputs.dep.follows = "dep";"""
DEP = '{ outputs = _: { it = "VERSION"; }; }\n'


class Stages:
    """A main flake and a wrapper around it."""

    def __init__(self, folder: Path, *, more: str = "") -> None:
        self.folder = folder
        self.repo = new_repo(folder / "fleet")
        self.repo.git("config", "user.name", "Op Erator")
        self.repo.git("config", "user.email", "op@example.org")
        for name in ("nixpkgs", "dep"):
            new_repo(folder / name)
        self.release("1")
        self.repo.write("flake.nix", MAIN % {"folder": folder})
        self.repo.write("hosts/prod/flake.nix", WRAPPER % {"folder": folder, "more": more % {"folder": folder} if more else ""})
        self.repo.git("add", ".")
        for place in (".", "hosts/prod"):
            sh("nix", "flake", "lock", f"path:{self.repo.path}?dir={place}" if place != "." else f"path:{self.repo.path}")
            self.repo.git("add", ".")
        self.repo.commit()

    def release(self, version: str) -> None:
        for name, text in (("nixpkgs", UPSTREAM), ("dep", DEP)):
            upstream = Repo(self.folder / name)
            upstream.write("flake.nix", text.replace("VERSION", f"{name} {version}"))
            upstream.commit()

    def update_main(self) -> None:
        """Somebody updates the main flake alone."""
        sh("nix", "flake", "update", "--flake", f"path:{self.repo.path}")
        self.repo.commit()

    @property
    def group(self) -> UpdateGroup:
        return update_group("prod", str(self.repo.path), strategy="stage_flakes")

    def revision(self, commit: str, lock: str, *path: str) -> Any:
        nodes = json.loads(self.repo.git("show", f"{commit}:{lock}"))["nodes"]
        key = "root"
        for name in path:
            key = nodes[key]["inputs"][name]
        return nodes[key]["locked"]["rev"]

    def problems(self) -> list[str]:
        found = inspect(RUNNER, self.group, now=time.time(), evaluate=False).problems
        return [f"{one.what}. {one.fix}" for one in found if "stays at" in one.what]


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


def update(group: UpdateGroup, *inputs: str) -> Candidate:
    run = Run(f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester")
    return make_candidate(RUNNER, group, run, Wish(inputs or None))


def test_what_stays_behind_in_a_wrapper_is_said_and_an_update_of_all_takes_it_over(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    assert stages.problems() == []
    stages.release("2")
    stages.update_main()
    (problem,) = stages.problems()
    old, new = (stages.revision("main", lock, *path)[:7] for lock, path in (OLD, NEW))
    assert problem.startswith("the input all/dep stays at ")
    assert f"({old}), whatever flake.lock says of it" in problem
    assert f"({new})" in problem
    assert old != new
    assert 'inputs.dep.url = …, and inputs.all.inputs.dep.follows = "dep"' in problem
    assert problem.endswith("by an update of all.")

    some = update(stages.group, "nixpkgs")
    assert any("prod: the input all/dep stays at" in warning for warning in some.warnings)
    assert stages.revision(some.commit, *OLD[:1], *OLD[1]) == stages.revision("main", *OLD[:1], *OLD[1])

    for whole in (update(stages.group), update(stages.group, "all")):
        assert not any("stays at" in warning for warning in whole.warnings)
        assert stages.revision(whole.commit, *OLD[:1], *OLD[1]) == stages.revision("main", *NEW[:1], *NEW[1])


OLD = ("hosts/prod/flake.lock", ("all", "dep"))
NEW = ("flake.lock", ("dep",))


def test_what_an_update_of_all_takes_is_the_main_flakes_pin_and_not_the_newest(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    stages.release("2")
    stages.update_main()
    stages.release("3")
    whole = update(stages.group)
    assert stages.revision(whole.commit, *OLD[:1], *OLD[1]) == stages.revision("main", *NEW[:1], *NEW[1])
    newest = Repo(tmp_path / "nixpkgs").git("rev-parse", "main")
    assert stages.revision(whole.commit, "hosts/prod/flake.lock", "nixpkgs") == newest


def test_what_follows_the_wrappers_own_inputs_does_not_stay_behind(tmp_path: Path) -> None:
    stages = Stages(tmp_path, more=FOLLOWS)
    stages.release("2")
    stages.update_main()
    assert stages.problems() == []
    assert not any("stays at" in warning for warning in update(stages.group, "nixpkgs").warnings)
