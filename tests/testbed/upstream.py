# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed's upstream: a git repository of the stand-in nixpkgs, with releases as tags and branches that move."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "nixpkgs"
BRANCHES = ("nixos-unstable", "nixos-25.05")
INSTALLER = "25.05.1"
NEWEST_GOOD = "25.05.3"

BASE: dict[str, str] = {
    "bash": "5.2p37",
    "cacert": "3.108",
    "coreutils": "9.6",
    "curl": "8.13.0",
    "dbus": "1.14.10",
    "dbus-broker": "36",
    "glibc": "2.40-66",
    "hello": "2.12.1",
    "kmod": "31",
    "linux": "6.12.30",
    "linux-firmware": "20250509",
    "linux-lts": "6.6.92",
    "nginx": "1.28.0",
    "nix": "2.28.3",
    "openssh": "10.0p1",
    "openssl": "3.4.1",
    "postgresql": "16.8",
    "systemd": "257.5",
    "tzdata": "2025b",
    "util-linux": "2.41",
    "zlib": "1.3.1",
}


@dataclass(frozen=True, slots=True)
class Release:
    """One release: what it changes against its parent, and why one would want it."""

    name: str
    date: str
    summary: str
    parent: str | None = None
    version: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    slow: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def _bad(name: str, summary: str, *, broken: tuple[str, ...] = (), module: bool = True, linux: str = BASE["linux"]) -> Release:
    own = {"hello": f"2.12.3-{name}", "linux": linux}
    modules = (name,) if module else ()
    return Release(name, "2026-11-18", summary, NEWEST_GOOD, f"25.05.3.{name}", own, modules, broken)


RELEASES: tuple[Release, ...] = (
    Release(INSTALLER, "2026-10-05", "the first one; a fresh testbed host runs it"),
    Release(
        "25.05.2",
        "2026-10-19",
        "userland: glibc, openssl, curl, nginx, hello; same kernel",
        INSTALLER,
        packages={"glibc": "2.40-70", "openssl": "3.4.2", "curl": "8.14.1", "nginx": "1.28.1", "hello": "2.12.2"},
    ),
    Release(
        "25.05.3",
        "2026-11-02",
        "userland again, and systemd, which re-executes itself",
        "25.05.2",
        packages={"systemd": "257.7", "nix": "2.28.5", "tzdata": "2025c", "hello": "2.12.3"},
    ),
    Release(
        "docs-only",
        "2026-11-04",
        "the revision moves and no system changes",
        "25.05.3",
        version="25.05.3",
        files={"doc/manual.md": "# The manual\n\nNow with fewer typing errors.\n"},
    ),
    Release(
        "25.05.4",
        "2026-11-09",
        "a new kernel: a reboot is needed to run it",
        "25.05.3",
        packages={"linux": "6.12.34", "linux-lts": "6.6.95", "linux-firmware": "20250613", "openssl": "3.4.3"},
    ),
    Release(
        "25.05.5",
        "2026-11-16",
        "userland after the kernel",
        "25.05.4",
        packages={"curl": "8.15.0", "nginx": "1.28.2", "openssh": "10.0p2"},
    ),
    Release(
        "25.11.1",
        "2026-11-20",
        "a switch inhibitor (dbus → broker): switch and test answer 1, boot and a reboot do it",
        "25.05.5",
        packages={"systemd": "258.2", "glibc": "2.42-5"},
        modules=("dbus-broker",),
    ),
    Release(
        "26.05.1",
        "2026-11-22",
        "another init interface: switch and test answer 100, reboot needed",
        "25.11.1",
        packages={"systemd": "260.1"},
        modules=("dbus-broker", "init-interface"),
    ),
    Release(
        "slow-build",
        "2026-11-17",
        "good, but curl compiles for 20 seconds",
        NEWEST_GOOD,
        version="25.05.3.slow-build",
        packages={"curl": "8.14.2"},
        slow={"curl": 20},
    ),
    _bad("bad-unit", "a oneshot unit fails to start: status 4"),
    _bad("bad-late-unit", "a unit starts and fails 3 s later: status 0, and a look at once finds nothing"),
    _bad("bad-sshd", "sshd does not survive its restart: status 4, no new connection"),
    _bad("bad-sshd-port", "sshd restarts on port 2222: status 0, no new connection"),
    _bad("bad-network", "the link loses its address: status 0, host gone"),
    _bad("bad-activation", "an activation snippet fails: status 2"),
    _bad("bad-hang", "an activation snippet never ends"),
    _bad("bad-check", "a pre-switch check refuses switch, test and boot: status 1"),
    _bad("bad-boot", "a new kernel; good until it is booted, then sshd stops and a unit fails", linux="6.12.33"),
    _bad("bad-eval", "evaluation error on every host (attribute missing)"),
    _bad("bad-assertion", "failed assertion, on hosts with services.postgresql only"),
    _bad("bad-build", "curl does not build: every host", broken=("curl",), module=False),
    _bad("bad-build-nginx", "nginx does not build: hosts with services.nginx only", broken=("nginx",), module=False),
)


class UnknownRelease(ValueError):
    """There is no release of that name."""


class BuildFailed(RuntimeError):
    """nix could not build it; the message is nix's."""


def find(name: str) -> Release:
    """The release of that name; UnknownRelease with the names there are."""
    for release in RELEASES:
        if release.name == name:
            return release
    raise UnknownRelease(f"{name}: no such release. There are: {', '.join(r.name for r in RELEASES)}")


def packages(release: Release) -> dict[str, str]:
    """Package versions: the first release's, changed by each one down to this."""
    inherited = packages(find(release.parent)) if release.parent else BASE
    return {**inherited, **release.packages}


def manifest(release: Release) -> dict[str, object]:
    """What the stand-in reads as release.json."""
    return {
        "version": release.version or release.name,
        "builder": f"{platform.machine()}-linux",
        "packages": packages(release),
        "modules": list(release.modules),
        "broken": list(release.broken),
        "slow": dict(release.slow),
    }


@dataclass(frozen=True, slots=True)
class Upstream:
    """The repository at `path` (bare); its URL is what a flake's input names."""

    path: Path

    def url(self, branch: str = BRANCHES[0]) -> str:
        """What a flake's input says to follow a branch."""
        return f"git+file://{self.path}?ref={branch}"

    def pinned_url(self, release: str) -> str:
        """One release by its revision: nix may answer from an old look at a tag for an hour."""
        tag = f"refs/tags/{find(release).name}"
        return f"{self.url(tag)}&rev={self.revision(tag)}"

    def git(self, *args: str) -> str:
        """What git prints."""
        argv = ["git", f"--git-dir={self.path}", *args]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=60, env=_environment()).stdout.strip()

    def revision(self, name: str) -> str:
        """The commit of a tag or branch."""
        return self.git("rev-parse", "--verify", f"{name}^{{commit}}")

    def current(self, branch: str = BRANCHES[0]) -> str | None:
        """The release that a branch points at."""
        tags = self.git("tag", "--points-at", f"refs/heads/{branch}").split() if self._has(branch) else []
        return tags[0] if tags else None

    def _has(self, branch: str) -> bool:
        return bool(self.git("for-each-ref", f"refs/heads/{branch}"))

    def release(self, name: str, branches: tuple[str, ...] = (BRANCHES[0],)) -> str:
        """Moves the branches to the release; gives its revision."""
        revision = self.revision(f"refs/tags/{find(name).name}")
        for branch in branches:
            self.git("update-ref", f"refs/heads/{branch}", revision)
        return revision


def create(path: Path, *, first: str = INSTALLER) -> Upstream:
    """Makes or updates the repository: every release has its tag; branches that exist stay where they are.

    Commits are functions of the sources alone, so the same sources give the same revisions. When a source has changed,
    the tags move, and the branches with them.
    """
    upstream = Upstream(path.resolve())
    if not (path / "HEAD").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["git", "init", "--quiet", "--bare", "--initial-branch", BRANCHES[0], str(path)], check=True, env=_environment()
        )
    standing = {branch: name for branch in BRANCHES if (name := _standing(upstream, branch))}
    subprocess.run(
        ["git", f"--git-dir={path}", "fast-import", "--quiet", "--force"],
        input=_history(),
        check=True,
        timeout=60,
        env=_environment(),
    )
    for branch in BRANCHES:
        upstream.release(standing.get(branch, first), (branch,))
    return upstream


def build_installer(scratch: Path, env: Mapping[str, str] | None = None, *, release: str = INSTALLER) -> Path:
    """Builds the minimal system that a fresh host runs; its store path.

    scratch: a folder for the repository and the flake. env: the environment that has nix (default: ours).
    """
    upstream = create(scratch / "nixpkgs.git")
    flake = scratch / "flake"
    flake.mkdir(parents=True, exist_ok=True)
    (flake / "flake.nix").write_text(_INSTALLER_FLAKE % (upstream.pinned_url(release), f"{platform.machine()}-linux"))
    argv = ["nix", "build", "--no-link", "--print-out-paths", "--no-write-lock-file"]
    argv.append(f"path:{flake}#nixosConfigurations.installer.config.system.build.toplevel")
    found = dict(os.environ if env is None else env)
    argv[0] = shutil.which("nix", path=found.get("PATH")) or "nix"
    done = subprocess.run(argv, env=found, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise BuildFailed(f"installer {release}: nix build failed. {done.stderr.strip()}")
    return Path(done.stdout.strip())


_INSTALLER_FLAKE = """{
  inputs.nixpkgs.url = "%s";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.installer = nixpkgs.lib.nixosSystem {
      system = "%s";
      modules = [ { networking.hostName = "installer"; services.nscd.enable = false; } ];
    };
  };
}
"""


def _environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return clean | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def _standing(upstream: Upstream, branch: str) -> str | None:
    name = upstream.current(branch)
    return name if name in {release.name for release in RELEASES} else None


def _history() -> bytes:
    """All releases as git fast-import reads them."""
    sources = sorted(file for file in SOURCE.rglob("*") if file.is_file())
    marks = {file: number for number, file in enumerate(sources, start=1)}
    commits = {release.name: number for number, release in enumerate(RELEASES, start=len(sources) + 1)}
    stream = [b"blob\nmark :%d\n%s" % (mark, _data(file.read_bytes())) for file, mark in marks.items()]
    shared = "".join(f"M 100644 :{mark} {file.relative_to(SOURCE)}\n" for file, mark in marks.items())
    for release in RELEASES:
        moment = datetime.fromisoformat(release.date).replace(hour=12, tzinfo=UTC)
        stream.append(f"commit refs/tags/{release.name}\nmark :{commits[release.name]}\n".encode())
        stream.append(f"committer Stand-in nixpkgs <nixpkgs@testbed.invalid> {int(moment.timestamp())} +0000\n".encode())
        stream.append(_data(f"{release.name}: {release.summary}\n".encode()))
        stream.append(f"from :{commits[release.parent]}\n".encode() if release.parent else b"")
        stream.append(f"deleteall\n{shared}".encode())
        own = {"release.json": json.dumps(manifest(release), indent=2, sort_keys=True) + "\n", **release.files}
        stream += [f"M 100644 inline {name}\n".encode() + _data(text.encode()) for name, text in own.items()]
    return b"".join(stream)


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="upstream.py", description=__doc__)
    parser.add_argument("repository", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("create", help="make or update the repository")
    commands.add_parser("list", help="the releases, and where the branches are")
    commands.add_parser("installer", help="build a fresh host's system and print its path")
    move = commands.add_parser("release", help="move a branch to a release")
    move.add_argument("name")
    move.add_argument("--branch", action="append", choices=BRANCHES, help=f"default: {BRANCHES[0]}")
    options = parser.parse_args(argv)
    try:
        _run(options)
    except UnknownRelease as unknown:
        print(unknown, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.command == "installer":
        with tempfile.TemporaryDirectory(prefix="flotilla-installer-") as scratch:
            print(build_installer(Path(scratch)))
        return
    upstream = create(options.repository) if options.command == "create" else Upstream(options.repository.resolve())
    if options.command == "release":
        print(upstream.release(options.name, tuple(options.branch or BRANCHES[:1])))
        return
    branches = {branch: upstream.current(branch) for branch in BRANCHES}
    for release in RELEASES:
        here = [branch for branch, name in branches.items() if name == release.name]
        print(f"{release.name:16} {release.date}  {release.summary}{'  ← ' + ', '.join(here) if here else ''}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
