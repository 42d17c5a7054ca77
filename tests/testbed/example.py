# SPDX-License-Identifier: GPL-3.0-or-later
"""The example fleet as its user has it: a git repository with flakes, locks, inventory and playbooks, for hosts of a testbed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import upstream
from .errors import TestbedError
from .fleet import Fleet

HERE = Path(__file__).resolve().parent
MONOREPO = HERE / "monorepo"
INVENTORY = HERE.parent.parent / "inventory"

#: The update groups and their hosts, by the names that the inventory gives them.
GROUPS: dict[str, tuple[str, ...]] = {"servers": ("web1", "web2"), "sbcs": ("pi-1", "pi-2", "pi-3"), "desktops": ("desk1",)}
HOSTS: tuple[str, ...] = tuple(host for hosts in GROUPS.values() for host in hosts)
#: Hosts whose attribute in nixosConfigurations is not their name.
ATTRIBUTES: dict[str, str] = {"web2": "shop"}

_PLACEHOLDERS = {
    "web1": "192.0.2.11",
    "web2": "192.0.2.12",
    "pi-1": "192.0.2.21",
    "pi-2": "192.0.2.22",
    "pi-3": "192.0.2.23",
    "desk1": "192.0.2.31",
}
_NIXPKGS = "github:NixOS/nixpkgs/nixos-unstable"
IDENTITY = {"user.name": "Fleet operator", "user.email": "operator@fleet.example", "commit.gpgsign": "false"}


@dataclass(frozen=True, slots=True)
class Example:
    """The repository at `path`, whose flakes follow `upstream`; `env` is a controller's environment (nix on PATH)."""

    path: Path
    upstream: upstream.Upstream
    env: Mapping[str, str]

    def run(self, *argv: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """A command in the repository; TestbedError with its messages if it fails and check is set."""
        program = shutil.which(argv[0], path=self.env.get("PATH")) or argv[0]
        env = {key: value for key, value in self.env.items() if not key.startswith("GIT_")}
        done = subprocess.run(
            [program, *argv[1:]], cwd=self.path, env=env, check=False, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            raise TestbedError("example fleet", f"{' '.join(argv)} failed in {self.path}", (done.stderr or done.stdout).strip())
        return done

    def git(self, *args: str) -> str:
        """What git prints."""
        return self.run("git", *args).stdout.strip()

    def head(self) -> str:
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def commit(self, message: str) -> str:
        """Commits everything that changed in the work tree; the new (or unchanged) head."""
        self.git("add", "--all")
        if self.git("status", "--porcelain"):
            self.git("commit", "--quiet", "--message", message)
        return self.head()

    def write(self, name: str, text: str) -> Path:
        """Writes a file of the work tree, and tells git of it, as nix sees no other."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.git("add", "--intent-to-add", name)
        return file

    def replace(self, name: str, old: str, new: str) -> None:
        """Replaces text that must be in a file of the work tree."""
        file = self.path / name
        text = file.read_text()
        if old not in text:
            raise TestbedError("example fleet", f"{name} does not hold {old!r}")
        file.write_text(text.replace(old, new))

    def lock(self, group: str) -> None:
        """Locks a group's flake to what its branch of upstream is now."""
        self.run("nix", "flake", "update", "--flake", f"path:{self.path}/hosts/{group}")

    def locked(self, group: str) -> str:
        """The revision of nixpkgs that a group's lock holds in the work tree."""
        lock = json.loads((self.path / f"hosts/{group}/flake.lock").read_text())
        return str(lock["nodes"]["nixpkgs"]["locked"]["rev"])


def create(
    path: Path,
    source: upstream.Upstream,
    *,
    env: Mapping[str, str],
    addresses: Mapping[str, str] | None = None,
    revision: bool = False,
    fresh: bool = False,
) -> Example:
    """Makes the repository, locked to what upstream's branch is now and committed.

    addresses: of the hosts by name; the others keep their documentation addresses. revision: systems say which commit they are
    of, so that every commit changes every system. fresh: replace what is there; otherwise a repository that is there is an error.
    """
    if path.exists() and fresh:
        shutil.rmtree(path)
    if path.exists():
        raise TestbedError("example fleet", f"{path} is there already", "Remove it, or say --fresh.")
    example = Example(path.resolve(), source, env)
    _write_tree(example.path)
    _fill(example, {} if addresses is None else addresses)
    if revision:
        example.replace(
            "modules/base.nix", "imports = [ ./fleet.nix ];", "imports = [\n    ./fleet.nix\n    ./revision.nix\n  ];"
        )
    example.git("init", "--quiet", "--initial-branch", "main")
    for key, value in IDENTITY.items():
        example.git("config", key, value)
    for group in GROUPS:
        example.lock(group)
    example.commit("Start the fleet")
    return example


def addresses_of(fleet: Fleet) -> dict[str, str]:
    """The addresses of the fleet's hosts by name."""
    return {name: host.address for name, host in fleet.hosts.items()}


def _write_tree(path: Path) -> None:
    shutil.copytree(MONOREPO, path)
    shutil.copytree(INVENTORY, path / "inventory")


def _fill(example: Example, addresses: Mapping[str, str]) -> None:
    for name in ("inventory/hosts.yml", "modules/addresses.json"):
        for host in sorted(set(addresses) & set(_PLACEHOLDERS)):
            example.replace(name, _PLACEHOLDERS[host], addresses[host])
    for group in GROUPS:
        flake = f"hosts/{group}/flake.nix"
        example.replace(flake, _NIXPKGS, example.upstream.url())
        example.replace(flake, "x86_64-linux", f"{platform.machine()}-linux")


def main(argv: list[str]) -> int:
    """The command line: makes the repository for the hosts of a testbed's fleet."""
    parser = argparse.ArgumentParser(prog="example", description=__doc__)
    parser.add_argument("path", type=Path, help="where to make the fleet's repository")
    parser.add_argument(
        "--upstream", type=Path, help="the stand-in nixpkgs' repository, made if need be (default: PATH-nixpkgs.git)"
    )
    parser.add_argument("--fleet", default=os.environ.get("FLOTILLA_TESTBED"), help="take the hosts' addresses and nix from it")
    parser.add_argument("--address", action="append", default=[], metavar="HOST=ADDRESS")
    parser.add_argument("--revision", action="store_true", help="have systems say which commit they were built from")
    parser.add_argument("--fresh", action="store_true", help="replace what is there")
    options = parser.parse_args(argv)
    fleet = Fleet(options.fleet) if options.fleet else None
    addresses = (addresses_of(fleet) if fleet else {}) | dict(pair.split("=", 1) for pair in options.address)
    try:
        source = upstream.create(options.upstream or options.path.with_name(f"{options.path.name}-nixpkgs.git"))
        example = create(
            options.path,
            source,
            env=fleet.env() if fleet else dict(os.environ),
            addresses=addresses,
            revision=options.revision,
            fresh=options.fresh,
        )
    except TestbedError as error:
        print(f"example: {error}", file=sys.stderr)
        return 1
    print(f"{example.path}: the fleet's repository, following {source.url()}")
    return 0
