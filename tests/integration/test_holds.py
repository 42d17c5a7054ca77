# SPDX-License-Identifier: GPL-3.0-or-later
"""What is held stays where it is: real nix, real git, the real playbooks; only what would be done to targets is a stand-in."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Candidate, Run, make_candidate, publish
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.holding import Holding
from ansible_collections.flotilla.nixos.plugins.module_utils.holds import Hold
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.pairing import Choice
from ansible_collections.flotilla.nixos.plugins.module_utils.promotion import promote, restore
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import UPSTREAM, Repo, new_repo, sh
from integration.test_rollout_semantics import VENVS, Fleet, stand_ins

RUNNER = LocalRunner()
WHY = "the new kernel does not boot on our boards"
NOW = 1796126400.0  # 2026-12-01
TODAY = date(2026, 12, 1)

FLAKE = """{
  inputs.nixpkgs.url = "git+file://%(folder)s/nixpkgs?ref=main";
  inputs.tools.url = "git+file://%(folder)s/tools?ref=main";
  outputs = { self, nixpkgs, tools, ... }: {
    nixosConfigurations.%(host)s = nixpkgs.lib.host { name = "%(host)s"; };
  };
}
"""
#: An input that has one of its own.
TOOLS = '{ inputs.lib.url = "git+file://%s/lib?ref=main"; outputs = { ... }: { it = "VERSION"; }; }\n'


@pytest.fixture(autouse=True)
def _nix(controller: Mapping[str, str]) -> None:
    """Every test needs nix."""


class Held:
    """The groups canary and stable, with a flake each, and their upstreams."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = new_repo(folder / "fleet")
        self.repo.git("config", "user.name", "Op Erator")
        self.repo.git("config", "user.email", "op@example.org")
        for name in ("nixpkgs", "tools", "lib"):
            new_repo(folder / name)
        self.release("1")
        for name, host in (("canary", "can1"), ("stable", "st1")):
            self.repo.write(f"hosts/{name}/flake.nix", FLAKE % {"folder": folder, "host": host})
            self.repo.git("add", ".")
            sh("nix", "flake", "lock", f"path:{self.repo.path}/hosts/{name}")
        self.repo.commit()

    def release(self, version: str) -> None:
        """Let all upstreams move on."""
        texts = {"nixpkgs": UPSTREAM, "tools": TOOLS % self.folder, "lib": '{ outputs = _: { it = "VERSION"; }; }\n'}
        for name, text in texts.items():
            upstream = Repo(self.folder / name)
            upstream.write("flake.nix", text.replace("VERSION", f"{name} {version}"))
            upstream.commit()

    def group(self, *holds: Hold, name: str = "stable") -> UpdateGroup:
        return update_group(name, str(self.repo.path), holds=holds)

    def revision(self, commit: str, node: str, name: str = "stable") -> Any:
        return json.loads(self.repo.git("show", f"{commit}:hosts/{name}/flake.lock"))["nodes"][node]["locked"]["rev"]


@pytest.fixture
def made(tmp_path: Path) -> Held:
    """Upstreams have released 2 since all was locked."""
    held = Held(tmp_path)
    held.release("2")
    return held


def run() -> Run:
    return Run(f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester")


def hold(name: str | None, until: date = TODAY) -> Hold:
    return Hold(name, WHY, until)


def updated(group: UpdateGroup, wish: Wish | None = None, *, force: str = "", shared: Run | None = None) -> Candidate:
    return make_candidate(RUNNER, group, shared or run(), wish or Wish(("*",)), holding=Holding(group, (), NOW, force))


def moved(candidate: Candidate) -> set[str]:
    return {change.input for change in candidate.changes}


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ((), {"nixpkgs", "tools", "tools/lib"}),
        ((hold("nixpkgs"),), {"tools", "tools/lib"}),
        # What is below a held input stays as well, and what is above one.
        ((hold("tools"),), {"nixpkgs"}),
        ((hold("tools/lib"),), {"nixpkgs"}),
        ((hold("nixpkgs"), hold("tools")), set()),
        ((hold(None),), set()),
        ((hold("nixpkgs", date(2026, 11, 30)),), {"nixpkgs", "tools", "tools/lib"}),
    ],
)
def test_an_update_leaves_out_what_is_held(made: Held, holds: tuple[Hold, ...], expected: set[str]) -> None:
    before = made.repo.state()
    found = updated(made.group(*holds))
    assert moved(found) == expected
    assert (found.candidate is None) is (not expected)
    standing = [one for one in holds if not one.over(NOW)]
    assert len(found.notes) == len(standing)
    assert all(f"is held until 2026-12-01: {WHY}" in note for note in found.notes)
    assert all(any(note in warning for warning in found.warnings) for note in found.notes)
    if len(standing) < len(holds):
        assert any("the hold of nixpkgs ended with 2026-11-30" in warning for warning in found.warnings)
    assert made.repo.state() == before


def test_a_held_input_takes_part_in_what_upstreams_have_said_for_nobody(made: Held) -> None:
    """The old revision that one group keeps is no answer to another's question."""
    shared = run()
    updated(made.group(hold("nixpkgs")), shared=shared)
    other = updated(made.group(name="canary"), shared=shared)
    assert {"nixpkgs", "tools"} <= moved(other)
    assert made.revision(other.commit, "nixpkgs", "canary") == Repo(made.folder / "nixpkgs").git("rev-parse", "main")


def test_an_input_that_flake_nix_has_gained_is_locked_beside_a_held_one(made: Held) -> None:
    flake = made.repo.path / "hosts/stable/flake.nix"
    more = f'inputs.lib.url = "git+file://{made.folder}/lib?ref=main";\n  outputs'
    made.repo.write("hosts/stable/flake.nix", flake.read_text().replace("outputs", more, 1))
    made.repo.commit()
    found = updated(made.group(hold("nixpkgs")))
    assert "lib" in moved(found)
    assert "nixpkgs" not in moved(found)


@pytest.mark.parametrize("wish", [Wish(("nixpkgs",)), Wish(pins={"nixpkgs": "main"}), Wish(("*",), {"nixpkgs": "main"})])
@pytest.mark.parametrize("name", ["nixpkgs", None])
def test_naming_what_is_held_needs_a_reason(made: Held, wish: Wish, name: str | None) -> None:
    before = made.repo.state()
    with pytest.raises(BadInput, match=r"stable: nixpkgs must not move: .* is held until 2026-12-01: the new kernel"):
        updated(made.group(hold(name)), wish)
    assert made.repo.state() == before
    found = updated(made.group(hold(name)), wish, force="the fix is out")
    assert "nixpkgs" in moved(found)
    assert any("It moves all the same: the fix is out" in warning for warning in found.warnings)


def test_a_promotion_leaves_out_what_is_held(made: Held) -> None:
    canary = made.group(name="canary")
    first = updated(canary)
    publish(first)
    given: dict[str, Any] = {"source": canary, "commit": first.commit}

    def promoted(group: UpdateGroup, *inputs: str, force: str = "", alone: bool = True) -> Candidate:
        holding = Holding(group, (), NOW, force, alone)
        return promote(RUNNER, group, run(), given["source"], Choice(inputs or None), commit=given["commit"], holding=holding)

    assert moved(promoted(made.group(hold("nixpkgs")))) == {"tools", "tools/lib"}
    assert moved(promoted(made.group(hold("tools/lib")))) == {"nixpkgs"}
    with pytest.raises(BadInput, match="nixpkgs must not move"):
        promoted(made.group(hold("nixpkgs")), "nixpkgs")
    assert moved(promoted(made.group(hold("nixpkgs")), "nixpkgs", force="x")) == {"nixpkgs"}
    with pytest.raises(BadInput, match="nothing of it may move: the whole group is held until 2026-12-01"):
        promoted(made.group(hold(None)))
    # One of several is passed over.
    assert promoted(made.group(hold(None)), alone=False).candidate is None
    assert moved(promoted(made.group(hold(None)), force="it is urgent")) == {"nixpkgs", "tools", "tools/lib"}


def test_going_back_goes_through_and_says_so(made: Held) -> None:
    start = made.repo.git("rev-parse", "main")
    publish(updated(made.group()))
    made.repo.git("merge", "--quiet", "--ff-only", "refs/flotilla/candidate/stable")
    group = made.group(hold(None))
    back = restore(RUNNER, group, run(), start, holding=Holding(group, (), NOW))
    assert moved(back) == {"nixpkgs", "tools", "tools/lib"}
    assert any("It goes back all the same" in warning for warning in back.warnings)


# Through the playbooks

INVENTORY = """
all:
  vars:
    ansible_connection: local
    flotilla_repo: %s
  children:
    canary:
      vars: {flotilla_update_group: canary}
      hosts: {can1: }
    stable:
      vars:
        flotilla_update_group: stable
        flotilla_hold:
          - %s
      hosts: {st1: }
"""
UPDATE = ("-e", "flotilla_update=true", "-e", "flotilla_all=true")


@pytest.fixture(params=VENVS)
def controlled(request: pytest.FixtureRequest, made: Held) -> Fleet:
    """The playbooks over that fleet."""
    return stand_ins(made.folder, request.param, but=("flake_lock", "flake_build", "flake_ledger"))


def said(output: str) -> str:
    return " ".join(output.split())


@pytest.mark.parametrize("playbook", ["update", "rollout"])
def test_an_unattended_update_goes_on_without_what_is_held(controlled: Fleet, made: Held, playbook: str) -> None:
    (made.folder / "inventory").write_text(INVENTORY % (made.repo.path, "{reason: the shop is open, until: 2999-12-31}"))
    before = {name: made.revision("main", "nixpkgs", name) for name in ("canary", "stable")}
    found = controlled.run(*UPDATE, "-e", "flotilla_land=true", playbook=f"flotilla.nixos.{playbook}")
    assert found.status == 0, found.output
    assert "the whole group is held until 2999-12-31: the shop is open" in said(found.output)
    assert made.revision("main", "nixpkgs", "stable") == before["stable"]
    assert made.revision("main", "nixpkgs", "canary") != before["canary"]


def test_a_held_input_is_named_in_the_plan_and_refused_by_name(controlled: Fleet, made: Held) -> None:
    (made.folder / "inventory").write_text(INVENTORY % (made.repo.path, "{input: nixpkgs, reason: it breaks, until: 2999-12-31}"))
    before = made.revision("main", "nixpkgs")
    found = controlled.run("-l", "stable", *UPDATE)
    assert found.status == 0, found.output
    assert "    nixpkgs is held until 2999-12-31: it breaks" in found.output
    assert made.revision("main", "nixpkgs") == before
    assert made.revision("main", "tools") == Repo(made.folder / "tools").git("rev-parse", "main")
    refused = controlled.run("-l", "stable", *UPDATE, "-e", '{"flotilla_update_inputs": ["nixpkgs"]}')
    assert refused.status == 2
    assert "nixpkgs must not move: nixpkgs is held until 2999-12-31: it breaks" in said(refused.output)
    assert made.revision("main", "nixpkgs") == before
    forced = ("-e", '{"flotilla_update_inputs": ["nixpkgs"], "flotilla_force_reason": "the fix is out"}')
    assert controlled.run("-l", "stable", *UPDATE, *forced).status == 0
    assert made.revision("main", "nixpkgs") != before
    notes = made.repo.git("log", "--all", "--notes=flotilla", "--format=%N")
    assert "the fix is out (against: stable: nixpkgs is held until 2999-12-31: it breaks)" in notes


def test_a_hold_without_a_reason_and_one_that_has_ended(controlled: Fleet, made: Held) -> None:
    inventory = made.folder / "inventory"
    inventory.write_text(INVENTORY % (made.repo.path, "{input: nixpkgs, until: 2999-12-31}"))
    refused = controlled.run("-l", "stable", *UPDATE)
    assert refused.status == 2
    assert "the hold of nixpkgs has no reason" in said(refused.output)
    inventory.write_text(INVENTORY % (made.repo.path, "{input: nixpkgs, reason: it breaks, until: 2026-01-31}"))
    over = controlled.run("-l", "stable", *UPDATE)
    assert over.status == 0, over.output
    assert "the hold of nixpkgs ended with 2026-01-31, and holds no more (it breaks). Take it out of" in said(over.output)
    assert made.revision("main", "nixpkgs") == Repo(made.folder / "nixpkgs").git("rev-parse", "main")
