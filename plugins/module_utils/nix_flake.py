# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what nix says of a flake by itself: its outputs, its inputs, and who uses which of them.

Facts hold for nix 2.26 to 2.34.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import CommandFailed
from .nix import EVALUATION, eval_json, nix_argv, nix_string
from .nix_messages import explained
from .runner import Runner

_USE = re.compile(r"^trace: flotilla-uses (\d+) (\d+)\s*$", re.MULTILINE)
#: Outputs that hold what an input is taken for: a nixpkgs, or another fleet's flake.
_INPUT = """i: let held = value: (builtins.tryEval value).value; in {
  channel = held (i ? lib.nixosSystem);
  hosts = let found = held (builtins.attrNames (i.nixosConfigurations or { })); in if found == false then [ ] else found;
}"""
#: Every host gets inputs of its own, whose attributes say for whom they are read; the flake's own outputs are built from these.
_USES = """let
  flake = builtins.getFlake {ref};
  names = [ {names} ];
  hosts = [ {hosts} ];
  at = builtins.genList (n: n);
  told = host: input: value:
    builtins.mapAttrs (_: builtins.trace "flotilla-uses ${{toString host}} ${{toString input}}") value;
  inputs = host: flake.inputs // builtins.listToAttrs (map (input: rec {{
    name = builtins.elemAt names input;
    value = told host input flake.inputs.${{name}};
  }}) (at (builtins.length names)));
  outputs = host: let
    made = (import "${{flake.outPath}}/flake.nix").outputs (inputs host // {{ self = flake // made; }});
  in made;
  configuration = host: (outputs host).nixosConfigurations.${{builtins.elemAt hosts host}};
  one = host: (builtins.tryEval (configuration host).config.system.build.toplevel.drvPath).success;
in map one (at (builtins.length hosts))"""


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What an input's outputs are. channel: it has lib.nixosSystem. hosts: names in its nixosConfigurations."""

    channel: bool
    hosts: tuple[str, ...]


def output_names(
    runner: Runner, subject: str, ref: str, *, reference_lock: str | None = None, timeout: float = EVALUATION
) -> tuple[str, ...]:
    """The names of a flake's outputs. Nothing below them is evaluated."""
    names = eval_json(runner, subject, f"{ref}#.", apply="builtins.attrNames", reference_lock=reference_lock, timeout=timeout)
    return tuple(map(str, names)) if isinstance(names, list) else ()


def declared_inputs(runner: Runner, subject: str, file: str) -> dict[str, Any]:
    """The inputs that a flake.nix declares, from the file `file` on the runner's machine; its lock is not asked.

    By name: url or other attributes of a reference, flake, follows, and inputs again. `self` is there if it is declared.
    """
    found = _file(runner, subject, file, "f: f.inputs or { }")
    return {name: value if isinstance(value, dict) else {} for name, value in found.items()}


def formals(runner: Runner, subject: str, file: str) -> dict[str, bool]:
    """The arguments that the outputs function of a flake.nix names, with whether they may be missing; none for `inputs: …`."""
    return {name: bool(default) for name, default in _file(runner, subject, file, "f: builtins.functionArgs f.outputs").items()}


def _file(runner: Runner, subject: str, file: str, apply: str) -> dict[str, Any]:
    result = runner.run(nix_argv("eval", "--json", "--file", file, "--apply", apply))
    if result.status != 0:
        raise explained(result, subject, "this is no flake.nix that nix can read")
    found = json.loads(result.stdout)
    return found if isinstance(found, dict) else {}


def input_facts(
    runner: Runner, subject: str, ref: str, names: Collection[str], *, timeout: float = EVALUATION
) -> dict[str, InputFacts]:
    """What these inputs of a locked flake are, by evaluating them (which fetches them where the store has not got them).

    ref: a flake reference with a revision, whose lock is complete: nix locks the rest in memory otherwise.
    """
    some = " ".join(map(nix_string, names))
    expression = (
        f"let f = builtins.getFlake {nix_string(ref)}; in builtins.listToAttrs (map (name: {{ inherit name; "
        f"value = ({_INPUT}) f.inputs.${{name}}; }}) [ {some} ])"
    )
    result = runner.run(nix_argv("eval", "--json", "--expr", expression), timeout=timeout)
    if result.status != 0:
        raise explained(result, subject, "looking at the flake's inputs failed")
    found: Mapping[str, Mapping[str, Any]] = json.loads(result.stdout)
    return {name: InputFacts(value["channel"] is True, tuple(value["hosts"])) for name, value in found.items()}


def used_inputs(
    runner: Runner, subject: str, ref: str, inputs: Sequence[str], hosts: Sequence[str], *, timeout: float = EVALUATION
) -> dict[str, frozenset[str]]:
    """The inputs of which each host's system reads an attribute; hosts that do not evaluate are left out.

    Every host is evaluated. ref: as for input_facts.
    """
    expression = _USES.format(
        ref=nix_string(ref), names=" ".join(map(nix_string, inputs)), hosts=" ".join(map(nix_string, hosts))
    )
    result = runner.run(nix_argv("eval", "--json", "--expr", expression), timeout=timeout)
    if result.status != 0:
        if len(hosts) == 1:
            return {}
        # One that ends the evaluator takes the others along.
        half = len(hosts) // 2
        parts = (used_inputs(runner, subject, ref, inputs, part, timeout=timeout) for part in (hosts[:half], hosts[half:]))
        return {name: used for part in parts for name, used in part.items()}
    good: list[bool] = json.loads(result.stdout)
    if len(good) != len(hosts):
        raise CommandFailed(subject, "nix did not answer for every host", result=result)
    pairs = {(int(host), int(name)) for host, name in _USE.findall(result.stderr)}
    return {
        host: frozenset(inputs[name] for at, name in pairs if at == number) for number, host in enumerate(hosts) if good[number]
    }
