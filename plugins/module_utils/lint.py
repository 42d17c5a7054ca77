# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what of a repository works otherwise than its owner may think, each with the fix."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .errors import BadInput, ConnectionLost, FlotillaError
from .evaluation import FlakeSource, evaluate_values
from .flake_facts import LINK, FlakeFacts, Snapshot, host_names
from .flake_source import inside
from .git_tree import remotes
from .group_info import Problem, input_problems
from .layout import Layout
from .lockfile import Lock, Node, parse_lock, pin_of, resolve, root_inputs
from .memory import hosts_per_evaluator
from .nix import EVALUATION

#: What tells hosts from each other: the default name of NixOS tells nothing.
_HOST = """
  let held = value: let r = builtins.tryEval value; in if r.success then builtins.unsafeDiscardStringContext "${r.value}" else "";
  name = held (c.config.networking.hostName or ""); in {
    name = if name == "nixos" then "" else name;
    release = held (toString (c.pkgs.path or "")) + held (c.config.system.nixos.version or "");
  }"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and the file or flake that it is about."""

    subject: str
    problem: Problem


def lint(layout: Layout, *, evaluate: bool = True, timeout: float = EVALUATION) -> list[Finding]:
    """What is wrong with a repository. evaluate: also ask the hosts for their names."""
    found = [*_repository(layout), *_locks(layout)]
    for flake in layout.flakes.values():
        if flake.hosts or flake.directory in _group_directories(layout):
            found += [Finding(inside(flake.directory, "flake.nix"), problem) for problem in _flake(layout, flake)]
    if evaluate:
        found += _exported_twice(layout, timeout)
    return found


def _group_directories(layout: Layout) -> set[str]:
    return {group.flake for group in layout.groups}


def _warning(what: str, fix: str) -> Problem:
    return Problem(False, what, fix)


def _repository(layout: Layout) -> Iterator[Finding]:
    repo, files = layout.repo, layout.head.files
    if repo.shallow:
        what = "it is a shallow clone, so that older pins and the history that merges need are not there"
        yield Finding(repo.path, _warning(what, "Run: git fetch --unshallow"))
    if layout.head.branch is None:
        yield Finding(
            repo.path, _warning("its HEAD is detached, so that nothing can land", "Set flotilla_branch, or check one out.")
        )
    modules = sorted(path for path, entry in files.items() if entry.kind == "commit")
    root = layout.flakes.get(".")
    if modules and not (root and root.submodules):
        what = f"nix does not look into submodules unless it is told: {', '.join(modules)}"
        fix = "If hosts need them: make them inputs, or (nix 2.27 and newer) set inputs.self.submodules = true in flake.nix."
        yield Finding(".gitmodules", _warning(what, fix))


def _locks(layout: Layout) -> Iterator[Finding]:
    """What is wrong with lock files that are not beside a flake.nix but among those of hosts, and with links."""
    snap = layout.head
    folders = {posixpath.dirname(group.lock) for group in layout.groups if posixpath.basename(group.lock) != "flake.lock"}
    beside = {inside(where, "flake.lock") for where in layout.flakes}
    for path, entry in snap.files.items():
        among = path.endswith(".lock") and posixpath.dirname(path) in folders and posixpath.basename(path) != "flake.lock"
        if (path in beside or among) and entry.mode == LINK:
            what = f"the lock is a symbolic link to {snap.text(path)}, and an update would replace the link"
            yield Finding(path, _warning(what, "Name the file it leads to in flotilla_lock, or make it a file."))
        elif among:
            yield from _broken(snap, path)


def _broken(snap: Snapshot, path: str) -> Iterator[Finding]:
    try:
        parse_lock(snap.text(path) or "", path, path)
    except BadInput as error:
        yield Finding(path, Problem(True, error.what, error.hint))


def _flake(layout: Layout, flake: FlakeFacts) -> Iterator[Problem]:
    if flake.error is not None:
        yield Problem(flake.directory in _group_directories(layout), flake.error.what, flake.error.hint)
    if flake.lock is None:
        return
    if flake.lock.version < 7:
        what = f"its lock has the old version {flake.lock.version}, which the next update writes anew"
        yield _warning(what, "Run nix flake lock with a current nix, and commit, to see that change by itself.")
    own = _own_urls(layout)
    for name in root_inputs(flake.lock):
        edge = flake.lock.nodes[flake.lock.root].inputs[name]
        if isinstance(edge, str):
            node = flake.lock.nodes[edge]
            yield from input_problems(name, node, None, None)
            yield from _self_pinned(layout, name, node, own)
    yield from _copied_pins(layout, flake, flake.lock)


def _own_urls(layout: Layout) -> set[str]:
    """What the repository is called elsewhere, in one spelling."""
    return {plain_url(url) for url in (*remotes(layout.repo).values(), layout.repo.path)}


def plain_url(url: str) -> str:
    """A repository's URL without what spellings of it differ in: `git@github.com:o/r.git` gives `github.com/o/r`."""
    text = re.sub(r"^git\+", "", url.strip()).partition("?")[0]
    text = re.sub(r"^(?:https?|ssh|git|file)://(?:[^@/]*@)?", "", text)
    text = re.sub(r"^[^@/:]+@([^:/]+):", r"\1/", text)
    return re.sub(r"(?:\.git)?/*$", "", text).lower()


_FORGES = {"github": "github.com", "gitlab": "gitlab.com", "sourcehut": "git.sr.ht"}


def _url_of(node: Node) -> str:
    ref = node.original if node.original.get("type") != "indirect" else node.locked
    if ref.get("type") in _FORGES:
        return plain_url(f"{ref.get('host') or _FORGES[str(ref['type'])]}/{ref.get('owner')}/{ref.get('repo')}")
    return plain_url(str(ref.get("url") or ref.get("path") or ""))


def _self_pinned(layout: Layout, name: str, node: Node, own: set[str]) -> Iterator[Problem]:
    if _url_of(node) not in own:
        return
    rev = str(node.locked.get("rev") or "")
    behind = "" if rev == layout.head.commit else f", at commit {rev[:12] or 'unknown'}"
    what = f"the input {name} is this repository itself{behind}, so that hosts get what it had then, not what is committed"
    where = node.locked.get("dir") or "."
    yield _warning(what, f"Make it a path relative to this flake.nix, for the repository's {where}, as in path:../…")


def _copied_pins(layout: Layout, flake: FlakeFacts, lock: Lock) -> Iterator[Problem]:
    """A flake that re-exports others has in its lock a copy of theirs."""
    for name, where in flake.leads_to().items():
        part = layout.flakes.get(where)
        key = resolve(lock, (name,))
        if not part or not part.lock or not key or not set(host_names(part)) & set(host_names(flake)):
            continue
        if not (where.startswith(f"{flake.directory}/") or flake.directory == "."):
            continue
        copied = sorted(inner for inner, edge in lock.nodes[key].inputs.items() if isinstance(edge, str))
        if copied:
            lag = [inner for inner in copied if _pin(lock, name, inner) != _pin(part.lock, inner)]
            now = f", and differs already in {', '.join(lag)}" if lag else ""
            what = f"{inside(flake.directory, 'flake.lock')} has its own copy of the pins of {where} ({', '.join(copied)}){now}: "
            what += f"an update of {inside(where, 'flake.lock')} changes nothing that is deployed through this flake"
            yield _warning(
                what, f"Deploy these hosts from {where}, and leave them out here; or run nix flake update {name} here too."
            )


def _pin(lock: Lock, *path: str) -> str | None:
    key = resolve(lock, path)
    return str(pin_of(lock.nodes[key]).nar_hash) if key else None


@dataclass(frozen=True, slots=True)
class _Export:
    flake: str
    attribute: str
    name: str
    release: str


def _exported_twice(layout: Layout, timeout: float) -> Iterator[Finding]:
    """Hosts that two flakes have; those of wrapped flakes are meant to be there twice."""
    exports: dict[str, list[_Export]] = {}
    for flake in layout.flakes.values():
        if flake.hosts and flake.directory not in layout.wrapped:
            for export in _exports(layout, flake, timeout):
                exports.setdefault(export.name or f"nixosConfigurations.{export.attribute}", []).append(export)
    for host, some in sorted(exports.items()):
        if len({export.flake for export in some}) > 1:
            places = " and ".join(f"{inside(e.flake, 'flake.nix')} as {e.attribute}" for e in some)
            unlike = ", with different nixpkgs" if len({export.release for export in some}) > 1 else ""
            what = f"the host {host.removeprefix('nixosConfigurations.')} is in {len(some)} flakes{unlike}: {places}"
            fix = "Keep it in the one that it is deployed from, so that nobody deploys it from the other."
            yield Finding(host.removeprefix("nixosConfigurations."), _warning(what, fix))


def _exports(layout: Layout, flake: FlakeFacts, timeout: float) -> Iterable[_Export]:
    runner = layout.repo.runner
    source = FlakeSource(flake.directory, flake.directory, flake.ref, layout.head.commit)
    try:
        chunk = hosts_per_evaluator(runner)
        values, _errors = evaluate_values(runner, source, host_names(flake), _HOST, chunk=chunk, timeout=timeout)
    except ConnectionLost:
        raise
    except FlotillaError:
        values = {}
    facts: dict[str, Mapping[str, object]] = {name: values.get(name, {}) for name in host_names(flake)}
    return [
        _Export(flake.directory, name, str(fact.get("name", "")), str(fact.get("release", ""))) for name, fact in facts.items()
    ]
