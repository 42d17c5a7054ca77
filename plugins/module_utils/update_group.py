# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the update group, which is five fields, and the strategies, which are data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .errors import BadInput
from .holds import Hold

#: Stands for each host's name in a `lock`, so that every host of the group has one of its own.
HOST = "{host}"

#: Defaults of the fields by strategy; `{group}` stands for the group's name. No other code may ask for the strategy.
STRATEGIES: Mapping[str, Mapping[str, str]] = {
    "group_flakes": {"flake": "hosts/{group}", "lock": "hosts/{group}/flake.lock"},
    "group_repos": {"flake": ".", "lock": "flake.lock"},
    "group_inputs": {"flake": ".", "lock": "flake.lock"},
    "channel_inputs": {"flake": ".", "lock": "flake.lock"},
    "stage_flakes": {"flake": "hosts/{group}", "lock": "hosts/{group}/flake.lock"},
    "group_branches": {"branch": "{group}", "flake": ".", "lock": "flake.lock"},
    "host_locks": {"flake": ".", "lock": f"locks/{HOST}.lock"},
}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PATH_PART = re.compile(r"[A-Za-z0-9_.+@-]+")
_INPUT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.'-]*")
_BRANCH_PART = re.compile(r"[A-Za-z0-9_+@=#%][A-Za-z0-9_.+@=#%-]*")


def lock_for_each_host(strategy: str | None, lock: str | None) -> bool:
    """Whether these fields of an update group (None: not given) make a lock for each of its hosts."""
    return HOST in (lock or STRATEGIES.get(strategy or "", {}).get("lock", ""))


@dataclass(frozen=True, slots=True)
class Member:
    """A host of an update group: its inventory name, and its attribute in the flake's nixosConfigurations."""

    name: str
    attribute: str


@dataclass(frozen=True, slots=True)
class UpdateGroup:
    """Where an update group's lock lives and what may move in it.

    repo: path of a git work tree or bare repository on the builder. branch: the branch that takes updates, None for the
    one that HEAD names. flake, lock: paths in the repository; a lock with HOST in it is one for each member. inputs: names
    of the flake's inputs that an update may move, None for all. holds: what of it is to stay where it is.
    """

    name: str
    repo: str
    branch: str | None
    flake: str
    lock: str
    inputs: tuple[str, ...] | None
    members: tuple[Member, ...] = ()
    holds: tuple[Hold, ...] = ()

    @property
    def per_host(self) -> bool:
        """Whether each member has a lock of its own."""
        return HOST in self.lock

    def lock_of(self, member: Member) -> str:
        """The path of the lock that this member's system is made with."""
        return self.lock.replace(HOST, member.name)

    def parts(self) -> tuple[UpdateGroup, ...]:
        """The group for each of its locks, with the members that have it: itself, unless each member has its own.

        BadInput if these are not known.
        """
        if not self.per_host:
            return (self,)
        if not self.members:
            raise BadInput(
                self.name, f"each host has a lock of its own ({self.lock}), and no host is named", "Name the group's hosts."
            )
        by_lock: dict[str, list[Member]] = {}
        for member in self.members:
            by_lock.setdefault(self.lock_of(member), []).append(member)
        return tuple(self.with_lock(lock, members) for lock, members in by_lock.items())

    def with_lock(self, lock: str, members: Sequence[Member] | None = None) -> UpdateGroup:
        """The group as if it had this one lock, and these members (None: its own)."""
        return replace(self, lock=lock, members=self.members if members is None else tuple(members))

    @property
    def locks(self) -> tuple[str, ...]:
        """The paths of the locks of its members."""
        return tuple(dict.fromkeys(map(self.lock_of, self.members))) if self.per_host else (self.lock,)

    def shares_lock(self, other: UpdateGroup) -> bool:
        """Whether one path in their repositories is a lock of both."""
        return not set(self.locks).isdisjoint(other.locks)

    def owns(self, path: str) -> bool:
        """Whether the path is a lock of the group: of one of its members, or of any host where none is named."""
        if self.per_host and not self.members:
            pattern = re.escape(self.lock).replace(re.escape(HOST), f"(?P<host>{_NAME.pattern})", 1)
            return re.fullmatch(pattern.replace(re.escape(HOST), "(?P=host)"), path) is not None
        return path in self.locks


def checked_name(kind: str, name: str) -> str:
    """The name itself if it is safe in paths, refs and nix expressions; BadInput with the fix otherwise."""
    if not _NAME.fullmatch(name) or ".." in name or name.endswith(".lock"):
        raise BadInput(
            f"{kind} {name!r}",
            "this name cannot be used in a path, a git ref and a flake attribute",
            "Use letters, digits, `_`, `.`, `+` and `-`, not beginning with a dash or dot, without `..`.",
        )
    return name


def checked_path(field: str, path: str, *, per_host: bool = False) -> str:
    """A path inside a repository, normalised (`./a//b/` gives `a/b`, `` gives `.`); BadInput if it could lead out of it.

    per_host: HOST may be in it.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    plain = [part.replace(HOST, "host") if per_host else part for part in parts]
    bad = next((p for p in plain if p == ".." or p.startswith("-") or not _PATH_PART.fullmatch(p)), None)
    if path.startswith("/") or bad is not None:
        raise BadInput(
            f"{field} {path!r}",
            "this is not a plain path inside the repository",
            "Give a path relative to the repository's top, of letters, digits, `_`, `.`, `+`, `@` and `-`, without `..`.",
        )
    return "/".join(parts) or "."


def checked_lock(path: str, group: str) -> str:
    """The path of a group's lock, normalised, with `{group}` filled in; HOST stays. BadInput if it could lead out."""
    filled = path.replace("{group}", group)
    unknown = re.search(r"\{[\w ]*\}", filled.replace(HOST, ""))
    if unknown:
        raise BadInput(
            f"lock {path!r}",
            f"there is no placeholder {unknown[0]}",
            f"Use {HOST} for a lock per host and {{group}} for one per update group.",
        )
    return checked_path("lock", filled, per_host=True)


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
    holds: Sequence[Hold] = (),
) -> UpdateGroup:
    """The update group of that name: the strategy's defaults, with any field given here in their place."""
    checked_name("update group", name)
    if strategy not in STRATEGIES:
        raise BadInput(name, f"there is no strategy {strategy!r}", f"Choose one of {', '.join(STRATEGIES)}.")
    preset = {field: value.replace("{group}", name) for field, value in STRATEGIES[strategy].items()}
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
        lock=checked_lock(lock if lock is not None else default_lock, name),
        inputs=tuple(map(checked_input, inputs)) if inputs is not None else None,
        members=tuple(members),
        holds=tuple(replace(hold, input=checked_input(hold.input)) if hold.input else hold for hold in holds),
    )
