# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: whether hosts are the same before and after a migration, by their derivations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from . import git, nix
from .derivation_diff import Facts, reasons, told
from .errors import BadInput, FlotillaError
from .evaluation import HostSystem, evaluate
from .flake_source import flake_source
from .nix_derivation import source_facts
from .update_group import UpdateGroup

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Proof:
    """A host before and after. why: in what it differs, "" if it does not. only_commit: by the name of the commit alone."""

    host: str
    group: str
    before: HostSystem
    after: HostSystem | None
    why: str = ""
    only_commit: bool = False

    @property
    def same(self) -> bool:
        """Whether its system has the same derivation."""
        return self.after is not None and self.after.drv == self.before.drv


@dataclass(frozen=True, slots=True)
class Look:
    """How to evaluate. chunk: hosts in one evaluator; timeout: seconds for it."""

    chunk: int
    timeout: float
    progress: Callable[[str], None] = lambda _line: None


def systems(
    repo: git.Repository, places: Iterable[tuple[UpdateGroup, str]], look: Look
) -> tuple[dict[str, HostSystem], dict[str, FlotillaError]]:
    """The systems of the members of groups at commits, by attribute, and the errors of those that do not evaluate.

    Groups that have flake, lock and commit in common are evaluated together.
    """
    found: dict[str, HostSystem] = {}
    errors: dict[str, FlotillaError] = {}
    together: dict[tuple[str, str, str], tuple[UpdateGroup, list[str]]] = {}
    for group, commit in places:
        wanted = together.setdefault((group.flake, group.lock, commit), (group, []))[1]
        wanted += [member.attribute for member in group.members]
    for (_flake, _lock, commit), (group, attributes) in together.items():
        try:
            with flake_source(repo, group, commit) as source:
                done = evaluate(repo.runner, source, attributes, chunk=look.chunk, timeout=look.timeout, progress=look.progress)
        except BadInput as error:
            errors |= dict.fromkeys(attributes, error)
            continue
        found |= done.systems
        errors |= done.errors
    return found, errors


def proofs(
    groups: Mapping[str, str],
    before: Mapping[str, HostSystem],
    after: tuple[Mapping[str, HostSystem], Mapping[str, FlotillaError]],
) -> list[Proof]:
    """Each host's proof. groups: host → its group."""
    found, errors = after
    return [
        Proof(host, group, before[host], found.get(host), str(errors[host]) if host in errors else "")
        for host, group in groups.items()
    ]


def explained(repo: git.Repository, proof: Proof, refs: tuple[str, str], known: dict[str, Facts]) -> Proof:
    """The proof with why it differs. refs: the flakes before and after; known: facts of these that were asked already."""
    if proof.same or proof.after is None:
        return proof
    for ref in refs:
        if ref not in known:
            known[ref] = source_facts(repo.runner, proof.host, ref)
    found = reasons(repo.runner, proof.host, proof.before.drv, proof.after.drv, (known[refs[0]], known[refs[1]]))
    only_commit = bool(found) and all(reason.only_commit for reason in found)
    why = told(found)
    if not nix.invalid_paths(repo.runner, proof.host, [proof.before.system, proof.after.system]):
        packages = _COLOURS.sub("", nix.diff_closures(repo.runner, proof.host, proof.before.system, proof.after.system))
        why += f" (packages: {'; '.join(packages.split(chr(10))).strip('; ')})" if packages.strip() else ""
    return Proof(proof.host, proof.group, proof.before, proof.after, why, only_commit)
