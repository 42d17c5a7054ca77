# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: derivations as nix shows them, in one shape for all its versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .nix import nix_argv, nix_string
from .runner import Runner, checked

_STORE = "/nix/store/"


@dataclass(frozen=True, slots=True)
class Derivation:
    """A derivation. needs: store paths of the derivations that it needs; sources: those of plain files. env: as nix has it."""

    path: str
    name: str
    builder: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    needs: frozenset[str]
    sources: frozenset[str]


def derivations(runner: Runner, subject: str, paths: Iterable[str]) -> dict[str, Derivation]:
    """These derivations, by their store paths."""
    result = runner.run(nix_argv("derivation", "show", "--stdin"), stdin="".join(f"{path}\n" for path in paths), timeout=300)
    shown = json.loads(checked(result, subject, "looking at the derivations failed").stdout)
    # Since 2.32 or so they are one level deeper, and store paths have no directory.
    raw: Mapping[str, Any] = shown.get("derivations", shown)
    return {_whole(path): _derivation(_whole(path), value) for path, value in raw.items()}


def _derivation(path: str, raw: Mapping[str, Any]) -> Derivation:
    inputs = raw.get("inputs", {})
    env = raw.get("env") or {}
    extra = raw.get("structuredAttrs")
    return Derivation(
        path,
        str(raw.get("name") or path.removesuffix(".drv").partition("-")[2]),
        str(raw.get("builder", "")),
        tuple(map(str, raw.get("args", ()))),
        {**{key: str(value) for key, value in env.items()}, **({"__json": json.dumps(extra, sort_keys=True)} if extra else {})},
        frozenset(map(_whole, inputs.get("drvs", raw.get("inputDrvs", {})))),
        frozenset(map(_whole, inputs.get("srcs", raw.get("inputSrcs", ())))),
    )


def _whole(path: str) -> str:
    return path if path.startswith("/") else _STORE + path


def source_facts(runner: Runner, subject: str, ref: str) -> dict[str, str]:
    """What a configuration can know of the commit that it is made from: revision, dates, hash, store path.

    ref: a flake reference with a revision.
    """
    names = ("rev", "shortRev", "lastModified", "lastModifiedDate", "narHash", "outPath")
    # As a list: a set with an outPath would be given as that alone.
    expression = (
        f"let s = (builtins.getFlake {nix_string(ref)}).sourceInfo; in "
        f'map (name: toString (s.${{name}} or "")) [ {" ".join(map(nix_string, names))} ]'
    )
    result = runner.run(nix_argv("eval", "--json", "--expr", expression), timeout=300)
    found = json.loads(checked(result, subject, "looking at the commit's source failed").stdout)
    return {name: str(value) for name, value in zip(names, found, strict=True) if value}
