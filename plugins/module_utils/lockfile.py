# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: flake.lock as values: pins, what an input reaches, and what differs between two locks.

Format facts: nix's `lockfile.cc`; nix 2.26 to 2.34 read versions 5 to 7 and write 7.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from .errors import BadInput, masked

VERSIONS = (5, 6, 7)
#: First bytes of a file that git-crypt has not unlocked.
_GIT_CRYPT = "\0GITCRYPT\0"
_CONFLICT = ("<<<<<<< ", "=======\n", ">>>>>>> ", "%%%%%%% ", "||||||| ")

#: An input as the names that lead to it from the root: ("nixpkgs",), or ("home-manager", "nixpkgs") for a nested one.
InputPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the graph. inputs: name → key of a node, or the path from the root that it follows (`()` is the root itself).

    Attributes of `locked` and `original` are those of a flake reference.
    """

    inputs: Mapping[str, str | InputPath]
    locked: Mapping[str, Any]
    original: Mapping[str, Any]
    flake: bool = True
    parent: InputPath | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file's graph. `raw` is its JSON, with the keys in the file's order."""

    version: int
    root: str
    nodes: Mapping[str, Node]
    raw: Mapping[str, Any]

    def to_text(self) -> str:
        """The file as nix writes it: byte-identical for a file that nix wrote."""
        return json.dumps(self.raw, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Pin:
    """What an input is locked to. Any field may be missing in a lock: relative paths have none of the last three.

    url: the flake reference without a revision, such as github:NixOS/nixpkgs. last_modified: Unix seconds.
    """

    url: str
    rev: str | None
    ref: str | None
    last_modified: int | None
    nar_hash: str | None

    @property
    def date(self) -> str | None:
        """Day of the pinned revision in UTC, as 2026-11-02; None where the lock has none (0 and 1 are placeholders)."""
        if self.last_modified is None or self.last_modified <= 1:
            return None
        return datetime.fromtimestamp(self.last_modified, UTC).strftime("%Y-%m-%d")

    def age(self, now: float) -> float | None:
        """Days from the pinned revision to `now` (Unix seconds); None where the lock has no date."""
        return None if self.date is None else (now - float(self.last_modified or 0)) / 86400


@dataclass(frozen=True, slots=True)
class Change:
    """An input that two locks pin differently. old None: it is new; new None: it is gone. compare: a page that shows it.

    hosts: for whom, where hosts have locks of their own and it is not for all of them.
    """

    input: str
    old: Pin | None
    new: Pin | None
    compare: str | None
    hosts: tuple[str, ...] = ()


def gone_back(changes: Iterable[Change]) -> tuple[str, ...]:
    """A clause for each of the flake's own inputs whose new pin is older than the one before."""
    pairs = [(change.input, change.old, change.new) for change in changes if "/" not in change.input]
    return tuple(
        f"{name} goes back from {old.date} to {new.date}"
        for name, old, new in pairs
        if old and new and old.date and new.date and (new.last_modified or 0) < (old.last_modified or 0)
    )


def parse_lock(text: str, subject: str, path: str) -> Lock:
    """The lock in a file's text; BadInput that says what is wrong with it. subject: the update group; path: for the message."""
    raw = _json(text, subject, path)
    version = _version(raw, subject, path)
    nodes, root = raw.get("nodes"), raw.get("root")
    if not isinstance(nodes, dict) or not isinstance(root, str) or root not in nodes:
        raise _broken(subject, path, "it has no root node")
    lock = Lock(version, root, {key: _node(node, key, subject, path) for key, node in nodes.items()}, raw)
    _check_edges(lock, subject, path)
    return lock


def _version(raw: Mapping[str, Any], subject: str, path: str) -> int:
    version = raw.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise _broken(
            subject, path, f"it is another program's, as it has version {version!r} and {', '.join(sorted(raw)) or 'nothing'}"
        )
    if version in VERSIONS:
        return version
    fix = (
        "It is of a newer nix than is known here: lock with an older one, or update this collection."
        if version > VERSIONS[-1]
        else "Write it again with a current nix: delete it, run `nix flake lock`, and commit."
    )
    known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
    raise BadInput(subject, f"the lock {path} has version {version!r}, and only {known} can be read", fix)


def _json(text: str, subject: str, path: str) -> dict[str, Any]:
    if not text.strip():
        raise BadInput(subject, f"the lock {path} is empty", "Bring the last good one back: git checkout COMMIT -- FILE.")
    if text.startswith(_GIT_CRYPT):
        raise BadInput(
            subject, f"the lock {path} is encrypted by git-crypt, and nix cannot read it", "Leave lock files out of git-crypt."
        )
    lines = text.splitlines(keepends=True)
    if conflict := next((number for number, line in enumerate(lines, 1) if line.startswith(_CONFLICT)), None):
        raise BadInput(
            subject,
            f"the lock {path} has a merge conflict in it",
            "Take one side (git checkout --ours or --theirs), update the inputs again, and commit. "
            f"The conflict begins at line {conflict}.",
        )
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        begins = "" if text.lstrip().startswith("{") else f" (it begins with {text.split(chr(10))[0][:50]!r})"
        raise _broken(subject, path, f"it is not JSON: {error}{begins}") from error
    if not isinstance(raw, dict):
        raise _broken(subject, path, "it is not a JSON object")
    return raw


def _broken(subject: str, path: str, why: str) -> BadInput:
    return BadInput(
        subject, f"the lock {path} cannot be read: {why}", "Bring the last good one back, or delete it and lock again."
    )


def _node(raw: Any, key: str, subject: str, path: str) -> Node:
    if not isinstance(raw, dict):
        raise _broken(subject, path, f"node {key!r} is not an object")
    inputs: dict[str, str | InputPath] = {}
    for name, edge in _object(raw, "inputs").items():
        if isinstance(edge, str):
            inputs[name] = edge
        elif isinstance(edge, list) and all(isinstance(part, str) for part in edge):
            inputs[name] = tuple(edge)
        else:
            raise _broken(subject, path, f"input {name!r} of node {key!r} is neither a node nor a path")
    parent = raw.get("parent")
    # Version 5 has narHash and lastModified in `info`.
    locked = {**_object(raw, "info"), **_object(raw, "locked")}
    return Node(
        inputs,
        locked,
        _object(raw, "original"),
        raw.get("flake") is not False,
        tuple(parent) if isinstance(parent, list) else None,
    )


def _object(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, dict) else {}


def _check_edges(lock: Lock, subject: str, path: str) -> None:
    """Every edge leads to a node, and the tree of direct edges has an end."""
    for key, node in lock.nodes.items():
        for name, edge in node.inputs.items():
            if isinstance(edge, str) and edge not in lock.nodes:
                raise _broken(subject, path, f"input {name!r} of node {key!r} names the node {edge!r}, which is not there")
            if not isinstance(edge, str) and resolve(lock, edge) is None:
                raise _broken(subject, path, f"input {name!r} of node {key!r} follows {'/'.join(edge)!r}, which is not there")
    try:
        for _entry in _walk(lock, (), lock.root, ()):
            pass
    except _Cycle as cycle:
        raise _broken(subject, path, f"node {cycle.args[0]!r} is an input of itself") from None


def resolve(lock: Lock, path: Sequence[str]) -> str | None:
    """Key of the node that an input path leads to, through whatever its parts follow; None if it leads nowhere."""
    return _resolve(lock, tuple(path), frozenset())


def _resolve(lock: Lock, path: InputPath, seen: frozenset[InputPath]) -> str | None:
    if path in seen:
        return None
    key = lock.root
    for name in path:
        edge = lock.nodes[key].inputs.get(name)
        found = _resolve(lock, edge, seen | {path}) if isinstance(edge, tuple) else edge
        if found is None or found not in lock.nodes:
            return None
        key = found
    return key


def input_paths(names: Collection[str]) -> frozenset[InputPath]:
    """Input paths from names as users write them: `nixpkgs`, `home-manager/nixpkgs`."""
    return frozenset(tuple(name.split("/")) for name in names)


def root_inputs(lock: Lock) -> tuple[str, ...]:
    """Names of the flake's own inputs."""
    return tuple(lock.nodes[lock.root].inputs)


def followed(lock: Lock, path: InputPath) -> InputPath | None:
    """The input path that an input follows, so that it has no pin of its own; None for an input that has one."""
    parent = resolve(lock, path[:-1])
    edge = lock.nodes[parent].inputs.get(path[-1]) if parent else None
    return edge if isinstance(edge, tuple) else None


def pin_of(node: Node) -> Pin:
    """The pin of a node."""
    locked, original = node.locked, node.original
    modified = locked.get("lastModified")
    return Pin(
        url=_url(locked or original),
        rev=_text(locked.get("rev")),
        ref=_text(locked.get("ref")) or _text(original.get("ref")),
        last_modified=modified if isinstance(modified, int) else None,
        nar_hash=_text(locked.get("narHash")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _url(ref: Mapping[str, Any]) -> str:
    """A flake reference without its revision, to be read by people."""
    kind = str(ref.get("type", ""))
    if kind in _FORGES:
        host = f"?host={ref['host']}" if ref.get("host") else ""
        return f"{kind}:{ref.get('owner')}/{ref.get('repo')}{host}"
    if kind == "path":
        return f"path:{ref.get('path')}"
    if kind == "indirect":
        return f"flake:{ref.get('id')}"
    return masked(str(ref.get("url", kind)))


def pins(lock: Lock) -> dict[str, Pin]:
    """The pins of the flake's own inputs, by name; those that follow another input have the other's."""
    found = {name: resolve(lock, (name,)) for name in root_inputs(lock)}
    return {name: pin_of(lock.nodes[key]) for name, key in found.items() if key is not None}


class _Cycle(ValueError):
    """A node that leads to itself by direct edges; args[0] is its key."""


def _walk(lock: Lock, path: InputPath, key: str, above: tuple[str, ...]) -> Iterator[tuple[InputPath, str | InputPath]]:
    """Each input path below a node with the node that it has of its own, or the path that it follows."""
    if key in above:
        raise _Cycle(key)
    for name, edge in lock.nodes[key].inputs.items():
        yield (*path, name), edge
        if isinstance(edge, str):
            yield from _walk(lock, (*path, name), edge, (*above, key))


def reachable(lock: Lock, inputs: Collection[str] | None) -> frozenset[str]:
    """Keys of the nodes below these inputs (None: all) by direct edges: what is followed belongs to another input."""
    wanted = None if inputs is None else input_paths(inputs)
    walk = _walk(lock, (), lock.root, ())
    return frozenset(edge for path, edge in walk if isinstance(edge, str) and (wanted is None or _under(path, wanted)))


def _under(path: InputPath, allowed: Collection[InputPath]) -> bool:
    return any(path[: len(a)] == a for a in allowed)


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two locks, in input paths, so that renamed nodes are no difference.

    changes: pins that moved. touched: every input path that differs in any way, such as by what it follows.
    """

    changes: tuple[Change, ...]
    touched: frozenset[InputPath]

    def outside(self, allowed: Collection[str] | None) -> tuple[str, ...]:
        """Names of the inputs that differ though they are not among the allowed ones and those below them. None allows all."""
        if allowed is None:
            return ()
        wanted = input_paths(allowed)
        return tuple(sorted({"/".join(path) for path in self.touched if not _under(path, wanted)}))


def difference(old: Lock | None, new: Lock) -> Difference:
    """What differs between two locks; None stands for a lock that is not there yet."""
    before, after = _entries(old), _entries(new)
    touched = frozenset(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    changes = (_change(path, before.get(path), after.get(path)) for path in sorted(touched, key=lambda p: (len(p), p)))
    return Difference(tuple(change for change in changes if change), touched)


#: A node without its edges (they are entries of their own), or what is followed.
_Entry = Node | InputPath


def _entries(lock: Lock | None) -> dict[InputPath, _Entry]:
    if lock is None:
        return {}
    walk = _walk(lock, (), lock.root, ())
    return {path: _bare(lock.nodes[edge]) if isinstance(edge, str) else edge for path, edge in walk}


def _bare(node: Node) -> Node:
    return Node({}, normal_reference(node.locked), normal_reference(node.original), node.flake, node.parent)


def normal_reference(ref: Mapping[str, Any]) -> dict[str, Any]:
    """A flake reference without what nix versions write differently for the same thing."""
    same = {key: value for key, value in ref.items() if key != "__final"}
    if isinstance(same.get("ref"), str):
        same["ref"] = same["ref"].removeprefix("refs/heads/")
    return same


def _change(path: InputPath, old: _Entry | None, new: _Entry | None) -> Change | None:
    before = pin_of(old) if isinstance(old, Node) else None
    after = pin_of(new) if isinstance(new, Node) else None
    if before == after:
        return None
    link = compare_link(old.locked, new.locked) if isinstance(old, Node) and isinstance(new, Node) else None
    return Change("/".join(path), before, after, link)


#: Type of a flake reference → its usual host, and the path of a page that shows what lies between two revisions.
_FORGES: Mapping[str, tuple[str, str]] = {
    "github": ("github.com", "compare/{old}...{new}"),
    "gitlab": ("gitlab.com", "-/compare/{old}...{new}"),
    "sourcehut": ("git.sr.ht", "log/{old}..{new}"),
}


def compare_link(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """A page that shows what lies between two locked references; None if there is none, or they are of two repositories."""
    kind = str(new.get("type"))
    same = all(old.get(key) == new.get(key) for key in ("type", "host")) and all(
        str(old.get(key)).lower() == str(new.get(key)).lower() for key in ("owner", "repo")
    )
    if kind not in _FORGES or not same or not old.get("rev") or not new.get("rev") or old["rev"] == new["rev"]:
        return None
    host, page = _FORGES[kind]
    where = f"https://{new.get('host') or host}/{unquote(str(new['owner']))}/{new['repo']}"
    return f"{where}/{page.format(old=old['rev'], new=new['rev'])}"


#: A node's JSON without its edges (they are entries of their own), or what is followed.
RawEntry = dict[str, Any] | list[str]


def merged(base: Lock | None, ours: Lock | None, theirs: Lock | None) -> Lock | None:
    """The three-way merge of locks by input paths; None where both sides have moved one input to different pins.

    Its nodes have names of their own: let nix write it again. None for a lock stands for one that is not there.
    """
    before, mine, yours = raw_entries(base), raw_entries(ours), raw_entries(theirs)
    result: dict[InputPath, RawEntry] = {}
    for path in sorted(before.keys() | mine.keys() | yours.keys()):
        b, m, y = before.get(path), mine.get(path), yours.get(path)
        if m != y and b not in (m, y):
            return None
        entry = y if m == b else m
        if entry is not None:
            result[path] = entry
    kind = theirs or ours
    try:
        return lock_of_entries(result, kind.version) if kind else None
    except BadInput:
        return None


def raw_entries(lock: Lock | None) -> dict[InputPath, RawEntry]:
    """Each input path with its node's JSON or what it follows; `lock_of_entries` is the way back."""
    if lock is None:
        return {}
    found: dict[InputPath, RawEntry] = {}
    for path, edge in _walk(lock, (), lock.root, ()):
        node = lock.raw["nodes"][edge] if isinstance(edge, str) else None
        found[path] = list(edge) if node is None else {key: value for key, value in node.items() if key != "inputs"}
    return found


def lock_of_entries(entries: Mapping[InputPath, RawEntry], version: int) -> Lock:
    """The lock of these entries, its nodes under names of their own; BadInput if one has no parent, or follows nothing."""
    # A node may not be called as the root is, so paths get a slash in front.
    keys = {path: "/" + "/".join(path) for path, entry in entries.items() if isinstance(entry, dict)} | {(): "root"}
    nodes: dict[str, dict[str, Any]] = {key: dict(entries.get(path) or {}) for path, key in keys.items()}  # type: ignore[arg-type]
    for path, entry in entries.items():
        if path[:-1] not in keys:
            raise BadInput("/".join(path), "this input is below one that is not there")
        edge = keys[path] if isinstance(entry, dict) else entry
        nodes[keys[path[:-1]]].setdefault("inputs", {})[path[-1]] = edge
    return parse_lock(json.dumps({"nodes": nodes, "root": "root", "version": version}), "lock", "in memory")
