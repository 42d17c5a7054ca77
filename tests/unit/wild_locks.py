# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the locks in public repositories, and flakes that nix takes them for complete with."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import Lock, raw_entries

ARCHIVE = Path(__file__).parent / "data/locks/wild.tar.xz"


def wild_texts() -> dict[str, str]:
    """The files of the archive by name, as a runner gives git's output; INDEX.tsv says where each is from."""
    with tarfile.open(ARCHIVE) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read().decode("utf-8", "surrogateescape") for name, file in files.items() if file}


def flake_for(lock: Lock) -> str:
    """A flake.nix with the lock's inputs: what an input follows outside of its own subtree is what flake.nix says."""
    lines = []
    for path, entry in raw_entries(lock).items():
        where = "inputs." + ".inputs.".join(json.dumps(name) for name in path)
        if isinstance(entry, list) and entry[:1] != [path[0]]:
            lines.append(f'  {where}.follows = "{"/".join(entry)}";')
        elif isinstance(entry, dict) and len(path) == 1:
            lines += [f"  {where}.{key} = {_nix(value)};" for key, value in entry["original"].items()]
            lines += [f"  {where}.flake = false;"] if entry.get("flake") is False else []
    return "\n".join(["{", *lines, "  outputs = _: { };", "}", ""])


def _nix(value: Any) -> str:
    return json.dumps(value).replace("${", "\\${")
