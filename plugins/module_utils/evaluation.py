# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: evaluates a flake's hosts, many in one evaluator, so that a bad one takes no other along."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import nix
from .errors import BadInput, CommandFailed, CommandTimeout, ConnectionLost, FlotillaError
from .nix_messages import parsed
from .runner import Runner

CONFIGURATIONS = "nixosConfigurations"
#: Where a flake has the nodes of an evaluated colmena hive, which are what nixosSystem gives, too.
HIVE = "colmenaHive.nodes"
#: Up to so many hosts are evaluated one by one at once when an evaluator has ended on them.
_FEW = 3


@dataclass(frozen=True, slots=True)
class FlakeSource:
    """A group's flake as nix is given it.

    group: the update group's name, flake: its directory in the repository, both for messages. ref: the flake reference.
    reference_lock: a lock file on the builder that takes the place of the flake's own; lasting_lock: the same for commands
    that are shown to people, lasting_locks: by attribute where hosts have their own. commit: "" for the work tree.
    output: where the flake has the hosts.
    """

    group: str
    flake: str
    ref: str
    commit: str = ""
    reference_lock: str | None = None
    lasting_lock: str | None = None
    lasting_locks: Mapping[str, str] = field(default_factory=dict)
    output: str = CONFIGURATIONS


@dataclass(frozen=True, slots=True)
class HostSystem:
    """What the evaluation of a host gave.

    drv, system: store paths of the toplevel's derivation and of its output. platform: as in x86_64-linux. version: NixOS's,
    "" where the configuration has none.
    """

    drv: str
    system: str
    platform: str
    version: str = ""


@dataclass(slots=True)
class Evaluation:
    """The outcome by attribute: each attribute asked for is in one of the two."""

    systems: dict[str, HostSystem] = field(default_factory=dict)
    errors: dict[str, FlotillaError] = field(default_factory=dict)


#: What is wanted of a configuration `c`. No key may be called outPath: the set would turn into a string.
_SYSTEM = """
  let t = c.config.system.build.toplevel; in {
    drv = t.drvPath;
    out = builtins.unsafeDiscardStringContext "${t}";
    platform = c.pkgs.stdenv.hostPlatform.system or c.config.nixpkgs.hostPlatform.system or t.system;
    version = c.config.system.nixos.version or "";
  }"""

#: tryEval holds back what `throw` and failed assertions raise (not their message); other errors end the evaluator.
_MANY = """cs: builtins.listToAttrs (map (name: {{
  inherit name;
  value = builtins.tryEval (let r = (c: {expression}) cs.${{name}}; in builtins.deepSeq r r);
}}) (builtins.filter (name: cs ? ${{name}}) [ {names} ]))"""


def in_output(attribute: str) -> tuple[str, str]:
    """The output that has a host, and its name there. An attribute is one of nixosConfigurations, or begins with HIVE."""
    prefix = f"{HIVE}."
    return (HIVE, attribute.removeprefix(prefix)) if attribute.startswith(prefix) else (CONFIGURATIONS, attribute)


def attributes_beside(
    runner: Runner, source: FlakeSource, attributes: Sequence[str], *, timeout: float = nix.EVALUATION
) -> tuple[str, ...]:
    """The attributes of all hosts in the outputs that have these (none: in nixosConfigurations)."""
    outputs = sorted({in_output(attribute)[0] for attribute in attributes} or {CONFIGURATIONS}, reverse=True)
    return tuple(
        name if output == CONFIGURATIONS else f"{output}.{name}"
        for output in outputs
        for name in attribute_names(runner, replace(source, output=output), timeout=timeout)
    )


def attribute_names(runner: Runner, source: FlakeSource, *, timeout: float = nix.EVALUATION) -> tuple[str, ...]:
    """The names in the flake's nixosConfigurations (source.output), sorted. No host is evaluated for it."""
    installable = f"{source.ref}#{source.output}"
    lock = source.reference_lock
    try:
        names = nix.eval_json(runner, source.group, installable, apply="builtins.attrNames", reference_lock=lock, timeout=timeout)
    except CommandFailed as error:
        command = nix.eval_command(installable, apply="builtins.attrNames", reference_lock=source.lasting_lock)
        raise _located(runner, source, error, f"Run: {command}") from error
    if not isinstance(names, list):
        raise BadInput(source.group, f"{source.output} of {source.flake} is not an attribute set", "Look at its outputs.")
    return tuple(sorted(str(name) for name in names))


def no_such_host(source: FlakeSource, attribute: str, names: Sequence[str]) -> BadInput:
    """The error for a host that the flake does not have."""
    at = f" at commit {source.commit[:12]}" if source.commit else ""
    near = difflib.get_close_matches(attribute, names, 3)
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    has = ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "none"
    return BadInput(
        source.group,
        f"there is no {attribute!r} in {source.output} of {source.flake}{at}",
        f"{guess}It has: {has}. Name the host's attribute in flotilla_attribute.",
    )


def evaluate(
    runner: Runner,
    source: FlakeSource,
    attributes: Sequence[str],
    *,
    chunk: int,
    timeout: float = nix.EVALUATION,
    progress: Callable[[str], None] = lambda _line: None,
) -> Evaluation:
    """Evaluate the hosts with these attributes.

    Raises FlotillaError only for what concerns the flake as a whole; a host's failure is in the result.
    """
    values, errors = evaluate_values(runner, source, attributes, _SYSTEM, chunk=chunk, timeout=timeout, progress=progress)
    return Evaluation({name: _host_system(value) for name, value in values.items()}, errors)


def evaluate_values(
    runner: Runner,
    source: FlakeSource,
    attributes: Sequence[str],
    expression: str,
    *,
    chunk: int,
    timeout: float = nix.EVALUATION,
    progress: Callable[[str], None] = lambda _line: None,
) -> tuple[dict[str, Mapping[str, object]], dict[str, FlotillaError]]:
    """The value of an expression over a configuration `c`, an attribute set, for each of the hosts; and the errors.

    One evaluator takes `chunk` hosts at a time. Of those of which it gives nothing each gets one of its own, for its message;
    where a host has ended the evaluator of many, smaller ones find it first.
    """
    names: dict[str, dict[str, str]] = {}
    for attribute in attributes:
        output, name = in_output(attribute)
        names.setdefault(output, {})[name] = attribute
    values: dict[str, Mapping[str, object]] = {}
    errors: dict[str, FlotillaError] = {}
    for output, some in names.items():
        there = replace(source, output=output)
        found, failed = _values_of(runner, there, list(some), expression, chunk, timeout, progress)
        values |= {some[name]: value for name, value in found.items()}
        errors |= {some[name]: error for name, error in failed.items()}
    return values, errors


def _values_of(
    runner: Runner,
    source: FlakeSource,
    wanted: Sequence[str],
    expression: str,
    chunk: int,
    timeout: float,
    progress: Callable[[str], None],
) -> tuple[dict[str, Mapping[str, object]], dict[str, FlotillaError]]:
    values: dict[str, Mapping[str, object]] = {}
    for start, some in _chunks(wanted, chunk):
        if len(some) < len(wanted):
            progress(f"{source.group}: evaluating hosts {start + 1} to {start + len(some)} of {len(wanted)}")
        found = _try_many(runner, source, some, expression, timeout)
        if found is None and len(some) > _FEW:
            # Raises if it is the flake itself that does not evaluate.
            attribute_names(runner, source, timeout=timeout)
            for _start, part in _chunks(some, math.isqrt(len(some))):
                values |= _try_many(runner, source, part, expression, timeout) or {}
        values |= found or {}
    left = [name for name in wanted if name not in values]
    alone, errors = _one_by_one(runner, source, left, expression, timeout) if left else ({}, {})
    return values | alone, errors


def _chunks(items: Sequence[str], size: int) -> Iterator[tuple[int, Sequence[str]]]:
    step = max(1, size)
    for start in range(0, len(items), step):
        yield start, items[start : start + step]


def _one_by_one(
    runner: Runner, source: FlakeSource, names: Sequence[str], expression: str, timeout: float
) -> tuple[dict[str, Mapping[str, object]], dict[str, FlotillaError]]:
    there = attribute_names(runner, source, timeout=timeout)
    values: dict[str, Mapping[str, object]] = {}
    errors: dict[str, FlotillaError] = {}
    for name in names:
        if name not in there:
            errors[name] = no_such_host(source, name, there)
            continue
        try:
            values[name] = _one(runner, source, name, expression, timeout)
        except (CommandTimeout, ConnectionLost):
            raise
        except FlotillaError as error:
            errors[name] = error
    return values, errors


def _host_system(value: Mapping[str, object]) -> HostSystem:
    return HostSystem(str(value["drv"]), str(value["out"]), str(value["platform"]), str(value["version"]))


def _try_many(
    runner: Runner, source: FlakeSource, names: Sequence[str], expression: str, timeout: float
) -> dict[str, Mapping[str, object]] | None:
    """The values of those that evaluate, from one evaluator; None if that ended (an error, or memory)."""
    apply = _MANY.format(expression=expression.strip(), names=" ".join(map(nix.nix_string, names)))
    installable = f"{source.ref}#{source.output}"
    try:
        answer = nix.eval_json(
            runner, source.group, installable, apply=apply, reference_lock=source.reference_lock, timeout=timeout
        )
    except (CommandTimeout, ConnectionLost):
        raise
    except FlotillaError:
        return None
    if not isinstance(answer, dict):
        raise AssertionError
    return {name: tried["value"] for name, tried in answer.items() if tried["success"]}


def _one(runner: Runner, source: FlakeSource, name: str, expression: str, timeout: float) -> Mapping[str, object]:
    """The value for one host; FlotillaError with nix's cause and its place in the repository."""
    installable = f"{source.ref}#{source.output}.{nix.nix_string(name)}"
    lock, failure = source.reference_lock, f"evaluation of {name} failed"
    apply = f"c: {expression.strip()}"
    try:
        value = nix.eval_json(
            runner, source.group, installable, apply=apply, reference_lock=lock, timeout=timeout, failure=failure
        )
    except (CommandTimeout, ConnectionLost):
        raise
    except FlotillaError as error:
        raise _located(runner, source, error, f"Run: {reproduce(source, name)}") from error
    if not isinstance(value, dict):
        raise AssertionError
    return value


def _located(runner: Runner, source: FlakeSource, error: FlotillaError, hint: str) -> FlotillaError:
    """The same error with the place in the repository that it is about, where nix's own words are all that it says."""
    message = parsed(error.result.stderr) if error.result else None
    if message is None or not error.what.endswith(message.text):
        return error
    path = nix.source_path(runner, source.ref) if message.positions else None
    place = message.place(path, source.flake)
    return CommandFailed(error.subject, f"{error.what} at {place}" if place else error.what, hint, result=error.result)


def reproduce(source: FlakeSource, name: str) -> str:
    """The command with which a person sees the whole of nix's message for a host."""
    installable = f"{source.ref}#{source.output}.{nix.nix_string(name)}.config.system.build.toplevel.drvPath"
    lock = source.lasting_locks.get(name, source.lasting_lock)
    return nix.eval_command(installable, "--raw", "--show-trace", reference_lock=lock)
