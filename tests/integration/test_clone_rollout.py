# SPDX-License-Identifier: GPL-3.0-or-later
"""Two groups with a private repository each, on a git server that is reached by ssh: cloned, rolled out, and pushed back.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from integration.strategies import outcomes
from testbed import Fleet, Host, layouts, upstream
from testbed.commands import run
from testbed.example import addresses_of
from testbed.layouts import Layout
from testbed.playbooks import Ansible, Played

HOSTS = ("canary1", "stable1", "stable2")
IDENTITY = {
    f"GIT_{who}_{what}": f"op{'@example.org' if what == 'EMAIL' else ''}"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


@dataclass(frozen=True)
class Site:
    """The git server, the hosts, and a controller that has nothing but the inventory."""

    layout: Layout
    source: upstream.Upstream
    forge: Host
    ansible: Ansible
    clones: Path
    env: dict[str, str]

    def play(self, book: str, *arguments: str, check: bool = True) -> Played:
        """Run a playbook on this controller."""
        path = self.layout.home.path
        variables = json.dumps({"flotilla_settle": 0, "flotilla_clones": str(self.clones)})
        words = ("--forks", "4", "-e", variables, *arguments)
        return self.ansible.playbook(
            f"{book}.yml", *words, inventory=path / "inventory/hosts.yml", cwd=path, env=self.env, check=check
        )

    def there(self, group: str, *words: str) -> str:
        """What git says in a group's repository on the server."""
        return self.forge.run(["git", "-C", f"fleet/{group}.git", *words], user="deploy").stdout.strip()

    def elsewhere(self, folder: Path) -> Site:
        """Another controller."""
        return replace(self, clones=folder)

    def running(self, host: str) -> str:
        """The release that a host runs."""
        system = self.ansible.fleet.host(host).run("readlink -f /run/current-system").stdout.strip()
        return system.rpartition("-")[2]


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Hosts as new, and the example's repositories on a server, where nobody gets in without the key."""
    fleet.reset(*HOSTS, "forge")
    folder, forge = tmp_path_factory.mktemp("site"), fleet.host("forge")
    source = upstream.create(folder / "nixpkgs.git")
    place = f"deploy@{forge.address}:fleet/"
    made = layouts.create(folder / "site", "group_repos", source, env=fleet.env(), addresses=addresses_of(fleet), forge=place)
    packed = folder / "remotes.tar"
    run(["tar", "-cf", packed, "-C", folder / "site/remotes", "canary.git", "stable.git"])
    env = {**IDENTITY, "GIT_SSH_COMMAND": f"ssh -F {fleet.folder}/ssh_config"}
    forge.run("mkdir fleet", user="deploy")
    run(["sh", "-c", f"ssh -F {fleet.folder}/ssh_config deploy@forge tar -xf - -C fleet --no-same-owner <{packed}"])
    return Site(made, source, forge, ansible, folder / "clones", env)


def test_cloned_and_rolled_out(site: Site) -> None:
    played = site.play("rollout", "-l", "canary:stable")
    assert set(outcomes(played).values()) == {"updated"}
    assert [site.running(host) for host in HOSTS] == ["25.05.1"] * 3
    (cloned,) = played.of("flake_clone")
    assert {name: result["created"] for name, result in cloned.result["groups"].items()} == {"canary": True, "stable": True}


def test_what_lands_is_pushed_with_its_record(site: Site, tmp_path: Path) -> None:
    site.source.release("25.05.2", upstream.BRANCHES)
    before = site.there("stable", "for-each-ref", "refs/heads")
    played = site.play("rollout", "-l", "canary", "-e", "flotilla_update=true", "-e", "flotilla_record=true")
    assert outcomes(played) == {"canary1": "updated"}
    assert site.running("canary1") == "25.05.2"
    (landed,) = [
        task.result["groups"]["canary"] for task in played.of("flake_lock") if task.task.endswith("Land what was proven")
    ]
    assert (landed["pushed"], landed["merged"]) == (True, False)
    subject, note = site.there("canary", "log", "-1", "--notes=flotilla", "--format=%s%n%N", "main").split("\n", 1)
    assert subject.startswith("canary: nixpkgs ")
    assert json.loads(note)["hosts"]["canary1"]["result"] == "updated"
    head = site.there("canary", "rev-parse", "main")
    assert site.there("canary", "rev-parse", "refs/flotilla/known-good/canary") == head
    assert "candidate" not in site.there("canary", "for-each-ref")
    assert site.there("stable", "for-each-ref", "refs/heads") == before
    # Another controller that has nothing yet comes to the same.
    again = site.elsewhere(tmp_path / "clones").play("rollout", "-l", "canary", "-e", "flotilla_record=true")
    assert outcomes(again) == {"canary1": "unchanged"}
    (clone,) = (tmp_path / "clones").glob("canary-*.git")
    assert run(["git", "-C", clone, "rev-parse", "main", "refs/flotilla/known-good/canary"]).stdout.split() == [head, head]


def test_a_push_that_is_refused_leaves_the_candidate_to_be_landed_later(site: Site) -> None:
    site.source.release("25.05.3", upstream.BRANCHES)
    before = site.there("canary", "for-each-ref", "refs/heads")
    site.forge.run(
        "cd fleet/canary.git/hooks; printf '#!/bin/sh\\necho Ask Anna first. >&2; exit 1\\n' >pre-receive; chmod +x pre-receive",
        user="deploy",
    )
    played = site.play("rollout", "-l", "canary", "-e", "flotilla_update=true", check=False)
    assert not played.ok
    text = " ".join(played.text.split())
    assert "origin refused the push to refs/heads/main: pre-receive hook declined (Ask Anna first.)" in text
    assert site.there("canary", "for-each-ref", "refs/heads") == before
    (clone,) = site.clones.glob("canary-*.git")
    kept = run(["git", "-C", clone, "rev-parse", "refs/flotilla/candidate/canary"]).stdout.strip()
    assert run(["git", "-C", clone, "rev-parse", "main"]).stdout.strip() in before
    site.forge.run("rm fleet/canary.git/hooks/pre-receive", user="deploy")
    played = site.play("rollout", "-l", "canary", "-e", "flotilla_update=true")
    assert outcomes(played) == {"canary1": "unchanged"}
    assert site.there("canary", "rev-parse", "main") == kept


def test_a_group_whose_repository_cannot_be_fetched_fails_alone(site: Site) -> None:
    site.forge.run("mv fleet/stable.git fleet/gone", user="deploy")
    played = site.play("rollout", "-l", "canary:stable", check=False)
    assert not played.ok
    assert outcomes(played) == {"canary1": "unchanged", "stable1": "failed", "stable2": "failed"}
    where = f"deploy@{site.forge.address}:fleet/stable.git"
    says = f"{where} cannot be fetched from: there is no such repository, or it is not shown to this user. Correct the URL"
    assert says in " ".join(played.text.split())
    offline = site.play("rollout", "-l", "stable", "-e", "flotilla_offline=true")
    assert outcomes(offline) == dict.fromkeys(("stable1", "stable2"), "unchanged")
    assert "was not fetched from" in " ".join(offline.text.split())
    site.forge.run("mv fleet/gone fleet/stable.git", user="deploy")
