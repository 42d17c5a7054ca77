#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a rollout takes, beside a plain parallel shell loop that does the same without any of our safety.

For 6 and for 16 hosts on the testbed, and for a rollout that has nothing to do and one that changes every host: medians of the
wall time, taken in turns, and their ratio. The loop is one `nix build`, then for all hosts at once `nix copy` and
`ssh … switch-to-configuration switch`.

    tests/bench/bench.py [--hosts N…] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from testbed import Fleet, upstream  # noqa: E402  # found through the line above

FLAKE = """# SPDX-License-Identifier: GPL-3.0-or-later
{
  inputs.nixpkgs.url = "%(nixpkgs)s";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = nixpkgs.lib.genAttrs (nixpkgs.lib.importJSON ./hosts.json) (name: nixpkgs.lib.nixosSystem {
      system = "%(system)s";
      modules = [ {
        networking.hostName = name;
        environment.etc.round.text = builtins.readFile ./round;
        systemd.services.round = {
          wantedBy = [ "multi-user.target" ];
          restartTriggers = [ (builtins.readFile ./round) ];
          serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "/bin/true"; };
        };
      } ];
    });
  };
}
"""
LOOP = TOP / "tests/bench/loop.sh"


@dataclass(frozen=True, slots=True)
class Bed:
    """The fleet under measurement: its repository, its inventory, and how to run things against it."""

    fleet: Fleet
    folder: Path
    hosts: tuple[str, ...]

    @property
    def env(self) -> dict[str, str]:
        ansible = {
            "PYTHONPATH": str(TOP / ".dev"),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "ansible/collections"),
            "ANSIBLE_FORKS": "32",
            "ANSIBLE_PIPELINING": "true",
        }
        return {**self.fleet.env(), **ansible, "PATH": f"{TOP}/.venv-newest/bin:{self.fleet.env()['PATH']}"}

    def run(self, *argv: str | Path) -> float:
        """Run it and give the seconds it took; a failure ends the benchmark with what was printed."""
        started = time.monotonic()
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=self.folder / "repo",
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, argv))}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return seconds

    def commit(self, text: str) -> None:
        """Change every host."""
        (self.folder / "repo/hosts/bench/round").write_text(f"{text}\n")
        self.run("git", "commit", "--quiet", "--all", "--message", text)

    def rollout(self, *extra: str) -> float:
        return self.run("ansible-playbook", "-i", self.folder / "hosts.json", "flotilla.nixos.rollout", "-l", "bench", *extra)

    def loop(self) -> float:
        return self.run(LOOP, self.folder / "repo/hosts/bench", *self.hosts)


def make_bed(fleet: Fleet, count: int) -> Bed:
    """Bring up that many hosts, and make a repository with one update group that holds them."""
    hosts = tuple(f"host{number}" for number in range(1, count + 1))
    fleet.up(hosts)
    folder = Path(f"/var/lib/flotilla-bench/{count}")
    shutil.rmtree(folder, ignore_errors=True)
    group = folder / "repo/hosts/bench"
    group.mkdir(parents=True)
    nixpkgs = upstream.create(folder / "nixpkgs")
    (group / "flake.nix").write_text(FLAKE % {"nixpkgs": nixpkgs.url(), "system": f"{platform.machine()}-linux"})
    (group / "hosts.json").write_text(json.dumps(hosts))
    (group / "round").write_text("0\n")
    bed = Bed(fleet, folder, hosts)
    addresses = {name: {"ansible_host": fleet.host(name).address, "ansible_user": "root"} for name in hosts}
    variables = {"flotilla_repo": str(folder / "repo"), "flotilla_update_group": "bench"}
    (folder / "hosts.json").write_text(json.dumps({"all": {"children": {"bench": {"hosts": addresses, "vars": variables}}}}))
    identity = ("-c", "user.name=Bench", "-c", "user.email=bench@testbed.invalid")
    for words in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "--message", "start")):
        bed.run("git", *words)
    bed.run("git", "config", "user.name", "Bench")
    bed.run("git", "config", "user.email", "bench@testbed.invalid")
    bed.run("nix", "flake", "lock", f"git+file://{folder}/repo?dir=hosts/bench")
    bed.run("git", "add", ".")
    bed.run("git", "commit", "--quiet", "--message", "lock")
    return bed


def alternate(rounds: int, before: Callable[[str], None], ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median seconds of each way, in turns, each after `before`."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            before(f"{name} {number}")
            taken[name].append(way())
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def measure(bed: Bed, rounds: int) -> list[tuple[str, dict[str, float]]]:
    """Both kinds of run, every way; the first rollout is not measured: it starts connections and fills caches."""
    at_once = ("-e", json.dumps({"flotilla_serial": ["100%"]}))
    ways = {
        "shell loop": bed.loop,
        "rollout, one batch": lambda: bed.rollout(*at_once),
        "rollout, 1 then 25% then all": bed.rollout,
    }
    bed.rollout()
    return [
        ("nothing to do", alternate(rounds, lambda _: None, ways)),
        ("every host changes", alternate(rounds, bed.commit, ways)),
    ]


def show(count: int, results: Sequence[tuple[str, dict[str, float]]]) -> None:
    for what, medians in results:
        print(f"\n{count} hosts, {what}:")
        for name, seconds in medians.items():
            print(f"  {name:<30} {seconds:6.2f} s   {seconds / medians['shell loop']:5.2f} × the shell loop", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[6, 16])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if os.geteuid():
        os.execvp("sudo", ["sudo", sys.executable, *sys.argv])
    subprocess.run([TOP / "tests/testbed/testbed", "prepare"], check=True)
    for count in options.hosts:
        with Fleet("bench") as fleet:
            show(count, measure(make_bed(fleet, count), options.rounds))
        shutil.rmtree("/var/lib/flotilla-bench", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
