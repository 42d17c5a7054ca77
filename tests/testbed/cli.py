# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed's command line."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence

from . import base, prerequisites
from .errors import TestbedError
from .faults import FAULTS
from .fleet import Fleet, prepare
from .locks import EVERYTHING, locked
from .places import CACHE, STATE


def parser() -> argparse.ArgumentParser:
    """The options and verbs."""
    top = argparse.ArgumentParser(prog="testbed", description="A fleet of NixOS-like hosts on this machine.")
    top.add_argument(
        "--fleet", default=os.environ.get("FLOTILLA_TESTBED", "default"), help="the fleet's name (or FLOTILLA_TESTBED)"
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("install", help="install what the testbed needs, through apt")
    verbs.add_parser("prepare", help="install, and build what all fleets share, ahead of the first up")
    up = verbs.add_parser("up", help="have hosts up, whatever state a killed run has left")
    up.add_argument("hosts", nargs="*", help="names; without any, the hosts that the fleet has")
    up.add_argument("--count", type=int, default=0, help="instead of names: host1 to hostN")
    up.add_argument("--fresh", action="store_true", help="replace hosts that are up already")
    down = verbs.add_parser("down", help="leave nothing of the fleet")
    down.add_argument("--all", action="store_true", help="nor of any other fleet on this machine")
    verbs.add_parser("status", help="how the hosts are").add_argument("--json", action="store_true")
    ssh = verbs.add_parser("ssh", help="a shell on a host, or one command there")
    ssh.add_argument("--user", default="root", choices=("root", "deploy", "operator"))
    ssh.add_argument("host")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    fault = verbs.add_parser("fault", help=f"do something bad to a host, or mend it: {', '.join(FAULTS)}")
    fault.add_argument("host")
    fault.add_argument("fault", choices=FAULTS, metavar="FAULT")
    fault.add_argument("arguments", nargs="*", help="fill-disk [/nix|/boot|/ [FREE_KIB]], free-disk [PATH], slow MILLISECONDS")
    reset = verbs.add_parser("reset", help="fresh disks and a boot for these hosts, or all")
    reset.add_argument("hosts", nargs="*")
    verbs.add_parser("env", help='exports for a shell: eval "$(testbed env)"')
    verbs.add_parser("clean", help="take all fleets down and remove the cache too")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; an expected failure is one line and status 1."""
    options = parser().parse_args(argv)
    if os.geteuid() != 0:
        kept = "--preserve-env=FLOTILLA_TESTBED,PATH"
        os.execvp("sudo", ["sudo", kept, sys.executable, os.path.abspath(sys.argv[0]), *(sys.argv[1:] if argv is None else argv)])
    try:
        return _do(options, Fleet(options.fleet, say=lambda line: print(line, flush=True)))
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1


def _do(options: argparse.Namespace, fleet: Fleet) -> int:
    match options.verb:
        case "install":
            print("installed: " + (" ".join(prerequisites.install()) or "nothing, all is there"))
        case "up":
            named = options.hosts or [f"host{n}" for n in range(1, options.count + 1)] or list(fleet.hosts)
            if not named:
                raise TestbedError(f"fleet {fleet.name}", "it has no hosts yet", "Name them, or give --count.")
            fleet.up(named, fresh=options.fresh)
        case "prepare":
            prerequisites.install()
            prerequisites.check()
            with locked(EVERYTHING, timeout=1800):
                prepare(fleet.say)
        case "down":
            for name in _all_fleets() if options.all else [fleet.name]:
                Fleet(name).down()
        case "status":
            _show_status(fleet, options.json)
        case "ssh":
            command = fleet.host(options.host).ssh_command(user=options.user)
            os.execvp(command[0], [*command, *options.command])
        case "fault":
            print(f"{options.host}: {fleet.fault(options.host, options.fault, *options.arguments)}")
        case "reset":
            fleet.reset(*options.hosts)
        case "env":
            for name, value in fleet.exports().items():
                print(f"export {name}={shlex.quote(value)}")
        case "clean":
            _clean()
    return 0


def _show_status(fleet: Fleet, as_json: bool) -> None:
    status = fleet.status()
    if as_json:
        print(json.dumps([host.plain() for host in status], indent=2))
        return
    if not status:
        print(f"fleet {fleet.name}: no hosts")
    for host in status:
        power = "on" if host.on else "off"
        print(f"{host.name:20} {host.address:15} {power:4} {'answers' if host.answers else 'silent':8} {host.system or '-'}")


def _all_fleets() -> list[str]:
    """Every fleet that has left a folder, whatever is in it."""
    return sorted(path.name for path in STATE.glob("[!.]*") if path.is_dir())


def _clean() -> None:
    for name in _all_fleets():
        Fleet(name).down()
    with locked(EVERYTHING):
        base.remove_folder(CACHE)
