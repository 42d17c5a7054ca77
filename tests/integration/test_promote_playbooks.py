# SPDX-License-Identifier: GPL-3.0-or-later
"""promote.yml, restore.yml and update.yml with a branch, on real hosts whose groups are on branches of their own.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import Rollout, in_order
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger_record import read
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from testbed import Fleet, layouts, upstream
from testbed.example import Example, addresses_of
from testbed.playbooks import Ansible, Played

CANARY_TO_EARLY = ("-e", "from=canary", "-e", "to=early")
MAIN_TO_EARLY = ("-e", "from=main", "-e", "to=early")


@dataclass
class Site:
    """The repository, whose main branch is checked out, its hosts canary1 and early1, and the Ansible that runs them."""

    fleet: Fleet
    ansible: Ansible
    home: Example
    source: upstream.Upstream

    def play(self, book: str, *arguments: str, check: bool = True) -> Played:
        path = self.home.path
        # Waiting for units that die late is what test_activation.py shows.
        words = ("-e", "flotilla_settle=0", *arguments)
        return self.ansible.playbook(path / f"{book}.yml", *words, inventory=path / "inventory/hosts.yml", cwd=path, check=check)

    def refuses(self, book: str, *arguments: str) -> str:
        """The message of a run that is refused. No branch, no candidate, no file and no host has changed."""
        before = self.state()
        played = self.play(book, *arguments, check=False)
        assert not played.ok, played.text[-3000:]
        assert self.state() == before
        assert "Traceback" not in played.text
        return " ".join(next(t.result["msg"] for t in played.tasks if t.status == "failed").split())

    def state(self) -> tuple[str, str, list[str]]:
        """Everything that a refused run must not change. Not the ledger, which has a line for each rollout."""
        refs = self.home.git("for-each-ref", "refs/heads", "refs/flotilla/candidate")
        return refs, self.home.git("status", "--porcelain"), self.running("canary1", "early1")

    def running(self, *hosts: str) -> list[str]:
        """What hosts run, by the release in the system's name."""
        systems = [self.fleet.host(host).run("readlink -f /run/current-system").stdout.strip() for host in hosts]
        return [system.rpartition("-")[2] for system in systems]

    def head(self, branch: str) -> str:
        return self.home.git("rev-parse", branch)

    def lock(self, revision: str) -> str:
        return self.home.git("show", f"{revision}:flake.lock")

    def commit_on(self, branch: str, file: str, old: str, new: str) -> str:
        """Somebody's commit on a branch that is not checked out."""
        there = self.home.path.with_name(branch)
        self.home.git("worktree", "add", "--quiet", str(there), branch)
        elsewhere = Example(there, self.source, self.home.env)
        elsewhere.replace(file, old, new)
        commit = elsewhere.commit(f"Change {file}")
        self.home.git("worktree", "remove", str(there))
        return commit

    def last(self, group: str) -> Rollout:
        """The group's last line in the ledger."""
        return in_order(read(git.open_repository(LocalRunner(), str(self.home.path), "test")), group)[-1]


def outcomes(played: Played) -> dict[str, str]:
    (report,) = played.of("rollout_report")
    return {host: value["outcome"] for host, value in report.result["hosts"].items()}


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Hosts as new, and rolled out to; canary's soak is an hour."""
    fleet.reset("canary1", "early1")
    folder = tmp_path_factory.mktemp("rings")
    source = upstream.create(folder / "nixpkgs.git")
    made = layouts.create(folder / "site", "group_branches", source, env=fleet.env(), addresses=addresses_of(fleet))
    found = Site(fleet, ansible, made.home, source)
    found.play("rollout", "-l", "canary,early", "-e", "flotilla_soak=1h")
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "canary",
            r"canary: what it runs must not be promoted: commit [0-9a-f]{12} soaks until \S+Z \(5.m .* left\)\. Wait until then",
        ),
        ("stable", r"stable: what it runs must not be promoted: it has proven nothing yet: no rollout of it is recorded"),
        (
            "beta",
            r"promotion from beta: there is neither an update group .*\(canary, early, stable\).*branches are canary, early",
        ),
    ],
)
def test_what_is_not_proven_is_not_promoted(site: Site, source: str, expected: str) -> None:
    message = site.refuses("promote", "-e", f"from={source}", "-e", "to=early")
    assert re.search(expected, message), message


def test_fresh_pins_for_the_development_branch_with_every_host_built(site: Site) -> None:
    site.source.release("25.05.2")
    before = site.state()
    played = site.play("update", "-e", "branch=main")
    (built,) = played.of("flake_build")
    assert sorted(built.result["groups"]["main"]["hosts"]) == ["canary1", "early1", "stable1", "stable2"]
    assert site.state()[1:] == before[1:]
    assert "refs/flotilla/candidate/main" in site.home.git("for-each-ref")
    head = site.head("main")
    site.play("update", "-e", "branch=main", "-e", "flotilla_land=true")
    assert site.home.git("rev-parse", "main^") == head
    assert [site.head(branch) for branch in ("canary", "early", "stable")] == [head] * 3


def test_from_the_development_branch_to_the_first_ring(site: Site) -> None:
    site.home.replace("modules/base.nix", "{", "# A change of the configuration\n{")
    head = site.home.commit("Change the configuration")
    checked = site.play("promote", "-e", "from=main", "-e", "to=canary", "--check", "--diff")
    assert outcomes(checked) == {"canary1": "planned"}
    assert site.head("canary") != head
    assert "Change the configuration" in checked.text
    played = site.play("promote", "-e", "from=main", "-e", "to=canary")
    assert outcomes(played) == {"canary1": "updated"}
    assert (site.head("canary"), site.running("canary1", "early1")) == (head, ["25.05.2", "25.05.1"])
    assert site.home.git("branch", "--show-current") == "main"
    assert site.home.git("status", "--porcelain") == ""


def test_a_source_that_is_not_well_is_refused_unless_a_reason_is_given(site: Site, tmp_path: Path) -> None:
    site.fleet.host("canary1").run("systemd-run --unit=sick false; sleep 1; systemctl --failed")
    message = site.refuses("promote", *CANARY_TO_EARLY)
    assert message.startswith("canary: what it runs must not be promoted: canary1 has failed units (sick.service).")
    # Meanwhile somebody commits to the ring's branch: what was proven is merged with it.
    there = site.home.path
    meanwhile = tmp_path / "meanwhile.yml"
    script = f"git -C {there} update-ref refs/heads/early $(git -C {there} commit-tree early^{{tree}} -p early -m Meanwhile)"
    meanwhile.write_text(json.dumps([{"ansible.builtin.shell": script, "delegate_to": "localhost"}]))
    extra = {"flotilla_force_reason": "an urgent fix", "flotilla_health_tasks": [str(meanwhile)]}
    played = site.play("promote", *CANARY_TO_EARLY, "-e", json.dumps(extra))
    assert outcomes(played) == {"early1": "updated"}
    assert "goes on all the same: an urgent fix (although canary1 has failed units (sick.service))" in " ".join(
        played.text.split()
    )
    assert site.last("early").forced == "an urgent fix (although canary1 has failed units (sick.service))"
    assert site.last("early").commit == site.head("canary")
    assert site.home.git("log", "-1", "--format=%s", "early^1") == "Meanwhile"
    assert (site.lock("early"), site.running("early1")) == (site.lock("canary"), ["25.05.2"])
    site.fleet.host("canary1").run("systemctl reset-failed")


def test_a_second_time_nothing_changes(site: Site) -> None:
    before = site.state()
    played = site.play("promote", *CANARY_TO_EARLY)
    assert outcomes(played) == {"early1": "unchanged"}
    assert [task.task for task in played.tasks if task.result.get("changed")] == []
    assert site.state() == before


def test_a_ring_with_a_commit_of_its_own_gets_a_merge(site: Site) -> None:
    own = site.commit_on("early", "README.md", "# A branch for each group", "# Early, a branch for each group")
    site.source.release("25.05.3")
    site.play("update", "-e", "branch=main", "-e", "flotilla_land=true")
    assert outcomes(site.play("promote", *MAIN_TO_EARLY)) == {"early1": "updated"}
    assert site.home.git("rev-parse", "early^@").split() == [own, site.head("main")]
    assert site.lock("early") == site.lock("main")
    assert site.running("canary1", "early1") == ["25.05.2", "25.05.3"]


def test_a_merge_conflict_names_the_file_and_both_sides(site: Site) -> None:
    site.home.replace("README.md", "# A branch for each group", "# Branches, one for each group")
    main = site.home.commit("Say it otherwise")
    message = site.refuses("promote", *MAIN_TO_EARLY)
    assert f"early: README.md on branch early cannot be merged with commit {main[:12]} of main: both have changed it." in message


def test_a_restore_to_what_was_proven_and_to_a_commit(site: Site) -> None:
    site.source.release("25.05.5")
    site.play("update", "-l", "early", "-e", "flotilla_land=true")
    pins = site.lock("early^")
    assert site.lock("early") != pins
    site.home.git("update-ref", "-d", "refs/flotilla/known-good/early")
    before = site.home.git("for-each-ref")
    site.play("restore", "-e", "group=early", "--check")
    assert site.home.git("for-each-ref") == before, "the ledger says what is known-good, without its ref"
    played = site.play("restore", "-e", "group=early")
    assert outcomes(played) == {"early1": "unchanged"}, "it runs what it has proven still"
    assert site.lock("early") == pins
    assert "(back to known-good)" in site.home.git("log", "-1", "--format=%s", "early")
    refused = site.refuses("restore", "-e", "group=early", "-e", "to=canary")
    assert "canary is an update group, and a restore goes back to a commit" in refused
    played = site.play("restore", "-e", "group=early", "-e", f"to={site.head('canary')}")
    assert (outcomes(played), site.running("early1")) == ({"early1": "updated"}, ["25.05.2"])
    assert site.lock("early") == site.lock("canary")
    assert "README.md" not in site.home.git("diff", "--name-only", "early^", "early")


def test_what_a_restore_cannot_go_back_to(site: Site) -> None:
    assert "has no commit 'abcabc'" in site.refuses("restore", "-e", "group=early", "-e", "to=abcabc")
    empty = site.home.git("commit-tree", "4b825dc642cb6eb9a060e54bf8d69288fbee4904", "-m", "Nothing")
    message = site.refuses("restore", "-e", "group=early", "-e", f"to={empty}")
    assert f"early: there is no lock flake.lock at commit {empty[:12]}" in message
    assert "stable: it has no known-good commit yet" in site.refuses("restore", "-e", "group=stable")


def test_inputs_that_are_not_from_the_same_place(site: Site) -> None:
    site.commit_on("early", "flake.nix", "nixos-unstable", "nixos-25.05")
    message = site.refuses("promote", *CANARY_TO_EARLY, "-e", json.dumps({"flotilla_promote_inputs": ["nixpkgs"]}))
    assert message.startswith("early: ")
    assert "nixpkgs" in message
