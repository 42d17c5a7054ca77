# SPDX-License-Identifier: GPL-3.0-or-later
"""The repositories of examples/, one for each way of keeping locks, made for hosts of a testbed: locked, committed, reachable."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import upstream
from .errors import TestbedError
from .example import IDENTITY, Example, addresses_of
from .fleet import Fleet
from .places import HERE

EXAMPLES = HERE.parent.parent / "examples"

_CHANNELS = {f"github:NixOS/nixpkgs/{branch}": branch for branch in upstream.BRANCHES}
_HARDWARE = "github:NixOS/nixos-hardware"
_HARDWARE_FLAKE = """{
  outputs = { self }: {
    nixosModules.common-pc-ssd.services.openssh.enable = true;
  };
}
"""
#: How the examples name the repositories of a git server, in flakes and in the inventory.
_FORGE_IN_NIX = "git+ssh://git@git.example.org/fleet/"
_FORGE = "git@git.example.org:fleet/"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a group's lock lives and what may move in it: what its example's README says, in words that tests compare with.

    repo: the group's own repository by name, "" for the one that has the inventory. inputs: None for all.
    """

    hosts: tuple[str, ...]
    locks: tuple[str, ...] = ("flake.lock",)
    flake: str = "."
    branch: str = "main"
    inputs: tuple[str, ...] | None = None
    repo: str = ""


def _own_flake(group: str, *hosts: str) -> Place:
    return Place(hosts, (f"hosts/{group}/flake.lock",), f"hosts/{group}")


def _own_locks(*hosts: str) -> Place:
    return Place(hosts, tuple(f"locks/{host}.lock" for host in hosts))


#: The update groups of each example.
LAYOUTS: Mapping[str, Mapping[str, Place]] = {
    "group_flakes": {
        "canary": _own_flake("canary", "canary1"),
        "early": _own_flake("early", "early1"),
        "stable": _own_flake("stable", "stable1", "stable2"),
    },
    "group_repos": {"canary": Place(("canary1",), repo="canary"), "stable": Place(("stable1", "stable2"), repo="stable")},
    "group_inputs": {
        "canary": Place(("canary1",), inputs=("nixpkgs-canary",)),
        "stable": Place(("stable1", "stable2"), inputs=("nixpkgs-stable",)),
    },
    "channel_inputs": {
        "canary": Place(("canary1",), inputs=("nixpkgs-next",)),
        "servers": Place(("server1", "server2"), inputs=("nixpkgs",)),
        "kiosks": Place(("kiosk1",), inputs=("nixpkgs",)),
        "desktops": Place(("desk1",), inputs=("nixpkgs-unstable",)),
    },
    "stage_flakes": {"dev": _own_flake("dev", "dev1"), "prod": _own_flake("prod", "prod1", "prod2")},
    "group_branches": {
        "canary": Place(("canary1",), branch="canary"),
        "early": Place(("early1",), branch="early"),
        "stable": Place(("stable1", "stable2"), branch="stable"),
    },
    "host_locks": {"canary": _own_locks("canary1"), "stable": _own_locks("stable1", "stable2")},
    "mixture": {
        "servers": Place(("server1",), branch="servers"),
        "sbcs": _own_locks("pi1", "pi2"),
        "desktops": _own_flake("desktops", "desk1"),
    },
}


@dataclass(frozen=True, slots=True)
class Layout:
    """An example as its user has it. home: the repository with inventory and playbooks; remotes: bare ones, by name."""

    name: str
    home: Example
    remotes: Mapping[str, Example] = field(default_factory=dict)

    @property
    def groups(self) -> Mapping[str, Place]:
        """The update groups by name."""
        return LAYOUTS[self.name]

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host."""
        return tuple(host for place in self.groups.values() for host in place.hosts)

    def repository(self, group: str) -> Example:
        """The repository that a group's branch is in."""
        return self.remotes[self.groups[group].repo] if self.groups[group].repo else self.home

    def lock_text(self, group: str, lock: str | None = None, commit: str | None = None) -> str:
        """A lock of the group (the first one, if not named) at a commit, or at the head of its branch."""
        place = self.groups[group]
        return self.repository(group).git("show", f"{commit or place.branch}:{lock or place.locks[0]}") + "\n"

    def pins(self, group: str, host: str | None = None, commit: str | None = None) -> dict[str, str]:
        """What the group's inputs are locked to at a commit, or at its branch's head. host: whose lock, where each has one."""
        place = self.groups[group]
        lock = place.locks[place.hosts.index(host)] if host and len(place.locks) > 1 else None
        found = _revisions(json.loads(self.lock_text(group, lock, commit)))
        return {name: rev for name, rev in found.items() if place.inputs is None or name in place.inputs}

    def repositories(self) -> Iterator[tuple[str, Example]]:
        """Every repository with its name; "" for home."""
        yield "", self.home
        yield from self.remotes.items()


def create(
    path: Path,
    name: str,
    source: upstream.Upstream,
    *,
    env: Mapping[str, str],
    addresses: Mapping[str, str] | None = None,
    forge: str = "",
) -> Layout:
    """Makes the example's repositories below `path`, locked to what upstream's branches are now, and committed.

    addresses: of the hosts by name; the others keep their documentation addresses. forge: the beginning of the URLs by which
    the inventory names repositories of a git server; without it they are named by their files.
    """
    if name not in LAYOUTS:
        raise TestbedError(f"example {name}", "there is no such example", f"There are {', '.join(LAYOUTS)}.")
    if path.exists():
        raise TestbedError(f"example {name}", f"{path} is there already", "Remove it, or say --fresh.")
    maker = _Maker(path.resolve(), name, source, env, addresses or {}, forge)
    return maker.several() if any(place.repo for place in LAYOUTS[name].values()) else maker.one()


@dataclass(frozen=True, slots=True)
class _Maker:
    top: Path
    name: str
    source: upstream.Upstream
    env: Mapping[str, str]
    addresses: Mapping[str, str]
    forge: str

    def one(self) -> Layout:
        """An example whose groups share a repository."""
        places = LAYOUTS[self.name].values()
        home = self._repository(".", "fleet")
        if (home.path / "flake.nix").exists() and all(place.locks != ("flake.lock",) for place in places):
            home.run("nix", "flake", "lock", ".")
        for place in places:
            for lock in place.locks:
                (home.path / lock).parent.mkdir(parents=True, exist_ok=True)
                home.run("nix", "flake", "update", "--flake", f"./{place.flake}", "--output-lock-file", lock)
                home.git("add", "--intent-to-add", lock)
        home.commit("Start the fleet")
        for branch in sorted({place.branch for place in places} - {"main"}):
            home.git("branch", branch)
        return Layout(self.name, home)

    def several(self) -> Layout:
        """An example with repositories on a git server, and one with the inventory; those that others need come first."""
        own = [place.repo for place in LAYOUTS[self.name].values()]
        there = {path.name for path in (EXAMPLES / self.name).iterdir() if path.is_dir()}
        remotes = {}
        for each in (*sorted(there - {"control", *own}), *own):
            made = self._repository(each, f"work/{each}")
            made.run("nix", "flake", "lock", ".")
            made.commit("Start")
            remotes[each] = self._published(made, each)
        home = self._repository("control", "fleet")
        home.commit("Start the fleet")
        return Layout(self.name, home, remotes)

    def _repository(self, part: str, where: str) -> Example:
        """A new repository with the files of a part of the example, filled in and told to git."""
        made = Example(self.top / where, self.source, self.env)
        shutil.copytree(EXAMPLES / self.name / part, made.path)
        for file in sorted(made.path.rglob("*")):
            if file.suffix in (".nix", ".yml"):
                file.write_text(self._filled(file.read_text()))
        made.git("init", "--quiet", "--initial-branch", "main")
        for key, value in IDENTITY.items():
            made.git("config", key, value)
        made.git("add", "--all")
        return made

    def _published(self, made: Example, each: str) -> Example:
        path = self.top / f"remotes/{each}.git"
        made.git("clone", "--quiet", "--bare", str(made.path), str(path))
        made.git("remote", "add", "origin", str(path))
        return Example(path, self.source, self.env)

    def _filled(self, text: str) -> str:
        for url, branch in _CHANNELS.items():
            text = text.replace(f'"{url}"', f'"{self.source.url(branch)}"')
        if _HARDWARE in text:
            text = text.replace(_HARDWARE, f"git+file://{self._hardware()}?ref=main")
        text = text.replace('"x86_64-linux"', f'"{platform.machine()}-linux"')
        text = text.replace(_FORGE_IN_NIX, f"git+file://{self.top}/remotes/")
        text = text.replace(_FORGE, self.forge or f"file://{self.top}/remotes/")
        for host, address in self.addresses.items():
            text = re.sub(rf"(?m)^(\s+{re.escape(host)}:\n\s+ansible_host: )\S+$", rf"\g<1>{address}", text)
        return text

    def _hardware(self) -> Path:
        """A stand-in for github:NixOS/nixos-hardware, with the one module that an example uses."""
        made = Example(self.top / "nixos-hardware", self.source, self.env)
        if not made.path.exists():
            made.path.mkdir(parents=True)
            made.git("init", "--quiet", "--initial-branch", "main")
            for key, value in IDENTITY.items():
                made.git("config", key, value)
            made.write("flake.nix", _HARDWARE_FLAKE)
            made.commit("Start")
        return made.path


def _revisions(lock: Mapping[str, Any]) -> dict[str, str]:
    """The revisions of the inputs of a lock's root; of the inputs of this repository itself there are none."""
    nodes = lock["nodes"]
    named = {name: key for name, key in nodes[lock["root"]]["inputs"].items() if isinstance(key, str)}
    return {name: nodes[key]["locked"]["rev"] for name, key in named.items() if "rev" in nodes[key]["locked"]}


def main(argv: list[str]) -> int:
    """The command line: makes an example's repositories for the hosts of a testbed's fleet."""
    parser = argparse.ArgumentParser(prog="layouts", description=__doc__)
    parser.add_argument("name", choices=sorted(LAYOUTS), help="which example")
    parser.add_argument(
        "path", type=Path, help="where to make its repositories: PATH/fleet, and PATH/remotes where it has others"
    )
    parser.add_argument(
        "--upstream", type=Path, help="the stand-in nixpkgs' repository, made if need be (default: PATH-nixpkgs.git)"
    )
    parser.add_argument("--fleet", default=os.environ.get("FLOTILLA_TESTBED"), help="take the hosts' addresses and nix from it")
    parser.add_argument("--fresh", action="store_true", help="replace what is there")
    options = parser.parse_args(argv)
    fleet = Fleet(options.fleet) if options.fleet else None
    if options.fresh and options.path.exists():
        shutil.rmtree(options.path)
    try:
        source = upstream.create(options.upstream or options.path.with_name(f"{options.path.name}-nixpkgs.git"))
        env = fleet.env() if fleet else dict(os.environ)
        made = create(options.path, options.name, source, env=env, addresses=addresses_of(fleet) if fleet else {})
    except TestbedError as error:
        print(f"layouts: {error}", file=sys.stderr)
        return 1
    print(f"{made.home.path}: the example {made.name}, following {source.url()}; its hosts are {' '.join(made.hosts)}")
    return 0
