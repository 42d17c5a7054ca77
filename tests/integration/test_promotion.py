# SPDX-License-Identifier: GPL-3.0-or-later
"""flake_lock's states promoted and restored with real nix and git: which pins come, which stay, and what does not fit."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Candidate, Run, known_good_ref, publish
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed
from ansible_collections.flotilla.nixos.plugins.module_utils.git import open_repository
from ansible_collections.flotilla.nixos.plugins.module_utils.graft import graft
from ansible_collections.flotilla.nixos.plugins.module_utils.landing import accept
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import followed, parse_lock, pins, raw_entries, root_inputs
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Locking
from ansible_collections.flotilla.nixos.plugins.module_utils.pairing import Choice
from ansible_collections.flotilla.nixos.plugins.module_utils.promotion import KNOWN_GOOD, promote, restore
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from hypothesis import HealthCheck, assume, given, settings
from integration.repositories import new_repo, sh
from lock_strategies import Rings, rings
from testbed.playbooks import Ansible
from wild_locks import flake_for, wild_texts

RUNNER = LocalRunner()
#: Of the sample's locks, some that nix can check without their sources.
REAL = (
    "kleinbem__nix-config__flake.lock",
    "PaulGrandperrin__nix-systems__flake@c72509ca.lock",
    "ryan4yin__nix-config__flake@e151d3b4.lock",
    "linyinfeng__dotfiles__flake.lock",
    "NixOS__infra__flake.lock",
    "queze1__nixos-config__flake.lock",
    "Hovirix__nixos-config__laptop__flake@5a908609.lock",
    "435vic__vicOS__flake.lock",
)
FLAKE = """{
  inputs.nixpkgs.url = "git+file://UPSTREAM?ref=main";
  inputs.dep.url = "git+file://DEP?ref=main";
  inputs.dep.inputs.base.follows = "nixpkgs";
MORE
  outputs = { self, ... }: { };
}
"""


class Fleet:
    """A repository with the groups canary and stable, which differ as a test wants, and their upstreams."""

    def __init__(self, folder: Path, *, follower: str = "") -> None:
        """follower: an input more of dep. With one at its top, nix reads dep's source each time it checks a lock."""
        self.follower = follower
        self.repo, self.upstream, self.dep = (new_repo(folder / name) for name in ("fleet", "upstream", "dep"))
        self.repo.git("config", "user.name", "Op Erator")
        self.repo.git("config", "user.email", "op@example.org")
        self.release("1")

    def release(self, version: str) -> None:
        """Let both upstreams move on. What dep has beside base is an input with a pin of its own."""
        self.upstream.write("flake.nix", f"{{ outputs = _: {{ version = {version}; }}; }}\n")
        self.upstream.commit()
        url = f"git+file://{self.upstream.path}?ref=main"
        inputs = f'base.url = "{url}"; own.url = "{url}"; {self.follower}'
        self.dep.write("flake.nix", f"{{ inputs = {{ {inputs} }}; outputs = _: {{ version = {version}; }}; }}\n")
        self.dep.commit()

    def write(self, where: str, more: str = "", text: str = FLAKE) -> None:
        """A flake, not locked."""
        text = text.replace("MORE", more)
        self.repo.write(
            f"{where}/flake.nix", text.replace("UPSTREAM", str(self.upstream.path)).replace("DEP", str(self.dep.path))
        )
        self.repo.git("add", ".")

    def lock(self, where: str, verb: str = "lock", *words: str) -> str:
        """Lock a flake to what there is now, and commit."""
        flake = f"path:{self.repo.path}/{where}"
        sh("nix", "flake", verb, *words, *(["--flake"] if verb == "update" else []), flake)
        return self.repo.commit()

    def group(self, name: str, **fields: Any) -> UpdateGroup:
        return update_group(name, str(self.repo.path), **fields)

    def pins(self, commit: str, lock: str = "hosts/stable/flake.lock") -> dict[str, str | None]:
        text = self.repo.git("show", f"{commit}:{lock}") + "\n"
        return {name: pin.rev for name, pin in pins(parse_lock(text, "test", lock)).items()}

    def nested(self, commit: str, lock: str = "hosts/stable/flake.lock") -> Any:
        return parse_lock(self.repo.git("show", f"{commit}:{lock}"), "test", lock)


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


@pytest.fixture(name="ahead")
def _ahead(tmp_path: Path) -> Fleet:
    """Canary is locked to version 2 and stable, which has an input more, to version 1; the upstreams have 3."""
    made = Fleet(tmp_path)
    made.write("hosts/stable", '  inputs.extra.url = "git+file://UPSTREAM?ref=main";')
    made.lock("hosts/stable")
    made.release("2")
    made.write("hosts/canary")
    made.lock("hosts/canary")
    made.release("3")
    return made


def run() -> Run:
    return Run(f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester")


def promoted(fleet: Fleet, *inputs: str, mapping: Mapping[str, str] | None = None, **more: Any) -> Candidate:
    group, source = more.pop("group", fleet.group("stable")), more.pop("source", fleet.group("canary"))
    made = promote(RUNNER, group, run(), source, Choice(inputs or None, mapping or {}), **more)
    publish(made)
    return made


def restored(fleet: Fleet, to: str, *inputs: str, group: UpdateGroup | None = None) -> Candidate:
    made = restore(RUNNER, group or fleet.group("stable"), run(), to, inputs or None)
    publish(made)
    return made


def out_of_reach(fleet: Fleet) -> None:
    """No upstream answers any more."""
    for repo in (fleet.upstream, fleet.dep):
        repo.path.rename(repo.path.with_name(f"gone-{repo.path.name}"))


# Promotion


def test_the_target_gets_the_sources_pins_and_keeps_its_own_inputs_without_any_upstream(
    ahead: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, before = ahead.repo, ahead.pins("main")
    out_of_reach(ahead)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NIX_REMOTE", f"local?root={tmp_path}/store")
    canary = ahead.pins("main", "hosts/canary/flake.lock")
    made = promoted(ahead)
    assert ahead.pins(made.commit) == {**canary, "extra": before["extra"]}
    assert canary["nixpkgs"] != before["nixpkgs"]
    assert {change.input for change in made.changes} == {"nixpkgs", "dep", "dep/own"}
    assert repo.git("diff-tree", "-r", "--name-only", made.base, made.commit) == "hosts/stable/flake.lock"
    assert made.message.startswith("stable: ")
    assert made.message.endswith(" (from canary)")
    body = repo.git("show", "--no-patch", "--format=%b", made.commit)
    assert f"The pins of canary at commit {made.base}." in body
    # As any candidate: again nothing changes, and it lands.
    assert not promoted(ahead).changed
    assert accept(RUNNER, ahead.group("stable"), run()).commit == made.commit
    nothing = promoted(ahead)
    assert (nothing.candidate, nothing.changed, nothing.commit) == (None, False, made.commit)
    sh("nix", "flake", "lock", "--no-update-lock-file", f"git+file://{repo.path}?dir=hosts/stable")


def test_only_named_inputs_move(ahead: Fleet) -> None:
    made = promoted(ahead, "nixpkgs")
    assert [change.input for change in made.changes] == ["nixpkgs"]
    with pytest.raises(BadInput, match=r"canary has no input 'extra'\. It has dep, nixpkgs"):
        promoted(ahead, "extra")
    with pytest.raises(BadInput, match=r"input dep/base follows another .* Name nixpkgs instead"):
        promoted(ahead, "dep/base")


def test_the_source_as_of_a_commit_or_as_it_was_last_proven(ahead: Fleet) -> None:
    proven = ahead.repo.git("rev-parse", "main")
    ahead.lock("hosts/canary", "update")
    with pytest.raises(BadInput, match="canary: it has no known-good commit yet"):
        promoted(ahead, commit=KNOWN_GOOD)
    ahead.repo.git("update-ref", known_good_ref(ahead.group("canary")), proven)
    made = promoted(ahead, commit=KNOWN_GOOD)
    assert ahead.pins(made.commit)["nixpkgs"] == ahead.pins(proven, "hosts/canary/flake.lock")["nixpkgs"]
    assert promoted(ahead, commit=proven).commit == made.commit
    assert promoted(ahead).commit != made.commit


def test_another_repository_with_its_own_lock(ahead: Fleet, tmp_path: Path) -> None:
    other = new_repo(tmp_path / "other")
    other.write("flake.nix", (ahead.repo.path / "hosts/canary/flake.nix").read_text())
    other.git("add", ".")
    sh("nix", "flake", "lock", f"path:{other.path}")
    other.commit()
    source = update_group("canary", str(other.path), strategy="group_repos")
    made = promoted(ahead, source=source)
    assert ahead.pins(made.commit)["dep"] == ahead.dep.git("rev-parse", "main")


def test_a_promotion_lands_on_a_branch_that_has_moved(ahead: Fleet) -> None:
    proven = ahead.pins("main", "hosts/canary/flake.lock")
    promoted(ahead)
    head = ahead.lock("hosts/canary", "update")
    landing = accept(RUNNER, ahead.group("stable"), run())
    assert landing.merged
    assert ahead.pins("main")["nixpkgs"] == proven["nixpkgs"]
    assert ahead.pins("main", "hosts/canary/flake.lock") == ahead.pins(head, "hosts/canary/flake.lock") != proven


def test_an_input_that_neither_lock_has_and_nobody_answers_for(ahead: Fleet) -> None:
    ahead.write("hosts/stable", '  inputs.fresh.url = "git+file:///nowhere?ref=main";')
    ahead.repo.commit()
    before = ahead.repo.state()
    with pytest.raises(
        CommandFailed, match=r"stable: locking the inputs failed: .*inputs that are not locked yet: lock them first"
    ):
        promoted(ahead)
    assert ahead.repo.state() == before


def test_inputs_that_flake_nix_takes_from_elsewhere_are_named_and_can_be_left(ahead: Fleet) -> None:
    ahead.upstream.git("branch", "next")
    text = (ahead.repo.path / "hosts/canary/flake.nix").read_text()
    ahead.repo.write("hosts/canary/flake.nix", text.replace("upstream?ref=main", "upstream?ref=next"))
    ahead.lock("hosts/canary")
    before = ahead.repo.state()
    with pytest.raises(BadInput, match=r"nixpkgs is file://\S+upstream main, and file://\S+upstream next in canary"):
        promoted(ahead)
    assert ahead.repo.state() == before
    assert {change.input for change in promoted(ahead, "dep").changes} == {"dep", "dep/own"}


def test_a_different_wiring_of_the_two_flakes(ahead: Fleet) -> None:
    without = FLAKE.replace('  inputs.dep.inputs.base.follows = "nixpkgs";\n', "")
    ahead.write("hosts/loose", text=without)
    ahead.lock("hosts/loose")
    made = promoted(ahead, source=ahead.group("loose"))
    assert made.warnings == ("stable: flake.nix lets dep/base follow other inputs, and loose has pins of their own for them.",)
    assert ahead.pins(made.commit)["dep"] == ahead.pins("main", "hosts/loose/flake.lock")["dep"]
    with pytest.raises(BadInput, match="loose: input dep/base follows nixpkgs in canary, and not in loose"):
        promoted(ahead, group=ahead.group("loose"))


GROUP_INPUTS = """{
  inputs.a.url = "git+file://UPSTREAM?ref=main";
  inputs.b.url = "git+file://UPSTREAM?ref=main";
  inputs.depA = { url = "git+file://DEP?ref=main"; inputs.base.follows = "a"; };
  inputs.depB = { url = "git+file://DEP?ref=main"; inputs.base.follows = "b"; };
  outputs = { self, ... }: { };
}
"""


def test_groups_with_inputs_of_their_own_in_one_lock(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, follower='also.follows = "own";')
    fleet.write(".", text=GROUP_INPUTS)
    fleet.lock(".")
    fleet.release("2")
    fleet.lock(".", "update", "a", "depA")
    a = fleet.group("a", strategy="group_inputs", inputs=["a", "depA"])
    b = fleet.group("b", strategy="group_inputs", inputs=["b", "depB"])
    with pytest.raises(BadInput, match=r"b: it shares the lock flake\.lock with a.*Say in mapping"):
        promoted(fleet, group=b, source=a)
    with pytest.raises(BadInput, match="input depA is not one that this group may move"):
        promoted(fleet, group=b, source=a, mapping={"depB": "depA"})
    made = promoted(fleet, group=b, source=a, mapping={"a": "b", "depA": "depB"})
    now = fleet.pins(made.commit, "flake.lock")
    assert (now["b"], now["depB"]) == (now["a"], now["depA"])
    assert {change.input for change in made.changes} == {"b", "depB", "depB/own"}
    lock = fleet.nested(made.commit, "flake.lock").raw["nodes"]
    assert lock[lock["root"]["inputs"]["depB"]]["inputs"]["base"] == ["b"]
    assert lock[lock["root"]["inputs"]["depB"]]["inputs"]["also"] == ["depB", "own"]


def test_a_flake_that_both_share_has_gained_an_input(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.write(".")
    for name in ("canary", "stable"):
        (fleet.repo.path / "locks").mkdir(exist_ok=True)
        sh("nix", "flake", "lock", f"path:{fleet.repo.path}", "--output-lock-file", f"{fleet.repo.path}/locks/{name}.lock")
    fleet.repo.commit()
    fleet.release("2")
    fleet.write(".", '  inputs.extra.url = "git+file://UPSTREAM?ref=main";')
    lock = f"{fleet.repo.path}/locks/canary.lock"
    files = ("--reference-lock-file", lock, "--output-lock-file", lock)
    sh("nix", "flake", "update", "--flake", f"path:{fleet.repo.path}", *files)
    fleet.repo.commit()
    canary, stable = (fleet.group(name, strategy="host_locks", lock="locks/{group}.lock") for name in ("canary", "stable"))
    with pytest.raises(BadInput, match=r"flake\.nix has other inputs than the lock: nix would lock anew extra"):
        promoted(fleet, "nixpkgs", group=stable, source=canary)
    out_of_reach(fleet)
    made = promoted(fleet, group=stable, source=canary)
    assert fleet.repo.git("show", f"{made.commit}:locks/stable.lock") == fleet.repo.git("show", "main:locks/canary.lock")


WRAPPER = """{
  inputs.nixpkgs.url = "git+file://UPSTREAM?ref=main";
  inputs.all = { url = "path:../.."; inputs.nixpkgs.follows = "nixpkgs"; };
  outputs = { self, all, ... }: { };
}
"""


def test_stages_that_wrap_one_flake_take_along_what_they_do_not_override(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.write(".")
    fleet.lock(".")
    for name in ("prod", "dev"):
        fleet.write(f"hosts/{name}", text=WRAPPER)
        flake = f"path:{fleet.repo.path}?dir=hosts/{name}"
        sh("nix", "flake", "lock", flake)
        fleet.repo.commit()
        fleet.release("2")
        sh("nix", "flake", "update", "--flake", f"path:{fleet.repo.path}")
        fleet.repo.commit()
    dev, prod = (fleet.group(name, strategy="stage_flakes") for name in ("dev", "prod"))
    made = promoted(fleet, group=prod, source=dev)
    assert {change.input for change in made.changes} == {"nixpkgs", "all/dep", "all/dep/own"}
    assert fleet.repo.git("diff", "--stat", f"{made.commit}:hosts/dev/flake.lock", f"{made.commit}:hosts/prod/flake.lock") == ""


def test_branches(ahead: Fleet) -> None:
    """The lock alone: what else differs between the branches stays as it is, for that is a merge."""
    ahead.repo.git("branch", "stable")
    ahead.lock("hosts/canary", "update")
    canary, stable = (
        ahead.group(name, strategy="group_branches", flake="hosts/canary", branch=branch) for name, branch in BRANCHES
    )
    made = promoted(ahead, group=stable, source=canary)
    lock = "hosts/canary/flake.lock"
    assert ahead.pins(made.commit, lock) == ahead.pins("main", lock) != ahead.pins("stable", lock)
    assert accept(RUNNER, stable, run()).commit == ahead.repo.git("rev-parse", "stable")


BRANCHES = (("canary", "main"), ("stable", "stable"))


# No upstream is there at all: that nix takes these locks shows that it asks none.
@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=rings())
def test_nix_agrees_about_any_two_locks(groups: Rings, tmp_path_factory: pytest.TempPathFactory) -> None:
    assume(groups.chosen)
    repo = new_repo(tmp_path_factory.mktemp("rings") / "fleet")
    repo.git("config", "user.name", "Op Erator")
    repo.git("config", "user.email", "op@example.org")
    for which, (name, lock) in enumerate((("stable", groups.target), ("canary", groups.source))):
        repo.write(f"hosts/{name}/flake.nix", groups.flake(which))
        repo.write(f"hosts/{name}/flake.lock", lock.to_text())
    repo.commit()
    stable, canary = (update_group(name, str(repo.path)) for name in ("stable", "canary"))
    made = promote(RUNNER, stable, run(), canary, Choice(groups.chosen))
    text = repo.git("show", f"{made.commit}:hosts/stable/flake.lock")
    theirs, ours = raw_entries(groups.source), raw_entries(groups.target)
    for path, entry in raw_entries(parse_lock(text, "stable", "flake.lock")).items():
        assert entry == (theirs if path[0] in groups.chosen else ours)[path]
    sh("nix", "flake", "lock", "--no-update-lock-file", f"git+file://{repo.path}?dir=hosts/stable&rev={made.commit}")


WILD = {name: text for name, text in wild_texts().items() if name in REAL}


def test_nix_writes_real_locks_back_to_the_byte_after_they_were_taken_apart(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "fleet")
    locks = {name: parse_lock(text, "test", name) for name, text in WILD.items()}
    groups = {name: update_group(f"g{number}", str(repo.path)) for number, name in enumerate(locks)}
    for name, group in groups.items():
        repo.write(f"{group.flake}/flake.nix", flake_for(locks[name]))
    commit = repo.commit()
    for name, lock in locks.items():
        own = {(one,): (one,) for one in root_inputs(lock) if followed(lock, (one,)) is None}
        apart = graft(lock, lock, own, ("stable", "canary")).lock
        opened = open_repository(RUNNER, str(repo.path), "test")
        assert Locking(opened, groups[name], commit, str(tmp_path), {}).rewritten(apart, offline=True).to_text() == WILD[name]


# Restoring


def test_restoring_brings_the_blob_of_a_commit_back(ahead: Fleet) -> None:
    first = ahead.repo.git("rev-parse", "main")
    ahead.lock("hosts/stable", "update")
    made = restored(ahead, first[:10])
    assert made.message.endswith(f" (back to {first[:7]})")
    blobs = [ahead.repo.git("rev-parse", f"{commit}:hosts/stable/flake.lock") for commit in (first, made.commit)]
    assert blobs[0] == blobs[1]
    assert not restored(ahead, first).changed
    accept(RUNNER, ahead.group("stable"), run())
    assert restored(ahead, first).candidate is None
    assert restored(ahead, "HEAD~1", "nixpkgs").message.startswith("stable: nixpkgs ")
    with pytest.raises(BadInput, match="stable: it has no known-good commit yet"):
        restored(ahead, KNOWN_GOOD)
    ahead.repo.git("update-ref", known_good_ref(ahead.group("stable")), "HEAD~1")
    assert restored(ahead, KNOWN_GOOD).message.endswith("(back to known-good)")
    with pytest.raises(BadInput, match="has no commit 'nosuch'"):
        restored(ahead, "nosuch")


def test_inputs_that_came_later_keep_their_pins_and_those_that_went_stay_away(ahead: Fleet) -> None:
    first, text = ahead.repo.git("rev-parse", "main"), FLAKE
    ahead.write("hosts/stable", '  inputs.late.url = "git+file://UPSTREAM?ref=main";', text=text)
    ahead.lock("hosts/stable", "update")
    made = restored(ahead, first)
    old, head = ahead.pins(first), ahead.pins("main")
    assert ahead.pins(made.commit) == {"nixpkgs": old["nixpkgs"], "dep": old["dep"], "late": head["late"]}
    assert made.warnings == (f"stable: late came after {first[:7]}; kept as at the branch's head.",)


@pytest.mark.parametrize("text", [None, "", "{\n<<<<<<< HEAD\n=======\n>>>>>>> other\n}\n"])
def test_a_lock_that_is_gone_or_broken_comes_back(ahead: Fleet, text: str | None) -> None:
    first = ahead.repo.git("rev-parse", "main")
    ahead.repo.git("rm", "--quiet", "hosts/stable/flake.lock")
    if text is not None:
        ahead.repo.write("hosts/stable/flake.lock", text)
    ahead.repo.commit()
    made = restored(ahead, first)
    assert ahead.repo.git("diff", "--name-only", first, made.commit, "--", "hosts/stable") == ""
    assert made.message == f"stable: lock the inputs (back to {first[:7]})"


# The module


def test_the_module_in_check_and_diff_mode_and_twice(ahead: Fleet, ansible: Ansible, tmp_path: Path) -> None:
    inventory = tmp_path / "localhost.json"
    inventory.write_text('{"all": {"hosts": {"localhost": {"ansible_connection": "local"}}}}')
    repo = str(ahead.repo.path)
    first = ahead.repo.git("rev-parse", "main")
    groups = [{"name": "stable", "repo": repo}]
    promotion = {"groups": groups, "state": "promoted", "source": {"name": "canary", "repo": repo}}
    both = [*groups, {"name": "nosuch", "repo": repo}]
    tasks: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (promotion, {"check_mode": True, "diff": True}),
        (promotion, {}),
        (promotion, {}),
        ({**promotion, "groups": both, "continue_on_error": True}, {}),
        ({"groups": groups, "state": "accepted"}, {}),
        (promotion, {}),
        ({"groups": groups, "state": "restored", "to": first}, {}),
        ({"groups": groups, "state": "restored", "to": first}, {}),
        ({"groups": groups, "state": "promoted"}, {}),
        ({"groups": groups, "to": first}, {}),
    ]
    written = [{"flotilla.nixos.flake_lock": options, "ignore_errors": True, **more} for options, more in tasks]
    played = ansible.playbook([{"hosts": "localhost", "gather_facts": False, "tasks": written}], inventory=inventory)
    results = [task.result for task in played.of("flake_lock")]
    assert [result.get("changed") for result in results[:8]] == [True, True, False, False, True, False, True, False]
    planned, made = results[0]["groups"]["stable"], results[1]["groups"]["stable"]
    assert {key: planned[key] for key in ("base", "changes", "message")} == {
        key: made[key] for key in ("base", "changes", "message")
    }
    assert f"--- before: {repo}/hosts/stable/flake.lock" in played.text
    assert results[3]["groups"]["nosuch"]["msg"].startswith("nosuch: there is no hosts/nosuch/flake.nix")
    assert results[4]["groups"]["stable"]["commit"] == made["commit"]
    assert "source" in results[8]["msg"]
    assert results[9]["msg"].startswith("option to: it has no meaning with state=updated")
