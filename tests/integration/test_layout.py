# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognising a repository's layout, and what is wrong with it, with real nix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.flotilla.nixos.plugins.action import flake_info
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import groups_from_options
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Fixture, Repo, fixture, new_repo, sh
from testbed import layouts, upstream
from testbed.upstream import Upstream
from unit.wild_locks import wild_texts


def info(repo: Path | str, **options: Any) -> dict[str, Any]:
    """The layout that flake_info gives for a repository."""
    checked = ArgumentSpecValidator(flake_info.ActionModule.ARGUMENT_SPEC).validate({"repo": str(repo), **options})
    assert not checked.error_messages
    action = object.__new__(flake_info.ActionModule)
    with patch.object(flake_info.ActionModule, "builder", lambda _self: LocalRunner()):
        result = action.perform(checked.validated_parameters, {})
    assert result["changed"] is False
    found: dict[str, Any] = result["layout"]
    return found


def problems(found: Mapping[str, Any]) -> str:
    """What is wrong, but for what is so in every test: that upstream is a directory."""
    said = (f"{problem['level']}: {problem['msg']}" for problem in found["problems"])
    return "\n".join(line for line in said if "is a path of the machine that locked it" not in line)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    return upstream.create(tmp_path_factory.mktemp("upstream") / "nixpkgs.git")


#: Example → for each group that is to be found: strategy, hosts (None: no flake says it), and where they differ from the
#: strategy's defaults the variables.
EXAMPLES: Mapping[str, tuple[str, list[tuple[str, list[str] | None, dict[str, Any]]]]] = {
    "group_flakes": (
        "group_flakes",
        [("group_flakes", ["canary1"], {}), ("group_flakes", ["early1"], {}), ("group_flakes", ["stable1", "stable2"], {})],
    ),
    "group_inputs": (
        "group_inputs",
        [
            ("group_inputs", ["canary1"], {"flotilla_inputs": ["nixpkgs-canary"]}),
            ("group_inputs", ["stable1", "stable2"], {"flotilla_inputs": ["nixpkgs-stable"]}),
        ],
    ),
    "channel_inputs": (
        "channel_inputs",
        [
            ("channel_inputs", ["canary1"], {"flotilla_inputs": ["nixpkgs-next"]}),
            ("channel_inputs", ["desk1"], {"flotilla_inputs": ["nixpkgs-unstable"]}),
            ("channel_inputs", ["kiosk1", "server1", "server2"], {"flotilla_inputs": ["nixpkgs"]}),
        ],
    ),
    "stage_flakes": ("stage_flakes", [("stage_flakes", ["dev1"], {}), ("stage_flakes", ["prod1", "prod2"], {})]),
    "group_branches": (
        "group_branches",
        [("group_branches", None, {}), ("group_branches", None, {}), ("group_branches", None, {})],
    ),
    "host_locks": ("host_locks", [("host_locks", ["canary1", "stable1", "stable2"], {})]),
    "mixture": (
        "mixed",
        [("group_branches", ["server1"], {}), ("group_flakes", ["desk1"], {}), ("host_locks", ["pi1", "pi2"], {})],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_what_it_says(tmp_path: Path, controller: dict[str, str], source: Upstream, name: str) -> None:
    made = layouts.create(tmp_path / name, name, source, env=controller)
    before = Repo(made.home.path).state()
    found = info(made.home.path)
    strategy, groups = EXAMPLES[name]
    assert found["strategy"] == strategy, found
    own = ("flotilla_update_group", "flotilla_strategy")
    seen = sorted((g["strategy"], g["hosts"], {k: v for k, v in g["variables"].items() if k not in own}) for g in found["groups"])
    assert seen == groups
    assert all(group["evidence"] for group in found["groups"])
    assert problems(found) == ""
    assert Repo(made.home.path).state() == before


def test_the_variables_are_those_that_the_role_takes(tmp_path: Path, controller: dict[str, str], source: Upstream) -> None:
    made = layouts.create(tmp_path / "mixture", "mixture", source, env=controller)
    found = info(made.home.path)
    options = [
        {
            **dict.fromkeys(flake_info.GROUPS["options"]),
            "name": group["name"],
            "repo": str(made.home.path),
            "hosts": [],
            "strategy": "group_flakes",
            **{k.removeprefix("flotilla_"): v for k, v in group["variables"].items() if k != "flotilla_update_group"},
        }
        for group in found["groups"]
    ]
    places = {group.name: (group.branch, group.flake, group.lock) for group in groups_from_options(options)}
    assert places == {
        "desktops": (None, "hosts/desktops", "hosts/desktops/flake.lock"),
        "hosts": (None, ".", "locks/{host}.lock"),
        "servers": ("servers", ".", "flake.lock"),
    }
    assert "# inventory/group_vars/servers.yml\nflotilla_update_group: servers\n" in found["snippet"]


@pytest.fixture
def made(tmp_path: Path, controller: dict[str, str]) -> Fixture:  # noqa: ARG001 - nix comes from it
    return fixture(tmp_path)


TWO = {"pi-1": 'lib.host { name = "pi-1"; }', "web": 'lib.host { name = "web"; }'}


def test_a_flake_with_one_lock_for_all_has_no_strategy_yet(made: Fixture) -> None:
    made.group("all", TWO, flake=".")
    found = info(made.repo.path)
    assert (found["strategy"], found["certainty"]) == ("single", "sure")
    assert "flotilla_to=group_flakes" in found["advice"]
    assert found["groups"][0]["hosts"] == ["pi-1", "web"]


def test_a_repository_without_hosts_says_so(made: Fixture) -> None:
    assert info(made.repo.path)["strategy"] == "none"
    made.repo.write("flake.nix", "{ outputs = _: { lib = { }; }; }")
    made.repo.write("modules/flake.nix", "{ pkgs, ... }: { environment.systemPackages = [ ]; }")
    made.repo.write("template/flake.nix", '{ description = "{{ name }}"; outputs = {{ outputs }} }')
    made.repo.commit()
    found = info(made.repo.path)
    assert (found["strategy"], found["groups"]) == ("none", [])
    assert "modules/flake.nix: " in " ".join(found["evidence"])


DEPS = """{
  inputs.aDep.url = "git+file://%(url)s?ref=main";
  inputs.bDep.url = "git+file://%(url)s?ref=main";
  inputs.shared.url = "git+file://%(url)s?ref=main";
  outputs = { self, aDep, bDep, shared }: { nixosConfigurations = {
    a1 = shared.lib.host { name = "a1"; config.name = "a1"; needs = [ (aDep.lib.run "a" "mkdir $out") ]; };
    a2 = shared.lib.host { name = "a2"; needs = [ (aDep.lib.run "a" "mkdir $out") ]; };
    b1 = shared.lib.host { name = "b1"; needs = [ (bDep.lib.run "b" "mkdir $out") self.nixosConfigurations.a1.config.name ]; };
  }; };
}
"""


def test_inputs_that_only_some_hosts_read_make_groups(made: Fixture) -> None:
    made.repo.write("flake.nix", DEPS % {"url": made.upstream.path})
    made.repo.git("add", ".")
    made.nix_lock(".")
    made.repo.commit()
    found = info(made.repo.path)
    assert [(g["strategy"], g["hosts"], g["variables"]["flotilla_inputs"]) for g in found["groups"]] == [
        ("group_inputs", ["a1", "a2"], ["aDep"]),
        ("group_inputs", ["b1"], ["bDep"]),
    ]
    assert info(made.repo.path, evaluate=False)["strategy"] == "single"


def test_branches_that_only_have_locks_of_their_own_are_groups(made: Fixture) -> None:
    made.group("all", TWO, flake=".")
    for branch, version in (("one", "2"), ("two", "3")):
        made.repo.git("switch", "--quiet", "--create", branch, "main")
        made.release(version)
        made.nix_lock(".", "update")
        made.repo.commit()
    made.repo.git("switch", "--quiet", "--create", "feature", "main")
    made.repo.write("module.nix", "{ }")
    made.repo.commit()
    made.repo.git("switch", "--quiet", "main")
    found = info(made.repo.path)
    assert (found["strategy"], [g["name"] for g in found["groups"]]) == ("group_branches", ["one", "two"])
    assert "flotilla_update_group" in found["advice"]


# -- lint ---------------------------------------------------------------------------------------------------------------


def _collecting(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    made.group("servers", {"web": TWO["web"]})
    made.repo.write(
        "flake.nix",
        """{
  inputs.sbcs.url = "path:./hosts/sbcs";
  inputs.servers.url = "path:./hosts/servers";
  outputs = { sbcs, servers, ... }: { nixosConfigurations = sbcs.nixosConfigurations // servers.nixosConfigurations; };
}
""",
    )
    made.repo.git("add", ".")
    made.nix_lock(".")
    made.repo.commit()
    made.release("2")
    made.nix_lock("hosts/sbcs", "update")
    made.repo.commit()


def _self_pinned(made: Fixture) -> None:
    made.repo.write("common/flake.nix", "{ outputs = _: { }; }")
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    made.repo.git("remote", "add", "origin", f"file://{made.repo.path}/")
    flake = made.repo.path / "hosts/sbcs/flake.nix"
    own = f'{{\n  inputs.common.url = "git+file://{made.repo.path}?dir=common&ref=main";'
    made.repo.write("hosts/sbcs/flake.nix", flake.read_text().replace("{", own, 1).replace("nixpkgs }", "nixpkgs, ... }"))
    made.repo.commit()
    made.nix_lock("hosts/sbcs")
    made.repo.commit()


def _twice(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    made.release("2")
    made.group("boards", {"board": TWO["pi-1"], "pi-1": 'lib.host { name = "another"; }'})


def _linked(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    made.repo.git("mv", "hosts/sbcs/flake.lock", "sbcs.lock")
    (made.repo.path / "hosts/sbcs/flake.lock").symlink_to("../../sbcs.lock")
    made.repo.commit()


def _with_submodule(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    made.repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(made.upstream.path), "vendor/part")
    made.repo.commit()


def _broken_lock(text: str) -> Any:
    def make(made: Fixture) -> None:
        made.group("sbcs", {"pi-1": TWO["pi-1"]})
        made.group("servers", {"web": TWO["web"]})
        made.repo.write("hosts/sbcs/flake.lock", text)
        made.repo.commit()

    return make


def _ignored(made: Fixture) -> None:
    made.repo.write(".gitignore", "flake.lock\n")
    made.group("sbcs", {"pi-1": TWO["pi-1"]})


def _broken_host_lock(made: Fixture) -> None:
    made.group("all", TWO, flake=".")
    for name in TWO:
        made.repo.write(f"locks/{name}.lock", (made.repo.path / "flake.lock").read_text())
    made.repo.write("locks/broken.lock", "<<<<<<< ours\n")
    made.repo.commit()


def _pinned_and_indirect(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    rev = made.upstream.git("rev-parse", "HEAD")
    flake = (made.repo.path / "hosts/sbcs/flake.nix").read_text()
    made.repo.write("hosts/sbcs/flake.nix", flake.replace("?ref=main", f"?ref=main&rev={rev}"))
    made.nix_lock("hosts/sbcs")
    made.repo.commit()


def _old_version(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    lock = (made.repo.path / "hosts/sbcs/flake.lock").read_text()
    made.repo.write("hosts/sbcs/flake.lock", lock.replace('"version": 7', '"version": 6'))
    made.repo.commit()


def _detached(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    made.repo.git("checkout", "--quiet", "--detach")


LINT: Mapping[str, tuple[Any, list[str]]] = {
    "collecting root": (
        _collecting,
        [
            "flake.nix: flake.lock has its own copy of the pins of hosts/sbcs (nixpkgs), and differs already in nixpkgs: "
            "an update of hosts/sbcs/flake.lock changes nothing that is deployed through this flake. Deploy these hosts from",
            "has its own copy of the pins of hosts/servers (nixpkgs): an update",
            "the host pi-1 is in 2 flakes, with different nixpkgs: flake.nix as pi-1 and hosts/sbcs/flake.nix as pi-1. Keep it",
            "the host web is in 2 flakes: flake.nix as web and hosts/servers/flake.nix as web.",
        ],
    ),
    "self-pinning": (_self_pinned, ["hosts/sbcs/flake.nix: the input common is this repository itself, at commit ", "path:../"]),
    "exported twice": (
        _twice,
        ["pi-1 is in 2 flakes, with different nixpkgs: hosts/boards/flake.nix as board and hosts/sbcs/flake.nix as pi-1."],
    ),
    "link": (_linked, ["hosts/sbcs/flake.lock: the lock is a symbolic link to ../../sbcs.lock, and an update would replace"]),
    "submodule": (_with_submodule, [".gitmodules: nix does not look into submodules unless it is told: vendor/part."]),
    "conflict": (
        _broken_lock("<<<<<<< ours\n"),
        ["error: hosts/sbcs/flake.nix: the lock hosts/sbcs/flake.lock has a merge conflict"],
    ),
    "git-crypt": (_broken_lock("\0GITCRYPT\0xyz"), ["error: hosts/sbcs/flake.nix: the lock hosts/sbcs/flake.lock is encrypted"]),
    "empty": (_broken_lock(""), ["the lock hosts/sbcs/flake.lock is empty"]),
    "version 4": (_broken_lock('{"version": 4, "inputs": {}}'), ["has version 4, and only 5 to 7 can be read"]),
    "unlocked": (
        _broken_lock('{"nodes": {"root": {}}, "root": "root", "version": 7}'),
        ["error: hosts/sbcs/flake.nix: hosts/sbcs/flake.lock is not complete for its flake.nix"],
    ),
    "ignored": (_ignored, ["error: hosts/sbcs/flake.nix: hosts/sbcs/flake.lock is ignored by git, so nix does not see it"]),
    "broken host lock": (_broken_host_lock, ["error: locks/broken.lock: the lock locks/broken.lock has a merge conflict"]),
    "pinned": (_pinned_and_indirect, ["the input nixpkgs names a revision in flake.nix, so that an update does not move it"]),
    "version 6": (_old_version, ["hosts/sbcs/flake.nix: its lock has the old version 6, which the next update writes anew"]),
    "detached": (_detached, ["its HEAD is detached"]),
}


@pytest.mark.parametrize("name", LINT)
def test_lint_says_what_works_otherwise_than_one_may_think(made: Fixture, name: str) -> None:
    make, expected = LINT[name]
    make(made)
    before = made.repo.state()
    found = info(made.repo.path)
    said = problems(found)
    for words in expected:
        assert words in said
    assert made.repo.state() == before


def test_a_tidy_repository_has_no_problems(made: Fixture) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    made.group("servers", {"web": TWO["web"]})
    assert problems(info(made.repo.path)) == ""


def test_a_shallow_clone_is_looked_at_and_named(made: Fixture, tmp_path: Path) -> None:
    made.group("sbcs", {"pi-1": TWO["pi-1"]})
    sh("git", "clone", "--quiet", "--depth", "1", f"file://{made.repo.path}", str(tmp_path / "clone"))
    found = info(tmp_path / "clone")
    assert found["groups"][0]["hosts"] == ["pi-1"]
    assert "it is a shallow clone" in problems(found)


def test_locks_of_the_wild_never_stop_it(tmp_path: Path, controller: dict[str, str]) -> None:  # noqa: ARG001 - nix comes from it
    """Each lock beside a flake.nix that has none of its inputs: what nix then says is in the evidence."""
    repo = new_repo(tmp_path / "wild")
    texts = list(wild_texts().values())[::8]
    for number, text in enumerate(texts):
        repo.write(f"hosts/g{number}/flake.nix", "{ outputs = _: { nixosConfigurations.x = { }; }; }")
        (repo.path / f"hosts/g{number}/flake.lock").write_bytes(text.encode("utf-8", "surrogateescape"))
    repo.commit()
    found = info(repo.path, evaluate=False)
    assert len(found["flakes"]) == len(texts)
    assert found["strategy"] == "group_flakes"
    assert any(problem["level"] == "error" for problem in found["problems"])
