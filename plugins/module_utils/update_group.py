# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the update group, which is five fields, and the strategies, which are data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import BadInput

#: Defaults of the fields by strategy; `{group}` stands for the group's name. No other code may ask for the strategy.
STRATEGIES: Mapping[str, Mapping[str, str]] = {
    "group_flakes": {"flake": "hosts/{group}", "lock": "hosts/{group}/flake.lock"},
    "group_repos": {"flake": ".", "lock": "flake.lock"},
    "group_inputs": {"flake": ".", "lock": "flake.lock"},
    "channel_inputs": {"flake": ".", "lock": "flake.lock"},
    "stage_flakes": {"flake": "hosts/{group}", "lock": "hosts/{group}/flake.lock"},
    "group_branches": {"branch": "{group}", "flake": ".", "lock": "flake.lock"},
    "host_locks": {"flake": ".", "lock": "locks/{group}.lock"},
}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PATH_PART = re.compile(r"[A-Za-z0-9_.+@-]+")
_INPUT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.'-]*")
_BRANCH_PART = re.compile(r"[A-Za-z0-9_+@=#%][A-Za-z0-9_.+@=#%-]*")


@dataclass(frozen=True, slots=True)
class Member:
    """A host of an update group: its inventory name, and its attribute in the flake's nixosConfigurations."""

    name: str
    attribute: str


@dataclass(frozen=True, slots=True)
class UpdateGroup:
    """Where an update group's lock lives and what may move in it.

    repo: path of a git work tree or bare repository on the builder. branch: the branch that takes updates, None for the
    one that HEAD names. flake, lock: paths in the repository. inputs: names of the flake's inputs that an update
    may move, None for all.
    """

    name: str
    repo: str
    branch: str | None
    flake: str
    lock: str
    inputs: tuple[str, ...] | None
    members: tuple[Member, ...] = ()


def checked_name(kind: str, name: str) -> str:
    """The name itself if it is safe in paths, refs and nix expressions; BadInput with the fix otherwise."""
    if not _NAME.fullmatch(name) or ".." in name or name.endswith(".lock"):
        raise BadInput(
            f"{kind} {name!r}",
            "this name cannot be used in a path, a git ref and a flake attribute",
            "Use letters, digits, `_`, `.`, `+` and `-`, not beginning with a dash or dot, without `..`.",
        )
    return name


def checked_path(field: str, path: str) -> str:
    """A path inside a repository, normalised (`./a//b/` gives `a/b`, `` gives `.`); BadInput if it could lead out of it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    bad = next((p for p in parts if p == ".." or p.startswith("-") or not _PATH_PART.fullmatch(p)), None)
    if path.startswith("/") or bad is not None:
        raise BadInput(
            f"{field} {path!r}",
            "this is not a plain path inside the repository",
            "Give a path relative to the repository's top, of letters, digits, `_`, `.`, `+`, `@` and `-`, without `..`.",
        )
    return "/".join(parts) or "."


def checked_input(name: str) -> str:
    """An input's name, or the path to a nested one (`home-manager/nixpkgs`), safe on a command line; BadInput otherwise."""
    if not all(_INPUT.fullmatch(part) for part in name.split("/")):
        raise BadInput(
            f"input {name!r}",
            "this is not the name of an input",
            "Use the name that flake.nix has under `inputs`; with slashes for a nested one, as in home-manager/nixpkgs.",
        )
    return name


def checked_branch(name: str) -> str:
    """A branch's short name that git takes; BadInput otherwise."""
    parts = name.split("/")
    if not all(_BRANCH_PART.fullmatch(p) and ".." not in p and not p.endswith((".", ".lock")) for p in parts) or name == "HEAD":
        raise BadInput(
            f"branch {name!r}",
            "this is not the name of a branch",
            "Give its short name, such as main, of letters, digits and `_.+@=#%-`, not beginning with a dash or dot.",
        )
    return name


def checked_repo(path: str) -> str:
    """An absolute path to a repository; BadInput otherwise."""
    if not path.startswith("/") or ".." in path.split("/") or any(ord(c) < 32 for c in path):
        raise BadInput(
            f"repository {path!r}",
            "this is not the absolute path of a repository on the builder",
            "Give it from the root on and without `..`, as in /srv/fleet.",
        )
    return path.rstrip("/") or "/"


def update_group(
    name: str,
    repo: str,
    *,
    strategy: str = "group_flakes",
    branch: str | None = None,
    flake: str | None = None,
    lock: str | None = None,
    inputs: Sequence[str] | None = None,
    members: Sequence[Member] = (),
) -> UpdateGroup:
    """The update group of that name: the strategy's defaults, with any field given here in their place."""
    checked_name("update group", name)
    if strategy not in STRATEGIES:
        raise BadInput(name, f"there is no strategy {strategy!r}", f"Choose one of {', '.join(STRATEGIES)}.")
    preset = {field: value.format(group=name) for field, value in STRATEGIES[strategy].items()}
    where = checked_path("flake", flake if flake is not None else preset["flake"])
    # A flake that was moved by hand takes its lock along, unless the strategy keeps locks elsewhere.
    beside = "flake.lock" if where == "." else f"{where}/flake.lock"
    default_lock = beside if preset["lock"].endswith("flake.lock") else preset["lock"]
    for member in members:
        checked_name("host", member.name)
        checked_name("flake attribute", member.attribute)
    on_branch = branch or preset.get("branch")
    return UpdateGroup(
        name=name,
        repo=checked_repo(repo),
        branch=checked_branch(on_branch) if on_branch else None,
        flake=where,
        lock=checked_path("lock", lock if lock is not None else default_lock),
        inputs=tuple(map(checked_input, inputs)) if inputs is not None else None,
        members=tuple(members),
    )
