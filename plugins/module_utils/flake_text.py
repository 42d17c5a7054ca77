# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a group's flake.nix as text: written from a layout, and read again if nobody has edited it.

The layout itself is kept in comments at the file's end, and below them the hash of all before, so that no other file is needed.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import BadInput
from .nix import nix_string
from .update_group import checked_input, checked_name, checked_path

DEFAULT_NIXPKGS = "github:NixOS/nixpkgs/nixos-unstable"

#: What a flake.nix may say of an input: `url`, `inputs` (with `follows`), `flake`, …
Input = Mapping[str, Any]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
_KEYWORDS = frozenset({"assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"})
_MODULE_OF_INPUT = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*(\.[A-Za-z_][A-Za-z0-9_'-]*)+")
_SYSTEM = re.compile(r"[a-z0-9_]+-[a-z0-9_]+")
#: What NixOS takes as networking.hostName.
_HOST_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_NOTE = "# flotilla: "


@dataclass(frozen=True, slots=True)
class HostLayout:
    """A host of a group's flake. system: as in x86_64-linux, None for the group's. modules: see checked_module."""

    name: str
    attribute: str
    modules: tuple[str, ...] = ()
    system: str | None = None


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """What a group's flake.nix says. flake: its directory. modules: those that all of its hosts have.

    hosts_from: the input whose nixosConfigurations the hosts are taken from as they are; None: they are made here.
    """

    name: str
    flake: str
    system: str
    inputs: Mapping[str, Input] = field(default_factory=lambda: {"nixpkgs": {"url": DEFAULT_NIXPKGS}})
    modules: tuple[str, ...] = ()
    hosts: tuple[HostLayout, ...] = ()
    hosts_from: str | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names in nixosConfigurations, sorted."""
        return tuple(sorted(host.attribute for host in self.hosts))


#: Makes the flake.nix of a layout: `built_in`, or a user's template.
Render = Callable[[GroupLayout], str]


def checked_host(name: str, attribute: str | None) -> tuple[str, str]:
    """A host's name and its attribute (its name, where none is given); BadInput if one of them cannot be used."""
    checked_name("host", name)
    if "flake" in (name, attribute):
        raise BadInput("host 'flake'", "its file would be the group's flake.nix", "Give the host another name.")
    return name, checked_name("flake attribute", attribute or name)


def require_label(name: str) -> None:
    """BadInput if NixOS does not take the name for a host, which it has when its configuration is made here."""
    if not _HOST_LABEL.fullmatch(label(name)):
        raise BadInput(
            f"host {name!r}",
            "this is no name that NixOS takes for a host",
            "Use up to 63 letters, digits, `-` and `_`, with a letter or digit first and last; a domain may follow after a dot.",
        )


def label(name: str) -> str:
    """A host's name without its domain."""
    return name.partition(".")[0]


def checked_system(subject: str, system: str) -> str:
    """A platform such as x86_64-linux; BadInput otherwise."""
    if not _SYSTEM.fullmatch(system):
        raise BadInput(subject, f"{system!r} is no system", "Name it as nix does, such as x86_64-linux or aarch64-linux.")
    return system


def checked_module(module: str, inputs: Mapping[str, Input]) -> str:
    """A module: a path in the repository, or an output of an input (`home-manager.nixosModules.default`)."""
    if _is_output(module, inputs):
        return module
    path = checked_path("module", module)
    if path == ".":
        raise BadInput(f"module {module!r}", "this is the whole repository", "Name a file, or a directory with a default.nix.")
    return path


def is_path(module: str, inputs: Mapping[str, Input]) -> bool:
    """Whether a module is a path in the repository."""
    return not _is_output(module, inputs)


def _is_output(module: str, inputs: Mapping[str, Input]) -> bool:
    return bool(_MODULE_OF_INPUT.fullmatch(module)) and module.partition(".")[0] in inputs and not module.endswith(".nix")


def checked_inputs(subject: str, inputs: Mapping[str, Any]) -> dict[str, Input]:
    """Inputs as flake.nix has them; a text stands for its url. BadInput for what no flake can say."""
    found: dict[str, Input] = {}
    for name, value in inputs.items():
        if name == "self":
            raise BadInput(subject, "an input cannot be called self", "Give it another name.")
        spec = {"url": value} if isinstance(value, str) else value
        if not isinstance(spec, Mapping) or not _plain(spec):
            what = f"input {name} has neither a url nor a mapping of url, inputs, follows and flake"
            raise BadInput(subject, what, f"Write it as flake.nix would have it: {{{name}: {{url: …}}}}.")
        found[checked_input(name)] = spec
    return found


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    return isinstance(value, (str, bool, int))


def built_in(layout: GroupLayout) -> str:
    """Our own flake.nix for a group."""
    parts = [
        f"# The update group {layout.name}, written by flotilla.nixos.flake_group. Once edited by hand, it is left alone.",
        "{",
        f"  description = {nix_string(f'Update group {layout.name}')};",
        "",
        inputs_text(layout.inputs),
        "",
        _re_exported(layout) if layout.hosts_from else _made_here(layout),
        "}",
    ]
    return "\n".join(parts) + "\n"


def inputs_text(inputs: Mapping[str, Input]) -> str:
    """The inputs as a flake.nix binds them."""
    lines = ["  inputs = {"]
    for name, spec in inputs.items():
        if set(spec) == {"url"}:
            lines.append(f"    {attribute_name(name)}.url = {nix_string(str(spec['url']))};")
        else:
            lines += [f"    {attribute_name(name)} = {{", *_bindings(spec, "      "), "    };"]
    return "\n".join([*lines, "  };"])


def _bindings(values: Mapping[str, Any], indent: str, path: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        full = f"{path}{attribute_name(name)}"
        if isinstance(value, Mapping):
            lines += _bindings(value, indent, f"{full}.")
        else:
            lines.append(f"{indent}{full} = {_literal(value)};")
    return lines


def _literal(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else nix_string(value)


def _re_exported(layout: GroupLayout) -> str:
    source = attribute_name(layout.hosts_from or "")
    configurations = f"{source}.nixosConfigurations"
    lines = ["  outputs =", f"    {{ {source}, ... }}:", "    {", "      nixosConfigurations = {"]
    for host in layout.hosts:
        name = attribute_name(host.attribute)
        lines.append(f"        {name} = {configurations}.{name};")
    return "\n".join([*lines, "      };", "    };"])


def _made_here(layout: GroupLayout) -> str:
    shared = "\n".join(f"            {_module(module, layout)}" for module in layout.modules)
    lines = [
        "  outputs =",
        "    inputs@{ self, nixpkgs, ... }:",
        "    let",
        "      host =",
        "        name: system: modules:",
        "        nixpkgs.lib.nixosSystem {",
        "          inherit system;",
        "          specialArgs = { inherit inputs self; };",
        "          modules = [",
        "            { networking.hostName = nixpkgs.lib.mkDefault name; }",
        *([shared] if shared else []),
        "          ]",
        "          ++ modules;",
        "        };",
        "    in",
        "    {",
        "      nixosConfigurations = {",
        *(_host_line(host, layout) for host in layout.hosts),
        "      };",
        "    };",
    ]
    return "\n".join(lines)


def _host_line(host: HostLayout, layout: GroupLayout) -> str:
    system = nix_string(host.system or layout.system)
    head = f"        {attribute_name(host.attribute)} = host {nix_string(label(host.name))} {system}"
    modules = [_module(module, layout) for module in host.modules]
    if len(modules) < 2:
        return f"{head} [{''.join(f' {module}' for module in modules)} ];"
    return "\n".join([f"{head} [", *(f"          {module}" for module in modules), "        ];"])


def _module(module: str, layout: GroupLayout) -> str:
    if not is_path(module, layout.inputs):
        return f"inputs.{module}"
    path = relative(module, layout.flake)
    # Nix knows no @ in a path.
    return f'(./. + "/{path}")' if "@" in path else path


def relative(path: str, directory: str) -> str:
    """A path of the repository as seen from one of its directories, as nix writes paths."""
    found = posixpath.relpath(path, directory)
    return found if found.startswith(".") else f"./{found}"


def attribute_name(name: str) -> str:
    """A name as nix takes it on the left of `=` and after a dot."""
    return name if _IDENTIFIER.fullmatch(name) and name not in _KEYWORDS else nix_string(name)


def to_paste(host: HostLayout, layout: GroupLayout) -> str:
    """A host as a person would add it to the nixosConfigurations of a flake of their own."""
    name = attribute_name(host.attribute)
    if layout.hosts_from:
        return f"{name} = {attribute_name(layout.hosts_from)}.nixosConfigurations.{name};"
    modules = [_module(module, layout).replace("inputs.", "", 1) for module in (*layout.modules, *host.modules)]
    lines = [
        f"{name} = nixpkgs.lib.nixosSystem {{",
        f"  system = {nix_string(host.system or layout.system)};",
        "  modules = [",
        f"    {{ networking.hostName = {nix_string(label(host.name))}; }}",
        *(f"    {module}" for module in modules),
        "  ];",
        "};",
    ]
    return "\n".join(lines)


def signed(text: str, layout: GroupLayout) -> str:
    """The text of a flake.nix with its layout and hash below, by which `own_layout` knows it again."""
    body = text.rstrip("\n") + "\n" + "".join(f"{_NOTE}{line}\n" for line in _notes(layout))
    return f"{body}{_NOTE}sha256 {_hash(body)}\n"


def own_layout(text: str, flake: str) -> GroupLayout | None:
    """The layout of a flake.nix that we have written and nobody has edited since; None otherwise. flake: its directory."""
    body, last = _without_last_line(text)
    if last != f"{_NOTE}sha256 {_hash(body)}":
        return None
    try:
        return _from_notes([line.removeprefix(_NOTE) for line in body.splitlines() if line.startswith(_NOTE)], flake)
    except (ValueError, KeyError, TypeError):
        return None


def was_ours(text: str) -> bool:
    """Whether we have written this flake.nix once, before it was edited."""
    return any(line.startswith(f"{_NOTE}sha256 ") for line in text.splitlines())


def _without_last_line(text: str) -> tuple[str, str]:
    lines = text.splitlines(keepends=True)
    return "".join(lines[:-1]), lines[-1].rstrip("\n") if lines else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _notes(layout: GroupLayout) -> list[str]:
    group = {"name": layout.name, "system": layout.system, "inputs": layout.inputs, "modules": layout.modules}
    group |= {"hosts_from": layout.hosts_from} if layout.hosts_from else {}
    return [f"group {json.dumps(group)}", *(f"host {json.dumps(_host_note(host))}" for host in layout.hosts)]


def _host_note(host: HostLayout) -> dict[str, Any]:
    note: dict[str, Any] = {"name": host.name, "modules": host.modules}
    note |= {"attribute": host.attribute} if host.attribute != host.name else {}
    return note | ({"system": host.system} if host.system else {})


def _from_notes(notes: Sequence[str], flake: str) -> GroupLayout:
    kinds = [(kind, json.loads(data)) for kind, _blank, data in (note.partition(" ") for note in notes)]
    [group] = [data for kind, data in kinds if kind == "group"]
    hosts = [
        HostLayout(data["name"], data.get("attribute", data["name"]), tuple(data["modules"]), data.get("system"))
        for kind, data in kinds
        if kind == "host"
    ]
    return GroupLayout(
        group["name"], flake, group["system"], group["inputs"], tuple(group["modules"]), tuple(hosts), group.get("hosts_from")
    )


def for_template(layout: GroupLayout) -> dict[str, Any]:
    """A layout as a template of the user's gets it: names and paths are as nix writes them in that flake.nix."""
    return {
        "name": layout.name,
        "flake": layout.flake,
        "system": layout.system,
        "inputs": {name: dict(spec) for name, spec in layout.inputs.items()},
        "inputs_text": inputs_text(layout.inputs),
        "modules": [_module(module, layout) for module in layout.modules],
        "hosts_from": layout.hosts_from,
        "hosts": [
            {
                "name": host.name,
                "host_name": label(host.name),
                "attribute": attribute_name(host.attribute),
                "system": host.system or layout.system,
                "modules": [_module(module, layout) for module in host.modules],
            }
            for host in layout.hosts
        ],
    }
