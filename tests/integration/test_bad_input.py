# SPDX-License-Identifier: GPL-3.0-or-later
"""What bad input gets: one sentence with its fix, an exit status that is not 0, and nothing changed anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from integration.repositories import but_for_the_ledger
from testbed import Fleet, Host, example, upstream
from testbed.commands import run
from testbed.playbooks import PROJECT, Ansible, Played

UPDATE = ("-e", "flotilla_update=true")

#: What a host is: what it runs, would boot and lists as generations, and whether anything of ours is left on it.
LOOK = """
readlink -f /run/current-system /nix/var/nix/profiles/system
cat /boot/loader/loader.conf /boot/loader/entries/*; ls /nix/var/nix/profiles
ls -A /run/flotilla /nix/var/nix/gcroots/auto/flotilla 2>/dev/null
systemctl list-units --all --plain --no-legend 'flotilla*'
"""
#: What is kept there.
STORE = "ls /nix/store /nix/var/nix/gcroots/flotilla"


@dataclass(frozen=True)
class Site:
    """A copy of the repository for one test, the host, and the Ansible that runs it."""

    example: example.Example
    host: Host
    ansible: Ansible
    scratch: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The work tree."""
        return self.example.path

    def play(self, *arguments: str) -> Played:
        """Run the repository's rollout.yml, for pi-1 if nothing else is said."""
        inventory = self.path / "inventory/hosts.yml"
        words = arguments if "-l" in arguments else ("-l", "pi-1", *arguments)
        return self.ansible.playbook(
            self.path / "rollout.yml", *words, inventory=inventory, cwd=self.path, env=self.env, check=False
        )

    def edit(self, name: str, old: str, new: str) -> None:
        """Commit a change of a file."""
        self.example.replace(name, old, new)
        self.example.commit(f"Change {name}")

    def state(self) -> dict[str, object]:
        """Every file, every ref, and the host."""
        files = [file for file in sorted(self.path.rglob("*")) if file.is_file() and ".git" not in file.parts]
        git = ("git", "-c", f"safe.directory={self.path}", "-C", str(self.path))
        asked = (("rev-parse", "HEAD"), ("status", "--porcelain"), ("worktree", "list"))
        return {
            **{str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
            **{" ".join(words): run([*git, *words]).stdout for words in asked},
            "refs": but_for_the_ledger(run([*git, "for-each-ref"]).stdout),
            "host": self.host.run(LOOK).stdout,
            "store": self.host.run(STORE, check=False).stdout,
        }


@pytest.fixture(scope="module")
def template(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> example.Example:
    """The repository, locked to the first release, which a fresh host nearly runs."""
    fleet.reset("pi-1")
    path = tmp_path_factory.mktemp("bad")
    source = upstream.create(path / "nixpkgs.git")
    return example.create(path / "fleet", source, env=fleet.env(), addresses=example.addresses_of(fleet))


@pytest.fixture
def site(template: example.Example, fleet: Fleet, ansible: Ansible, tmp_path: Path) -> Site:
    shutil.copytree(template.path, tmp_path / "fleet", symlinks=True)
    return Site(replace(template, path=tmp_path / "fleet"), fleet.host("pi-1"), ansible, tmp_path)


def refused(site: Site, says: str, fix: str, *arguments: str, apart_from: str = "") -> None:
    """Play, and see that it says this with its fix, fails, and changes nothing; apart_from: a key of the state."""
    before = site.state()
    played = site.play(*arguments)
    text = " ".join(played.text.split())
    assert not played.ok
    assert says in text, played.text
    assert fix in text.partition(says)[2], played.text
    assert "Traceback" not in text
    # What fails on a host is rescued, and the host named again at the end.
    rescued = any(task.host == "pi-1" and task.status == "failed" for task in played.tasks if task.task != "Say why")
    again = played.of("rollout_report") or any(task.task.endswith("Fail as that task did") for task in played.tasks)
    assert text.count("[ERROR]: ") == (2 if rescued and again else 1), played.text
    after = site.state()
    assert [key for key in {**before, **after} if after.get(key) != before.get(key) and key != apart_from] == []


# -- the inventory ------------------------------------------------------------------------------------------------------


def variables(**values: object) -> tuple[str, str]:
    return "-e", json.dumps(values)


INVENTORY: dict[str, tuple[tuple[str, ...], str, str]] = {
    "no such group in the limit": (("-l", "nosuch"), "nosuch", "no hosts to target"),
    "an update group that the inventory has not": (
        variables(flotilla_update_group="nosuch"),
        "pi-1: flotilla_update_group says 'nosuch', and the inventory has the host in 'sbcs'.",
        "Move the host, or remove the variable.",
    ),
    "an update group that the repository has not": (
        variables(flotilla_update_group="nosuch", flotilla_update_groups=[]),
        "nosuch: there is no hosts/nosuch/flake.nix at commit",
        "Name its directory in flotilla_flake. It has flakes in: hosts/desktops, hosts/sbcs, hosts/servers",
    ),
    "two update groups": (
        variables(flotilla_update_groups=["sbcs", "boards"]),
        "pi-1: the host is in 2 update groups: boards, sbcs.",
        "A host has one lock, so leave it in one of them.",
    ),
    "no update group": (
        variables(flotilla_update_group="", flotilla_update_groups=["servers"]),
        "pi-1: the host is in no update group (flotilla_update_groups: servers).",
        "Set flotilla_update_group for its inventory group, or leave the host out with -l.",
    ),
    "a host that the flake has not": (
        variables(flotilla_attribute="pi-9"),
        "sbcs: there is no 'pi-9' in nixosConfigurations of hosts/sbcs at commit",
        "It has: pi-1, pi-2, pi-3. Name the host's attribute in flotilla_attribute.",
    ),
}


def test_each_ansible_says_it(site: Site) -> None:
    newest = Ansible(site.ansible.fleet, PROJECT / ".venv-newest")
    refused(replace(site, ansible=newest), *INVENTORY["a host that the flake has not"][1:], "-e", "flotilla_attribute=pi-9")


@pytest.mark.parametrize(("arguments", "says", "fix"), INVENTORY.values(), ids=INVENTORY)
def test_inventory(site: Site, arguments: tuple[str, ...], says: str, fix: str) -> None:
    site.edit("inventory/hosts.yml", "    desktops:", "    boards:\n      hosts:\n        pi-1:\n    desktops:")
    refused(site, says, fix, *arguments)


NAMES = {
    "group, space": ("flotilla_update_group", "my sbcs"),
    "group, leading dash": ("flotilla_update_group", "-rf"),
    "group, dots": ("flotilla_update_group", "../../etc"),
    "attribute, quote": ("flotilla_attribute", 'pi"1'),
    "attribute, semicolon": ("flotilla_attribute", "pi;reboot"),
    "attribute, leading dash": ("flotilla_attribute", "--impure"),
}


@pytest.mark.parametrize(("variable", "name"), NAMES.values(), ids=NAMES)
def test_names(site: Site, variable: str, name: str) -> None:
    kind = {"flotilla_update_group": "update group", "flotilla_attribute": "flake attribute"}[variable]
    values = {variable: name, "flotilla_update_groups": []}
    refused(
        site,
        f"{kind} {name!r}: this name cannot be used in a path, a git ref and a flake attribute.",
        "Use letters, digits, `_`, `.`, `+` and `-`, not beginning with a dash or dot, without `..`.",
        *variables(**values),
    )


@pytest.mark.parametrize("name", ["pi 1", "-pi", "pi;reboot"])
def test_host_names(site: Site, name: str) -> None:
    (site.path / "inventory/hosts.yml").write_text(
        json.dumps({"all": {"children": {"sbcs": {"hosts": {name: {"ansible_host": site.host.address}}}}}})
    )
    refused(site, f"host {name!r}: this name cannot be used", "Use letters, digits,", "-l", "sbcs")


# -- the repository -----------------------------------------------------------------------------------------------------


def unlocked(site: Site) -> None:
    (site.path / "hosts/sbcs/flake.lock").unlink()
    site.example.commit("Forget the lock")


def incomplete(site: Site) -> None:
    url = site.example.upstream.url()
    site.edit("hosts/sbcs/flake.nix", "inputs.nixpkgs.url", f'inputs.more.url = "{url}";\n  inputs.nixpkgs.url')
    site.edit("hosts/sbcs/flake.nix", "{ self, nixpkgs }", "{ self, nixpkgs, more }")


def conflict(site: Site) -> None:
    site.edit("hosts/sbcs/flake.lock", '"nixpkgs": {', '<<<<<<< ours\n"nixpkgs": {\n=======\n"nixpkgs": {\n>>>>>>> theirs\n')


def merging(site: Site) -> None:
    """A merge that stopped at the lock."""
    git = site.example.git
    git("checkout", "-q", "-b", "other")
    site.edit("hosts/sbcs/flake.lock", '"version": 7', '"version":  7')
    git("checkout", "-q", "main")
    site.edit("hosts/sbcs/flake.lock", '"version": 7', '"version":   7')
    assert site.example.run("git", "merge", "other", check=False).returncode == 1


def untracked(site: Site) -> None:
    site.example.git("rm", "-q", "--cached", "hosts/sbcs/flake.nix")
    site.example.git("commit", "-q", "-m", "Forget the flake")


def another_owner(site: Site) -> None:
    run(["chown", "-R", "12345:12345", site.path])
    (site.scratch / "home").mkdir()
    site.env["HOME"] = str(site.scratch / "home")


def old_nix(site: Site) -> None:
    wrapper(site, 'echo "nix (Nix) 2.8.0"')


def no_flakes(site: Site) -> None:
    """A nix that leaves --extra-experimental-features out of account."""
    nix = shutil.which("nix", path=site.example.env["PATH"])
    script = 'for word; do shift; case $word in "nix-command flakes") word=;; esac; set -- "$@" "$word"; done'
    wrapper(site, f'{script}\nNIX_CONFIG="experimental-features =" exec {nix} "$@"')


def wrapper(site: Site, script: str) -> None:
    program = site.scratch / "bin/nix"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    path = site.ansible.environment(site.scratch)["PATH"]
    site.env["PATH"] = f"{program.parent}:{path}"


REPOSITORY: dict[str, tuple[Callable[[Site], None], tuple[str, ...], str, str]] = {
    "no lock": (
        unlocked,
        (),
        "sbcs: there is no hosts/sbcs/flake.lock.",
        "Lock it (flotilla_update=true, or `nix flake lock`) and commit the lock.",
    ),
    "a lock that lacks an input": (
        incomplete,
        (),
        "sbcs: hosts/sbcs/flake.lock is not complete for its flake.nix: inputs were added or changed since it was written.",
        "Lock it (flotilla_update=true, or `nix flake lock`) and commit the lock.",
    ),
    "a committed merge conflict": (
        conflict,
        (),
        "sbcs: the lock hosts/sbcs/flake.lock has a merge conflict in it.",
        "Take one side (git checkout --ours or --theirs), update the inputs again, and commit.",
    ),
    "a merge that is not finished": (
        merging,
        UPDATE,
        "the lock hosts/sbcs/flake.lock has a merge conflict in it.",
        "Resolve and commit it first.",
    ),
    "an untracked flake.nix": (
        untracked,
        (),
        "sbcs: hosts/sbcs/flake.nix is not tracked by git, so nix does not see it.",
        "Run: git add hosts/sbcs/flake.nix && git commit",
    ),
    "another owner": (another_owner, (), "belongs to another user", "git config --global --add safe.directory"),
    "another owner, update": (another_owner, UPDATE, "belongs to another user", "git config --global --add safe.directory"),
    "a nix too old": (
        old_nix,
        (),
        "localhost: its nix is too old: it says 'nix (Nix) 2.8.0', and 2.26 is the oldest that works.",
        "Install nix 2.26 or newer, or name another builder in flotilla_builder.",
    ),
    "flakes disabled": (no_flakes, (), "nix has flakes switched off", "experimental-features = nix-command flakes"),
}


@pytest.mark.parametrize(("prepare", "arguments", "says", "fix"), REPOSITORY.values(), ids=REPOSITORY)
def test_repository(site: Site, prepare: Callable[[Site], None], arguments: tuple[str, ...], says: str, fix: str) -> None:
    prepare(site)
    refused(site, says, fix, *arguments)


# -- the host -----------------------------------------------------------------------------------------------------------


MACHINE = os.uname().machine
OTHER = "x86_64" if MACHINE == "aarch64" else "aarch64"


def another_architecture(site: Site) -> None:
    """The stand-in's systems build anywhere, so that only the host tells."""
    site.edit("hosts/sbcs/flake.nix", f"{MACHINE}-linux", f"{OTHER}-linux")


def another_key(site: Site) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", site.scratch / "other"])
    known = site.scratch / "known_hosts"
    known.write_text(f"{site.host.address} {(site.scratch / 'other.pub').read_text()}")
    site.env["ANSIBLE_SSH_COMMON_ARGS"] = f"-o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null"


def another_user(site: Site) -> None:
    site.edit("inventory/group_vars/all.yml", "ansible_user: root", "ansible_user: nobody")


HOST: dict[str, tuple[Callable[[Site], None], str, str]] = {
    "another architecture": (
        another_architecture,
        f"pi-1 failed: its system is for {OTHER}-linux, and the host is {MACHINE}-linux.",
        "Correct the host's platform in its flake.",
    ),
    "another host key": (
        another_key,
        "pi-1 failed: the connection failed: its host key is not the one in known_hosts.",
        "check the new key's fingerprint there and forget the old one with `ssh-keygen -R",
    ),
    "nobody let in": (
        another_user,
        "pi-1 failed: the connection failed: it let nobody in as nobody",
        "Check ansible_user, its authorized_keys and login shell there, and the key",
    ),
}


@pytest.mark.parametrize(("prepare", "says", "fix"), HOST.values(), ids=HOST)
def test_host(site: Site, prepare: Callable[[Site], None], says: str, fix: str) -> None:
    prepare(site)
    refused(site, says, fix)


def test_a_changed_host_key_is_told_before_anything_is_built(site: Site) -> None:
    another_key(site)
    refused(site, "pi-1: its host key is not the one in known_hosts (it gives SHA256:", "Build the systems of all hosts]")


@pytest.fixture
def full(fleet: Fleet) -> Iterator[Callable[[str], None]]:
    """Fills one of the host's file systems, for this test."""
    paths: list[str] = []

    def fill(path: str) -> None:
        paths.append(path)
        fleet.fault("pi-1", "fill-disk", path, "256")

    yield fill
    for path in paths:
        fleet.fault("pi-1", "free-disk", path)


@pytest.mark.parametrize(
    ("disk", "says", "fix"),
    [
        ("/nix", "are needed for this system: ", "nothing was sent. Make room there, for instance with `nix-collect-garbage"),
        ("/boot", "bytes free, and the new kernel and initrd need ", "Remove old generations there"),
    ],
)
def test_a_full_disk(site: Site, full: Callable[[str], None], disk: str, says: str, fix: str) -> None:
    site.example.upstream.release("25.05.4")
    full(disk)
    # Whether a kernel fits is known when it is there.
    refused(site, says, fix, *UPDATE, apart_from="store" if disk == "/boot" else "")
