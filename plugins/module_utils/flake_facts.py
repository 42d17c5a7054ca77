# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what each flake of a repository is, by asking nix: its inputs, its outputs, its hosts, its lock."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import git, nix_flake
from .builder_files import write_file
from .errors import BadInput, ConnectionLost, FlotillaError
from .evaluation import CONFIGURATIONS, attribute_names
from .flake_source import flake_source, inside
from .git_tree import Tracked, tracked
from .lockfile import Lock, parse_lock
from .nix import EVALUATION, flake_ref
from .update_group import UpdateGroup, checked_path

LINK = "120000"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A commit of a repository with its files. branch: the one that it is the head of, None for a detached HEAD."""

    repo: git.Repository
    branch: str | None
    commit: str
    files: Mapping[str, Tracked]

    def text(self, path: str) -> str | None:
        """A file's text; None if there is no such file."""
        found = self.files.get(path)
        return git.show(self.repo, found.object) if found and found.kind == "blob" else None


def snapshot(repo: git.Repository, branch: str | None, commit: str) -> Snapshot:
    """A commit with its files."""
    return Snapshot(repo, branch, commit, tracked(repo, commit))


@dataclass(slots=True)
class FlakeFacts:
    """A flake of a repository at a commit.

    inputs: as flake.nix declares them. submodules: whether it asks nix for the repository's submodules. outputs: their names.
    hosts: names in nixosConfigurations; None where nix could not say, then error says why. ref: the flake at the commit.
    """

    directory: str
    ref: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    submodules: bool = False
    outputs: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = ()
    lock: Lock | None = None
    lock_text: str | None = None
    error: FlotillaError | None = None
    is_flake: bool = True

    def leads_to(self) -> dict[str, str]:
        """Inputs that are directories of the same repository by relative paths: name → directory."""
        found = {name: relative_target(self.directory, declared) for name, declared in self.inputs.items()}
        return {name: where for name, where in found.items() if where is not None}


def relative_path(declared: Mapping[str, Any]) -> str | None:
    """The relative path of a declared input, None if it is none."""
    url = str(declared.get("url") or "")
    path = str(declared.get("path") or "") if declared.get("type") == "path" else url.removeprefix("path:").partition("?")[0]
    relative = path.startswith((".", "..")) and (url == "" or url.startswith(("path:", ".")))
    return path if relative else None


def relative_target(directory: str, declared: Mapping[str, Any]) -> str | None:
    """The repository's directory that a declared input of a flake is, None if it is none or leads out."""
    path = relative_path(declared)
    if path is None:
        return None
    target = posixpath.normpath(posixpath.join("." if directory == "." else directory, path))
    return None if target.startswith("..") else target


def look(snap: Snapshot, directory: str, scratch: str, *, timeout: float = EVALUATION) -> FlakeFacts:
    """The flake in a directory. What is wrong with it is in it; raises ConnectionLost alone."""
    facts = FlakeFacts(directory)
    try:
        _fill(snap, facts, scratch, timeout)
    except ConnectionLost:
        raise
    except FlotillaError as error:
        facts.error, facts.hosts = error, None
    return facts


def _fill(snap: Snapshot, facts: FlakeFacts, scratch: str, timeout: float) -> None:
    runner, where = snap.repo.runner, checked_path("flake", facts.directory)
    label = inside(where, "flake.nix")
    facts.ref = flake_ref(snap.repo.path, where, snap.commit, shallow=snap.repo.shallow)
    file = f"{scratch}/flake.nix"
    write_file(runner, label, file, snap.text(label) or "")
    try:
        declared = nix_flake.declared_inputs(runner, label, file)
        facts.inputs = {name: value for name, value in declared.items() if name != "self"}
        facts.submodules = declared.get("self", {}).get("submodules") is True
    except FlotillaError:
        # A NixOS module, a template with holes, or a broken one: nothing that a rollout could take.
        facts.is_flake = False
        raise
    lock_path = inside(where, "flake.lock")
    text = facts.lock_text = snap.text(lock_path)
    facts.lock = parse_lock(text, label, lock_path) if text is not None else None
    group = UpdateGroup("flake", snap.repo.path, None, where, lock_path, None)
    with flake_source(snap.repo, group, snap.commit) as source:
        facts.outputs = nix_flake.output_names(runner, label, source.ref, timeout=timeout)
        facts.hosts = attribute_names(runner, source, timeout=timeout) if CONFIGURATIONS in facts.outputs else ()


def host_names(facts: FlakeFacts) -> tuple[str, ...]:
    """The hosts that are known."""
    return facts.hosts or ()


def other_locks(snap: Snapshot, inputs: Mapping[str, Any]) -> dict[str, Lock]:
    """Locks of the commit, by path, that are beside no flake.nix and are for a flake with these inputs."""
    found = {}
    for path, entry in snap.files.items():
        directory, _slash, name = path.rpartition("/")
        flakes_own = name == "flake.lock" and inside(directory or ".", "flake.nix") in snap.files
        if not name.endswith(".lock") or flakes_own or entry.kind != "blob" or entry.mode == LINK:
            continue
        try:
            lock = parse_lock(snap.text(path) or "", path, path)
        except BadInput:
            continue
        if set(lock.nodes[lock.root].inputs) == set(inputs):
            found[path] = lock
    return found
