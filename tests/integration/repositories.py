# SPDX-License-Identifier: GPL-3.0-or-later
"""Small git repositories with flakes whose hosts build in no time, or fail in ways that a test wants."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

#: lib.host makes what lib.nixosSystem makes, as far as the builder looks at it.
UPSTREAM = """{
  outputs = { self }: {
    lib.run = name: script: derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "/bin/sh";
      PATH = "/usr/bin:/bin";
      args = [ "-c" script ];
    };
    lib.host = { name, system ? "x86_64-linux", needs ? [ ], config ? { } }: {
      pkgs.stdenv.hostPlatform = { inherit system; };
      config = {
        networking = { hostName = name; fqdn = "${name}.example.org"; };
        system.nixos.version = "VERSION";
        system.build.toplevel = derivation {
          name = "nixos-system-${name}";
          inherit system needs;
          builder = "/bin/sh";
          PATH = "/usr/bin:/bin";
          args = [ "-c" "mkdir $out; echo VERSION $needs > $out/nixos-version" ];
        };
      } // config;
    };
  };
}
"""

FLAKE = """{
  inputs.nixpkgs.url = "git+file://%s?ref=main";
  outputs = { self, nixpkgs }: let lib = nixpkgs.lib; in {
    nixosConfigurations = {
%s
    };
  };
}
"""


def sh(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command that must succeed; what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        words, cwd=cwd, env={**clean, **(env or {})}, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def but_for_the_ledger(refs: str) -> str:
    """What `git for-each-ref` has listed, without what every rollout may leave: its line, and what is known-good by it."""
    ledger = ("refs/notes/flotilla", "refs/flotilla/known-good/")
    return "\n".join(line for line in refs.splitlines() if not line.split()[-1].startswith(ledger))


@dataclass(frozen=True, slots=True)
class Repo:
    """A git work tree that a test writes to."""

    path: Path

    def git(self, *words: str) -> str:
        """A git command in it, with an identity."""
        return sh("git", "-C", str(self.path), "-c", "user.name=test", "-c", "user.email=test@example.org", *words)

    def write(self, name: str, text: str) -> None:
        """Write a file, and its directories."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def commit(self, *names: str) -> str:
        """Commit these files, or all; the commit's id."""
        self.git("add", "--", *(names or (".",)))
        self.git("commit", "--quiet", "--allow-empty", "-m", "A change", "--", *names)
        return self.git("rev-parse", "HEAD")

    def state(self) -> str:
        """Everything that must not change: branches and tags, the index, the work tree."""
        return "\n".join(
            [self.git("for-each-ref"), self.git("status", "--porcelain", "--ignored"), self.git("ls-files", "--stage")]
        )


def new_repo(path: Path) -> Repo:
    """An empty repository with the branch main."""
    sh("git", "init", "--quiet", "--initial-branch", "main", str(path))
    return Repo(path)


@dataclass(frozen=True, slots=True)
class Fixture:
    """A fleet's repository, and the upstream that its flakes have as the input nixpkgs."""

    repo: Repo
    upstream: Repo

    def release(self, version: str) -> str:
        """Let upstream move on."""
        self.upstream.write("flake.nix", UPSTREAM.replace("VERSION", version))
        return self.upstream.commit()

    def group(self, name: str, hosts: Mapping[str, str], *, flake: str | None = None, lock: bool = True) -> None:
        """Write a group's flake (attribute → nix expression over `lib`), lock it and commit it."""
        where = flake or f"hosts/{name}"
        lines = [f"      {attribute} = {expression};" for attribute, expression in hosts.items()]
        self.repo.write(f"{where}/flake.nix", FLAKE % (self.upstream.path, "\n".join(lines)))
        self.repo.git("add", "--", where)
        if lock:
            self.nix_lock(where)
        self.repo.commit()

    def nix_lock(self, where: str, verb: str = "lock") -> None:
        """Lock (or update) a flake of the repository in the work tree."""
        reference = f"path:{quote(str(self.repo.path))}/{where}"
        sh("nix", "flake", verb, *(["--flake"] if verb == "update" else []), reference)


def fixture(folder: Path, *, name: str = "fleet") -> Fixture:
    """A repository without groups, and an upstream at version 1. Needs nix on the PATH when groups are written."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Fixture(new_repo(folder / name), new_repo(folder / "upstream"))
    made.release("1")
    made.repo.write("README", "A fleet.\n")
    made.repo.commit()
    return made
