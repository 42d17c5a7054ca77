# SPDX-License-Identifier: GPL-3.0-or-later
"""flake_build with real nix: what it builds, what it leaves alone, and what it says when something is wrong."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.flotilla.nixos.plugins.action import flake_build
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import FlotillaError
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import failure
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Fixture, Repo, fixture, sh
from testbed.playbooks import Ansible, Played

LOCALHOST = '{"all": {"hosts": {"localhost": {"ansible_connection": "local"}}}}'


@pytest.fixture
def fleet_repo(tmp_path: Path, controller: Mapping[str, str]) -> Fixture:  # noqa: ARG001 - nix comes from it
    """A repository with the group sbcs: two hosts that share a part, under a name of this test's own."""
    made = fixture(tmp_path)
    # Derivations are the store's, which tests share: what a test wants to see built must be its own.
    own = f"{tmp_path.name}-{time.time_ns()}"
    part = f'lib.run "part" "echo {own}; mkdir $out"'
    made.group("sbcs", {f'"{name}"': f'lib.host {{ name = "{name}"; needs = [ ({part}) ]; }}' for name in ("pi-1", "pi.2")})
    return made


def group(repo: Repo, *hosts: str | tuple[str, str], name: str = "sbcs", **more: Any) -> dict[str, Any]:
    members = [{"name": h} if isinstance(h, str) else {"name": h[0], "attribute": h[1]} for h in hosts]
    return {"name": name, "repo": str(repo.path), "hosts": members, **more}


@dataclass(frozen=True, slots=True)
class Done:
    """What a task did: its result, and all that it said while it ran."""

    result: Mapping[str, Any]
    text: str

    @property
    def ok(self) -> bool:
        return not self.result.get("failed")


def build(*groups: Mapping[str, Any], **options: Any) -> tuple[Done, Mapping[str, Any]]:
    """Run the action in this process: what it does is the same, and it does not take a second of Ansible's each time."""
    checked = ArgumentSpecValidator(flake_build.ActionModule.ARGUMENT_SPEC).validate({"groups": list(groups), **options})
    assert not checked.error_messages
    action = object.__new__(flake_build.ActionModule)
    said: list[str] = []
    with (
        patch.object(flake_build.ActionModule, "builder", lambda _self: LocalRunner()),
        patch.object(flake_build.ActionModule, "progress", lambda _self, line: said.append(line)),
        patch.object(flake_build, "_display", SimpleNamespace(warning=said.append)),
    ):
        try:
            result = {"failed": False, **action.perform(checked.validated_parameters, {})}
        except FlotillaError as error:
            result = {"changed": False, **failure(error, "")}
    return Done(result, "\n".join(said)), result


@pytest.fixture
def play(ansible: Ansible, tmp_path: Path) -> Any:
    """Runs the task by ansible-playbook, and gives back what was played and the task's result."""
    inventory = tmp_path / "localhost.json"
    inventory.write_text(LOCALHOST)

    def run(group: Mapping[str, Any], *arguments: str) -> tuple[Played, Mapping[str, Any]]:
        task = {"name": "Build", "flotilla.nixos.flake_build": {"groups": [group]}}
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]
        played = ansible.playbook(plays, *arguments, inventory=inventory, check=False)
        return played, played.of("flake_build")[0].result

    return run


def test_a_group_is_built_and_the_second_time_nothing_changes(fleet_repo: Fixture, play: Any) -> None:
    before = fleet_repo.repo.state()
    played, first = play(group(fleet_repo.repo, "pi-1", ("greenhouse", "pi.2")))
    assert played.ok, played.text
    assert first["changed"]
    made = first["groups"]["sbcs"]
    assert made["commit"] == fleet_repo.repo.git("rev-parse", "HEAD")
    assert set(made["hosts"]) == {"pi-1", "greenhouse"}
    host = made["hosts"]["greenhouse"]
    assert (host["attribute"], host["platform"], host["version"], host["phase"], host["failed"]) == (
        "pi.2",
        "x86_64-linux",
        "1",
        "done",
        False,
    )
    assert Path(host["system"], "nixos-version").read_text().startswith("1 ")
    assert host["closure_size"] > 0
    assert "sbcs: building " in played.text
    again, second = play(group(fleet_repo.repo, "pi-1", ("greenhouse", "pi.2")))
    assert again.ok
    assert not second["changed"]
    assert second["groups"] == first["groups"]
    assert fleet_repo.repo.state() == before


def test_what_was_built_is_kept_from_garbage_collection(fleet_repo: Fixture, tmp_path: Path) -> None:
    _played, result = build(group(fleet_repo.repo, "pi-1"))
    system = result["groups"]["sbcs"]["hosts"]["pi-1"]["system"]
    root = fleet_repo.repo.path / ".git/flotilla/roots/sbcs/pi-1"
    assert os.readlink(root) == system
    assert str(root) in sh("nix-store", "--query", "--roots", system)
    build(group(fleet_repo.repo, "pi-1"), keep=str(tmp_path / "with a blank"))
    assert os.readlink(tmp_path / "with a blank/sbcs/pi-1") == system
    done, _result = build(group(fleet_repo.repo, "pi-1"), keep="/proc/nowhere")
    assert done.ok
    assert "not kept from garbage collection" in done.text


BAD_HOSTS = {
    "good": 'lib.host { name = "good"; }',
    "asserts": 'lib.host { name = "asserts"; config.system.build.toplevel = throw "Failed assertions:\\n- no file system"; }',
    "misses": 'lib.host { name = "misses"; needs = [ lib.nope ]; }',
    "breaks": 'lib.host { name = "breaks"; needs = [ (lib.run "part" "echo compiling; echo foo.c:1: no such thing; exit 3") ]; }',
    "arm": 'lib.host { name = "arm"; system = "aarch64-linux"; }',
}


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_what_fails_takes_no_neighbour_along(fleet_repo: Fixture, chunk: int | None) -> None:
    fleet_repo.group("sbcs", {**BAD_HOSTS, "good": f'lib.host {{ name = "good-{time.time_ns()}"; }}'})
    options = {"chunk": chunk} if chunk else {}
    wanted = group(fleet_repo.repo, *BAD_HOSTS, "goood")
    played, result = build(wanted, continue_on_error=True, **options)
    assert played.ok, played.text
    assert result["changed"]
    assert result["groups"]["sbcs"]["failed"]
    hosts = result["groups"]["sbcs"]["hosts"]
    assert {name: (host["failed"], host["phase"]) for name, host in hosts.items()} == {
        "good": (False, "done"),
        "asserts": (True, "evaluation"),
        "misses": (True, "evaluation"),
        "breaks": (True, "build"),
        "arm": (True, "build"),
        "goood": (True, "evaluation"),
    }
    says = {name: host.get("error", "") for name, host in hosts.items()}
    assert says["asserts"].startswith("sbcs: evaluation of asserts failed: Failed assertions: - no file system")
    assert says["misses"].startswith(
        "sbcs: evaluation of misses failed: attribute 'nope' missing at hosts/sbcs/flake.nix:7. Run: nix eval "
    )
    assert says["breaks"].startswith(
        "sbcs: build of breaks failed: builder for part failed with exit code 3; "
        "its last line: foo.c:1: no such thing. Run: nix log /nix/store/"
    )
    assert hosts["breaks"]["log"] == ["compiling", "foo.c:1: no such thing"]
    assert says["arm"].startswith("sbcs: build of arm failed: a 'aarch64-linux' with features {} is required")
    assert "Did you mean good?" in says["goood"]
    assert "It has: arm, asserts, breaks, good, misses." in says["goood"]


def test_a_failure_fails_the_task_and_the_result_is_whole_all_the_same(fleet_repo: Fixture, play: Any) -> None:
    fleet_repo.group("sbcs", BAD_HOSTS)
    played, result = play(group(fleet_repo.repo, "good", "breaks"))
    assert not played.ok
    assert "1 of 2 hosts of sbcs failed. sbcs: build of breaks failed" in result["msg"]
    assert not result["groups"]["sbcs"]["hosts"]["good"]["failed"]


def test_groups_are_built_together_and_a_broken_flake_stops_only_its_own(fleet_repo: Fixture) -> None:
    part = f'(lib.run "shared" "echo {time.time_ns()} > $out; echo once")'
    for name in ("sbcs", "servers"):
        fleet_repo.group(name, {f"{name}-1": f'lib.host {{ name = "{name}-1"; needs = [ {part} ]; }}'})
    fleet_repo.group("desktops", {"d": 'lib.host { name = "d"; }'})
    fleet_repo.group("desktops", {"d": "a = syntax error"}, lock=False)
    repo = fleet_repo.repo
    played, result = build(
        group(repo, "sbcs-1"),
        group(repo, "servers-1", name="servers"),
        group(repo, "d", name="desktops"),
        group(repo, "x", name="nope"),
        continue_on_error=True,
    )
    assert played.ok, played.text
    assert {name: made["failed"] for name, made in result["groups"].items()} == {
        "sbcs": False,
        "servers": False,
        "desktops": True,
        "nope": True,
    }
    assert "at hosts/desktops/flake.nix:5" in result["groups"]["desktops"]["msg"]
    assert "there is no hosts/nope/flake.nix" in result["groups"]["nope"]["msg"]
    assert "It has flakes in: hosts/desktops, hosts/sbcs, hosts/servers" in result["groups"]["nope"]["msg"]
    assert played.text.count("building shared") == 1


def test_the_commit_is_built_and_what_is_not_in_it_is_named(fleet_repo: Fixture) -> None:
    repo = fleet_repo.repo
    commit = repo.git("rev-parse", "HEAD")
    flake = (repo.path / "hosts/sbcs/flake.nix").read_text()
    repo.write("hosts/sbcs/flake.nix", flake.replace('name = "pi-1"', 'name = "changed"'))
    repo.write("notes", "")
    done, result = build(group(repo, "pi-1"))
    made = result["groups"]["sbcs"]
    assert (made["commit"], made["dirty"], made["uncommitted"]) == (commit, False, ["hosts/sbcs/flake.nix", "notes"])
    assert made["hosts"]["pi-1"]["system"].endswith("-nixos-system-pi-1")
    assert "without: hosts/sbcs/flake.nix, notes" in done.text
    _played, dirty = build(group(repo, "pi-1"), allow_dirty=True)
    made = dirty["groups"]["sbcs"]
    assert (made["commit"], made["dirty"], made["uncommitted"]) == (commit, True, ["notes"])
    assert made["hosts"]["pi-1"]["system"].endswith("-nixos-system-changed")


def test_a_commit_that_no_branch_holds(fleet_repo: Fixture) -> None:
    repo = fleet_repo.repo
    head = repo.git("rev-parse", "HEAD")
    fleet_repo.group("sbcs", {"pi-9": 'lib.host { name = "pi-9"; }'})
    candidate = repo.git("rev-parse", "HEAD")
    repo.git("reset", "--hard", "--quiet", head)
    _played, result = build(group(repo, "pi-9", commit=candidate))
    assert result["groups"]["sbcs"]["commit"] == candidate
    assert not result["failed"]
    _played, result = build(group(repo, "pi-9", commit="0" * 40))
    assert "has no commit '0000" in result["msg"]


def test_a_branch_and_a_lock_of_the_groups_own(fleet_repo: Fixture) -> None:
    repo = fleet_repo.repo
    fleet_repo.group("all", {"h": 'lib.host { name = "h"; }'}, flake="fleet")
    old = (repo.path / "fleet/flake.lock").read_text()
    fleet_repo.release("2")
    fleet_repo.nix_lock("fleet", "update")
    repo.write("locks/canary.lock", (repo.path / "fleet/flake.lock").read_text())
    repo.write("fleet/flake.lock", old)
    repo.commit()
    repo.git("branch", "kiosks")
    flake = {"flake": "fleet", "strategy": "host_locks", "lock": "locks/{group}.lock"}
    before = repo.state()
    _played, result = build(
        group(repo, "h", name="canary", **flake),
        group(repo, "h", name="stable", flake="fleet"),
        group(repo, "h", name="kiosks", flake="fleet", strategy="group_branches"),
        group(repo, "h", name="late", **flake),
        continue_on_error=True,
    )
    versions = {name: made["hosts"]["h"]["version"] for name, made in result["groups"].items()}
    assert versions == {"canary": "2", "stable": "1", "kiosks": "1", "late": None}
    assert "there is no lock locks/late.lock" in result["groups"]["late"]["msg"]
    assert repo.state() == before


def test_a_shallow_clone_a_bare_repository_and_odd_paths(fleet_repo: Fixture, tmp_path: Path) -> None:
    fleet_repo.repo.commit()
    shallow, bare = tmp_path / "a clone, 100% shallow & odd#1?", tmp_path / "bare.git"
    sh("git", "clone", "--quiet", "--depth", "1", f"file://{fleet_repo.repo.path}", str(shallow))
    sh("git", "clone", "--quiet", "--bare", str(fleet_repo.repo.path), str(bare))
    for path in (shallow, bare):
        played, result = build(group(Repo(path), "pi-1"))
        assert played.ok, played.text
        assert result["groups"]["sbcs"]["hosts"]["pi-1"]["phase"] == "done"


def test_only_evaluating(fleet_repo: Fixture) -> None:
    _played, result = build(group(fleet_repo.repo, "pi-1"), dry=True)
    host = result["groups"]["sbcs"]["hosts"]["pi-1"]
    assert result["changed"]
    assert not Path(host["system"]).exists()
    build(group(fleet_repo.repo, "pi-1"))
    _played, result = build(group(fleet_repo.repo, "pi-1"), dry=True)
    assert not result["changed"]


def test_a_build_that_takes_too_long(fleet_repo: Fixture) -> None:
    slow = f'lib.host {{ name = "slow"; needs = [ (lib.run "slow" "sleep 60; echo {time.time_ns()}") ]; }}'
    fleet_repo.group("sbcs", {"quick": f'lib.host {{ name = "quick-{time.time_ns()}"; }}', "slow": slow})
    started = time.monotonic()
    _played, result = build(group(fleet_repo.repo, "quick", "slow"), timeout=6)
    assert time.monotonic() - started < 30
    hosts = result["groups"]["sbcs"]["hosts"]
    assert "was still running after 6 s" in hosts["slow"]["error"]


def test_check_mode_builds(fleet_repo: Fixture, play: Any) -> None:
    played, result = play(group(fleet_repo.repo, "pi-1"), "--check")
    assert played.ok, played.text
    assert result["changed"]
    assert Path(result["groups"]["sbcs"]["hosts"]["pi-1"]["system"]).exists()


def untracked(made: Fixture) -> dict[str, Any]:
    made.group("new", {"h": 'lib.host { name = "h"; }'}, lock=False)
    made.repo.git("reset", "--quiet", "--hard", "HEAD~1")
    made.repo.write("hosts/new/flake.nix", "{ outputs = _: { }; }")
    return group(made.repo, "h", name="new")


def ignored_lock(made: Fixture) -> dict[str, Any]:
    made.repo.write(".gitignore", "flake.lock\n")
    made.group("new", {"h": 'lib.host { name = "h"; }'})
    return group(made.repo, "h", name="new")


def unlocked(made: Fixture) -> dict[str, Any]:
    made.group("new", {"h": 'lib.host { name = "h"; }'}, lock=False)
    return group(made.repo, "h", name="new")


def lock_with(text: str) -> Any:
    def write(made: Fixture) -> dict[str, Any]:
        made.repo.write("hosts/sbcs/flake.lock", text)
        made.repo.commit()
        return group(made.repo, "pi-1")

    return write


def other_owner(made: Fixture) -> dict[str, Any]:
    sh("chown", "-R", "nobody", str(made.repo.path))
    return group(made.repo, "pi-1")


def no_repository(made: Fixture) -> dict[str, Any]:
    return {**group(made.repo, "pi-1"), "repo": str(made.repo.path.parent)}


def named(**fields: Any) -> Any:
    def make(made: Fixture) -> dict[str, Any]:
        return {**group(made.repo, "pi-1"), **fields}

    return make


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (untracked, "new: hosts/new/flake.nix is not tracked by git, so nix does not see it. Run: git add hosts/new/flake.nix"),
        (ignored_lock, "new: hosts/new/flake.lock is ignored by git, so nix does not see it. Run: git add --force"),
        (unlocked, "new: there is no hosts/new/flake.lock. Lock it (flotilla_update=true, or `nix flake lock`)"),
        (
            lock_with("<<<<<<< ours\n{}\n=======\n>>>>>>> theirs\n"),
            "sbcs: the lock hosts/sbcs/flake.lock has a merge conflict in it",
        ),
        (lock_with("\0GITCRYPT\0rubbish"), "sbcs: the lock hosts/sbcs/flake.lock is encrypted by git-crypt"),
        (lock_with(""), "sbcs: the lock hosts/sbcs/flake.lock is empty"),
        (other_owner, "belongs to another user"),
        (no_repository, "is not a git repository"),
        (named(hosts=[]), "sbcs: this update group has no hosts"),
        (named(branch="nope"), "sbcs: the repository"),
        (named(name="../x"), "update group '../x': this name cannot be used"),
        (named(name="a b"), "update group 'a b': this name cannot be used"),
        (named(name="-x"), "update group '-x': this name cannot be used"),
        (named(name="x;id"), "update group 'x;id': this name cannot be used"),
        (named(flake="../elsewhere"), "flake '../elsewhere': this is not a plain path"),
        (named(hosts=[{"name": 'a"b'}]), "host 'a\"b': this name cannot be used"),
        (named(hosts=[{"name": "a", "attribute": "${x}"}]), "flake attribute '${x}': this name cannot be used"),
    ],
)
def test_bad_input_gets_one_sentence_with_the_fix(fleet_repo: Fixture, prepare: Any, said: str) -> None:
    wanted = prepare(fleet_repo)
    before = sorted(str(path) for path in fleet_repo.repo.path.rglob("*") if ".git/" not in str(path))
    played, result = build(wanted)
    assert not played.ok
    assert said in result["msg"]
    assert not result["changed"]
    assert sorted(str(path) for path in fleet_repo.repo.path.rglob("*") if ".git/" not in str(path)) == before


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo nix '(Nix)' 2.18.1", "its nix is too old: it says 'nix (Nix) 2.18.1', and 2.26 is the oldest that works"),
        ("echo something else", "which names no version"),
        (None, "there is no nix on the PATH"),
    ],
)
def test_a_builder_without_a_usable_nix(
    fleet_repo: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in ("git", "sh", "grep", "sed"):
        (folder / program).symlink_to(shutil.which(program) or "/bin/false")
    if script:
        (folder / "nix").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "nix").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    _played, result = build(group(fleet_repo.repo, "pi-1"))
    assert said in result["msg"]
    assert "Install nix 2.26 or newer" in result["msg"]


def test_a_nix_with_flakes_switched_off(fleet_repo: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_CONFIG", "experimental-features =")
    played, _result = build(group(fleet_repo.repo, "pi-1"))
    assert played.ok, played.text
