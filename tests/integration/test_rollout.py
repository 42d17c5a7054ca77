# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on real hosts: lock, build, copy, activate, confirm, land; and what happens when a release is bad.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration.repositories import but_for_the_ledger
from testbed import Fleet, example, upstream
from testbed.playbooks import Ansible, Played

SBCS = ("pi-1", "pi-2", "pi-3")
HOSTS = ("web1", *SBCS)
UPDATE = ("-l", "sbcs", "-e", "flotilla_update=true")


@dataclass
class Site:
    """The example's repository, its hosts, and the Ansible that runs them."""

    fleet: Fleet
    ansible: Ansible
    example: example.Example

    def play(self, book: str, *arguments: str, check: bool = True) -> Played:
        """Run one of the repository's playbooks."""
        path = self.example.path
        # Waiting for units that die late is what test_activation.py shows.
        words = ("--forks", "4", "-e", "flotilla_settle=0", *arguments)
        return self.ansible.playbook(path / book, *words, inventory=path / "inventory/hosts.yml", cwd=path, check=check)

    def release(self, name: str) -> None:
        """Upstream releases something."""
        self.example.upstream.release(name)

    def running(self, *hosts: str) -> list[str]:
        """What hosts run, by the release in the system's name."""
        systems = [self.fleet.host(host).run("readlink -f /run/current-system").stdout.strip() for host in hosts]
        return [system.rpartition("-")[2] for system in systems]

    def files(self) -> dict[str, str]:
        """Every file of the work tree with its digest."""
        tree = [file for file in sorted(self.example.path.rglob("*")) if file.is_file() and ".git" not in file.parts]
        return {str(f.relative_to(self.example.path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in tree}

    def git_files(self) -> dict[str, str]:
        """Every file of the repository itself with its digest; but for objects, and the roots of what was built."""
        git = self.example.path / ".git"
        kept = ("objects", "flotilla/roots")
        names = [str(file.relative_to(git)) for file in sorted(git.rglob("*")) if file.is_file() or file.is_symlink()]
        mine = [name for name in names if not name.startswith(tuple(f"{folder}/" for folder in kept))]
        return {name: hashlib.sha256((git / name).read_bytes()).hexdigest() for name in mine}

    def refs(self) -> str:
        """Every ref of the repository, and what it points at, but for the ledger's."""
        return but_for_the_ledger(self.example.git("for-each-ref"))


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Hosts as new, and a repository for them that follows upstream's first release."""
    fleet.reset(*HOSTS)
    path = tmp_path_factory.mktemp("site")
    source = upstream.create(path / "nixpkgs.git")
    made = example.create(path / "fleet", source, env=fleet.env(), addresses=example.addresses_of(fleet))
    yield Site(fleet, ansible, made)
    for host in HOSTS:
        fleet.fault(host, "link-up")


def outcomes(played: Played) -> dict[str, str]:
    """What the report says of each host."""
    (report,) = played.of("rollout_report")
    return {host: value["outcome"] for host, value in report.result["hosts"].items()}


def test_a_first_rollout(site: Site) -> None:
    played = site.play("rollout.yml", "-l", "web1,sbcs")
    assert outcomes(played) == dict.fromkeys(HOSTS, "updated")
    assert site.running(*HOSTS) == ["25.05.1"] * 4
    assert next(t.host for t in played.of("system_activate")) in ("web1", "pi-1")
    assert "python" not in site.fleet.host("pi-1").run("ls /usr/bin").stdout


def test_again_nothing_changes_and_it_says_so(site: Site) -> None:
    before = site.files(), site.example.git("for-each-ref")
    played = site.play("rollout.yml", "-l", "web1,sbcs")
    assert outcomes(played) == dict.fromkeys(HOSTS, "unchanged")
    assert "Nothing to do: every host runs what it should." in played.text
    assert [task.task for task in played.tasks if task.result.get("changed")] == []
    assert (site.files(), site.example.git("for-each-ref")) == before


def test_check_and_diff_change_nothing_anywhere(site: Site) -> None:
    site.release("25.05.2")
    before = site.files(), site.git_files(), site.refs(), site.running(*SBCS), _store(site)
    played = site.play("rollout.yml", *UPDATE, "--check", "--diff")
    assert outcomes(played) == dict.fromkeys(SBCS, "planned")
    assert "pi-1, pi-2, pi-3:" in played.text
    assert "units that change: " in played.text
    assert (site.files(), site.git_files(), site.refs(), site.running(*SBCS), _store(site)) == before


def _store(site: Site) -> list[str]:
    return [site.fleet.host(host).run("ls /nix/store | wc -l; ls -l /nix/var/nix/profiles").stdout for host in SBCS]


def test_an_update_moves_one_group_and_one_file(site: Site) -> None:
    before, head = site.files(), site.example.head()
    played = site.play("rollout.yml", *UPDATE)
    assert outcomes(played) == dict.fromkeys(SBCS, "updated")
    assert site.running(*HOSTS) == ["25.05.1", *["25.05.2"] * 3]
    after = site.files()
    assert [name for name in after if after[name] != before.get(name)] == ["hosts/sbcs/flake.lock"]
    assert after.keys() == before.keys()
    assert site.example.git("log", "--format=%s", f"{head}..HEAD") == "sbcs: nixpkgs 2026-10-05 → 2026-10-19"
    assert site.example.git("diff", "--name-only", head, "HEAD") == "hosts/sbcs/flake.lock"
    assert site.example.git("status", "--porcelain") == ""
    assert "refs/flotilla/candidate" not in site.refs()


@pytest.mark.parametrize("release", ["bad-unit", "bad-sshd", "bad-build", "bad-eval"])
def test_a_bad_release_ends_at_the_canary_or_before(site: Site, release: str) -> None:
    before = site.files(), site.refs()
    site.release(release)
    played = site.play("rollout.yml", *UPDATE, "-e", "flotilla_confirm_timeout=20", check=False)
    assert not played.ok
    reached = release in ("bad-unit", "bad-sshd")
    first = "rolled_back" if reached else "failed"
    assert outcomes(played) == {"pi-1": first, "pi-2": "held" if reached else first, "pi-3": "held" if reached else first}
    assert site.running(*HOSTS) == ["25.05.1", *["25.05.2"] * 3]
    assert (site.files(), site.refs()) == before
    assert "candidate dropped; main never had it" in played.text


def test_a_group_that_halts_late_goes_back_as_a_whole_on_demand(site: Site, tmp_path: Path) -> None:
    before = site.files(), site.refs()
    site.release("25.05.3")
    check = tmp_path / "check.yml"
    check.write_text("- ansible.builtin.fail: {msg: the greenhouse is too hot}\n  when: inventory_hostname == 'pi-2'\n")
    extra = {"flotilla_health_tasks": [str(check)], "flotilla_rollback_confirmed": True, "flotilla_serial": [1]}
    played = site.play("rollout.yml", *UPDATE, "-e", json.dumps(extra), check=False)
    assert not played.ok
    assert outcomes(played) == {"pi-1": "rolled_back", "pi-2": "rolled_back", "pi-3": "held"}
    assert "pi-2 rolled back: the greenhouse is too hot" in played.text
    assert site.running(*SBCS) == ["25.05.2"] * 3
    assert (site.files(), site.refs()) == before


def test_a_host_that_is_away_is_deferred_and_comes_later(site: Site) -> None:
    site.release("25.05.3")
    site.fleet.fault("pi-1", "link-down")
    played = site.play("rollout.yml", *UPDATE, "--timeout", "3")
    assert outcomes(played) == {"pi-1": "deferred", "pi-2": "updated", "pi-3": "updated"}
    assert [task.status for task in played.of("system_info", "pi-1")] == ["skipped"], "ssh was not to wait for it again"
    assert "sbcs: landed " in played.text
    site.fleet.fault("pi-1", "link-up")
    assert outcomes(site.play("rollout.yml", "-l", "sbcs")) == {"pi-1": "updated", "pi-2": "unchanged", "pi-3": "unchanged"}
    assert site.running(*SBCS) == ["25.05.3"] * 3


def test_status_and_rollback(site: Site, tmp_path: Path) -> None:
    site.play("rollback.yml", "-l", "pi-2")
    assert site.running("pi-2") == ["25.05.2"]
    file = tmp_path / "status.json"
    played = site.play("status.yml", "-l", "web1,sbcs", "-e", f"flotilla_status_file={file}")
    found = json.loads(file.read_text())
    assert {host: status["standing"] for host, status in found["hosts"].items()} == {
        **{"web1": "current", "pi-1": "current", "pi-2": "behind", "pi-3": "current"},
    }
    assert "pi-2: should run " in played.text


def test_an_update_without_a_rollout_is_a_candidate(site: Site) -> None:
    site.release("25.05.5")
    head = site.example.head()
    site.play("update.yml", "-l", "sbcs")
    assert site.example.head() == head
    assert "refs/flotilla/candidate/sbcs" in site.refs()
    site.play("update.yml", "-l", "sbcs", "-e", "flotilla_land=true")
    assert site.example.git("log", "--format=%s", f"{head}..HEAD").startswith("sbcs: nixpkgs")
    assert site.running(*SBCS) == ["25.05.3", "25.05.2", "25.05.3"]


def test_a_new_kernel_is_rebooted_into_when_that_is_wanted(site: Site) -> None:
    """Also by a user who becomes root, on hosts that root has changed before."""
    deploy = ("-e", "ansible_user=deploy", "-e", "ansible_become=true", "-l", "sbcs")
    assert outcomes(site.play("rollout.yml", *deploy, "-e", "flotilla_reboot=never")) == dict.fromkeys(SBCS, "updated")
    assert site.running(*SBCS) == ["25.05.5"] * 3
    boots = [site.fleet.host(host).run("cat /proc/sys/kernel/random/boot_id").stdout for host in SBCS]
    assert outcomes(site.play("rollout.yml", *deploy)) == dict.fromkeys(SBCS, "rebooted")
    assert site.running(*SBCS) == ["25.05.5"] * 3
    again = [site.fleet.host(host).run("cat /proc/sys/kernel/random/boot_id").stdout for host in SBCS]
    assert not set(boots) & set(again)
    assert outcomes(site.play("rollout.yml", *deploy)) == dict.fromkeys(SBCS, "unchanged")
