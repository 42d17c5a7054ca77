# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: one flake's hosts into a flake for each group.

The outputs function of the one flake becomes a file of its own, word by word, which the groups' flakes import with their inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import BadInput
from .flake_facts import FlakeFacts, Snapshot
from .flake_source import inside
from .flake_text import attribute_name, inputs_text, relative
from .lockfile import Lock
from .migration import Files, Target
from .migration_locks import moved_inputs, moved_lock, some_inputs, with_followed
from .nix import nix_string
from .nix_syntax import Binding, SyntaxUnknown, bindings, by_itself

#: What the file with the outputs function may be called.
_NAMES = ("outputs.nix", "fleet.nix", "hosts.nix")


@dataclass(frozen=True, slots=True)
class Style:
    """How a group's flake calls the outputs function. used: with no more inputs than its hosts read, where it takes fewer.

    whole: what hosts call `self` is the whole repository with all of the function's outputs, as it was in the one flake.
    """

    used: bool = True
    whole: bool = False


#: From what reads best to what works most often.
STYLES = (Style(), Style(used=False), Style(used=False, whole=True))


@dataclass(frozen=True, slots=True)
class Split:
    """A flake that is to be split. required: arguments that its outputs function cannot do without.

    lock_of: the lock that a group gets, directory_of: where its flake goes, both by its name. obsolete: locks that then go.
    """

    head: Snapshot
    flake: FlakeFacts
    uses: Mapping[str, frozenset[str]]
    required: frozenset[str]
    lock_of: Callable[[str], Lock]
    directory_of: Callable[[str], str]
    obsolete: tuple[str, ...] = ()

    def files(self, targets: Sequence[Target], style: Style) -> Files:
        """The files of the repository afterwards."""
        path = inside(self.flake.directory, "flake.nix")
        text = self.head.text(path) or ""
        outputs = outputs_binding(path, text)
        name = free_name(self.head, self.flake.directory, by_itself(text, outputs))
        found: dict[str, str | None] = {name: by_itself(text, outputs)}
        for target in targets:
            found |= self._group(target, name, style, _kept_bindings(text))
        found |= self._rest(targets, name, path, text, outputs)
        return Files(found)

    def _group(self, target: Target, name: str, style: Style, kept: Sequence[str]) -> dict[str, str | None]:
        where = self.directory_of(target.name)
        if inside(where, "flake.nix") in self.head.files:
            what = f"{inside(where, 'flake.nix')} is there already, and hosts of the group are in another flake"
            raise BadInput(target.name, what, "Move them there by hand, or take that file away, and commit.")
        names = self._inputs(target, style)
        inputs = moved_inputs({one: self.flake.inputs[one] for one in names}, self.flake.directory, where)
        lock = moved_lock(some_inputs(self.lock_of(target.name), names), self.flake.directory, where)
        text = group_flake(target, inputs, relative(name, where), kept, whole=style.whole)
        found: dict[str, str | None] = {inside(where, "flake.nix"): text}
        return found | ({inside(where, "flake.lock"): lock.to_text()} if names else {})

    def _inputs(self, target: Target, style: Style) -> tuple[str, ...]:
        if not style.used or any(host not in self.uses for host in target.attributes):
            return tuple(self.flake.inputs)
        used = {name for host in target.attributes for name in self.uses[host]}
        return with_followed(self.flake.inputs, used | self.required)

    def _rest(self, targets: Sequence[Target], name: str, path: str, text: str, outputs: Binding) -> dict[str, str | None]:
        """The one flake afterwards: gone if it had nothing but these hosts; else what is left of it."""
        moved = {host for target in targets for host in target.attributes}
        left = [host for host in self.flake.hosts or () if host not in moved]
        gone: dict[str, str | None] = dict.fromkeys(self.obsolete) if not left else {}
        if not left and set(self.flake.outputs) <= {"nixosConfigurations"}:
            lock = inside(self.flake.directory, "flake.lock")
            return gone | {path: None} | ({lock: None} if lock in self.head.files else {})
        rest = rest_of_outputs(relative(name, self.flake.directory), sorted(moved) if left else None)
        return gone | {path: text[: outputs.start] + rest + text[outputs.end :]}


def outputs_binding(path: str, text: str) -> Binding:
    """Where the outputs function stands in a flake.nix; BadInput if it cannot be told."""
    try:
        found = [binding for binding in bindings(text) if binding.name == "outputs"]
    except SyntaxUnknown:
        found = []
    if len(found) != 1:
        raise BadInput(path, "its outputs are not written as `outputs = FUNCTION;`", "Write them so, and run it again.")
    return found[0]


def _kept_bindings(text: str) -> list[str]:
    """Bindings that each flake has for itself, as they are written."""
    return [text[slice(*binding.whole)] for binding in bindings(text) if binding.name.partition(".")[0] == "nixConfig"]


def free_name(head: Snapshot, directory: str, text: str) -> str:
    """The path of the file that the outputs function goes to: one that is not there yet, or has it already."""
    for name in (inside(directory, name) for name in _NAMES):
        if name not in head.files or head.text(name) == text:
            return name
    raise BadInput(
        inside(directory, _NAMES[0]), "it is there already, where the outputs function would go", "Rename it, and commit."
    )


def group_flake(target: Target, inputs: Mapping[str, Any], outputs: str, kept: Sequence[str], *, whole: bool) -> str:
    """The flake.nix of a group. outputs: the file with the outputs function, as this flake sees it."""
    lines = ["{", f"  description = {nix_string(f'The update group {target.name}')};", ""]
    lines += [*[f"  {text}" for text in kept], ""] if kept else []
    lines += [inputs_text(inputs), ""] if inputs else []
    hosts = [f"          {attribute_name(host)}" for host in target.attributes]
    lines += ["  outputs =", "    inputs:", "    let", *(_WHOLE if whole else _PLAIN), "    in", "    {"]
    lines += ["      nixosConfigurations = {", "        inherit (all.nixosConfigurations)", *hosts, "          ;", "      };"]
    return "\n".join([*lines, "    };", "}", ""]).replace("OUTPUTS", outputs)


_PLAIN = ("      all = import OUTPUTS inputs;",)
_WHOLE = (
    "      # What the hosts call `self` is the whole repository, with all outputs.",
    "      self = inputs.self // all // { inherit (inputs.self.sourceInfo) outPath; };",
    "      all = import OUTPUTS (inputs // { inherit self; });",
)


def rest_of_outputs(outputs: str, moved: Sequence[str] | None) -> str:
    """The outputs of the one flake without these hosts; None: without any."""
    if moved is None:
        return f'inputs: removeAttrs (import {outputs} inputs) [ "nixosConfigurations" ]'
    names = " ".join(map(nix_string, moved))
    return (
        f"inputs:\n    let\n      all = import {outputs} inputs;\n    in\n    all\n    // {{\n"
        f"      # The others are in the flakes of their groups.\n"
        f"      nixosConfigurations = removeAttrs all.nixosConfigurations [ {names} ];\n    }}"
    )
