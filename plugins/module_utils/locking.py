# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: one locking of one group's flake at one commit: what may move, nix's part, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from . import git, nix_lock
from .builder_files import read_file, write_file
from .errors import BadInput, CommandFailed
from .flake_source import inside
from .holding import Kept
from .lockfile import Lock, difference, followed, input_paths, parse_lock, resolve, root_inputs
from .nix import flake_ref
from .runner import Runner
from .update_group import UpdateGroup, checked_input

#: Stands for all inputs that the group may move.
ALL = "*"


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall move: `inputs` to their newest revision, `pins` (input → revision, branch, tag or flake reference) to those.

    inputs None: all that the group may move; or none but the pins if there are any. `*` among them: all, pins or not.
    kept: what must not move, whatever else is said.
    """

    inputs: tuple[str, ...] | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)

    def within(self, group: UpdateGroup) -> Wish:
        """The wish with the group's inputs filled in, None for all; BadInput if it goes beyond what the group may move."""
        inputs = self.inputs if self.inputs is not None else (() if self.pins else group.inputs)
        inputs = group.inputs if inputs and ALL in inputs else inputs
        if inputs is None:
            return Wish(None, self.pins)
        for name in (*inputs, *self.pins):
            require_allowed(group, checked_input(name))
        if not inputs and not self.pins:
            raise BadInput(group.name, "the list of inputs is empty, so none may move", "Name some, or leave it out.")
        return Wish(tuple(dict.fromkeys(name for name in inputs if name not in self.pins)), self.pins)

    @property
    def asked(self) -> tuple[str, ...]:
        """The inputs that are asked for by name."""
        return (*(name for name in self.inputs or () if name != ALL), *self.pins)

    def moving(self, lock: Lock) -> tuple[str, ...]:
        """The inputs of this lock that shall move to their newest revision."""
        return self.kept.free(root_inputs(lock) if self.inputs is None else self.inputs)

    @property
    def named(self) -> tuple[str, ...] | None:
        """All inputs that may move; None for any."""
        return None if self.inputs is None else (*self.inputs, *self.pins)


def require_allowed(group: UpdateGroup, name: str) -> None:
    """BadInput if the group may not move this input."""
    path = tuple(name.split("/"))
    if group.inputs is not None and not any(path[: len(a)] == a for a in input_paths(group.inputs)):
        raise BadInput(
            group.name,
            f"input {name} is not one that this group may move",
            f"Choose of {', '.join(group.inputs)}, or extend flotilla_inputs.",
        )


@dataclass(frozen=True, slots=True)
class Locking:
    """One locking of one group's flake at a commit. scratch: a directory on the builder.

    answers: what upstreams have said in this run: `original` of an input as JSON → flake reference at a revision. Inputs
    found there are put at that revision, and new answers are added: no upstream is asked twice, and groups get the same.
    """

    repo: git.Repository
    group: UpdateGroup
    commit: str
    scratch: str
    answers: dict[str, str]
    on_line: Callable[[str], None] | None = None

    @property
    def _for_nix(self) -> tuple[Runner, str, str]:
        # The commit by git, not a copy of the directory: flakes import files above themselves, and nothing uncommitted gets in.
        ref = flake_ref(self.repo.path, self.group.flake, self.commit, shallow=self.repo.shallow)
        return self.repo.runner, self.group.name, ref

    def locked(self, old: Lock | None, wish: Wish) -> str:
        """The text of the new lock: nix takes it as complete, and nothing moved in it but what the wish names.

        wish: what Wish.within gave.
        """
        reference = None if old is None else self._write("old.lock", old)
        self._check_names(old, wish.named or (), reference)
        pinned = {name: self._pinned(old, name, wanted) for name, wanted in wish.pins.items()}
        shared = self._shared(old, wish)
        new = self._run(old, wish, {**shared, **pinned}, reference)
        if old is not None and any(_original(new, name) != _original(old, name) for name in shared):
            # flake.nix names other upstreams than the lock does, so that the shared answers were to other questions.
            new = self._run(old, wish, pinned, reference)
        if old is None:
            new = self._as_others(new)
        self._check_result(old, new, wish)
        for name in wish.moving(new):
            self._learn(new, name)
        return new.to_text()

    def as_written_by_nix(self, lock: Lock) -> Lock:
        """The same lock with nix's names of nodes; CommandFailed if nix would change more of it than these."""
        found = self.rewritten(lock)
        if difference(lock, found).touched:
            raise CommandFailed(
                self.group.name, f"nix does not accept the merged {self.group.lock}", "Discard it and update again."
            )
        return found

    def rewritten(self, lock: Lock, *, offline: bool = False) -> Lock:
        """What nix writes when it is given a lock: nodes under its own names, and whatever flake.nix makes it change."""
        output = f"{self.scratch}/canonical.lock"
        nix_lock.lock(*self._for_nix, {}, reference=self._write("merged.lock", lock), output=output, offline=offline)
        text = read_file(self.repo.runner, self.group.name, output)
        return parse_lock(text, self.group.name, f"{self.group.lock} that nix wrote")

    def complete(self, lock: Lock, *, offline: bool = False) -> bool:
        """Whether nix would leave the lock as it is for the flake as it is."""
        return nix_lock.is_complete(*self._for_nix, self._write("checked.lock", lock), offline=offline)

    def require_complete(self, lock: Lock, why: str, hint: str) -> None:
        """CommandFailed if nix would change the lock for the flake as it is."""
        if not self.complete(lock):
            raise CommandFailed(self.group.name, why, hint)

    def _write(self, name: str, lock: Lock) -> str:
        path = f"{self.scratch}/{name}"
        write_file(self.repo.runner, self.group.name, path, lock.to_text())
        return path

    def _check_names(self, old: Lock | None, names: Sequence[str], reference: str | None) -> None:
        """Every name is an input with a pin of its own: to nix, unknown names and followers are a success."""
        if old is None or reference is None:
            return
        for name in names:
            path = tuple(name.split("/"))
            if (target := followed(old, path)) is not None:
                hint = f"Name {'/'.join(target)} instead." if target else ""
                raise BadInput(self.group.name, f"input {name} follows another and has no pin of its own", hint)
            # A lock that lags behind flake.nix cannot know its newest inputs: then the result tells.
            if resolve(old, path) is None and nix_lock.is_complete(*self._for_nix, reference):
                raise self._unknown(name, old)

    def _unknown(self, name: str, lock: Lock) -> BadInput:
        flake = inside(self.group.flake, "flake.nix")
        return BadInput(
            self.group.name, f"{flake} has no input {name!r}", f"Its inputs are {', '.join(root_inputs(lock)) or 'none'}."
        )

    def _pinned(self, old: Lock | None, name: str, wanted: str) -> str:
        key = resolve(old, name.split("/")) if old else None
        if old is None or key is None:
            raise BadInput(
                self.group.name,
                f"input {name} is not locked yet, so that it cannot be put at a revision",
                "Update it first, or name the revision in flake.nix.",
            )
        return nix_lock.pinned(self.group.name, name, old.nodes[key], wanted)

    def _shared(self, old: Lock | None, wish: Wish) -> dict[str, str]:
        """Of the inputs that move, those whose upstream has answered in this run already."""
        if old is None:
            return {}
        names = wish.moving(old)
        found = {name: self.answers.get(original) for name in names if (original := _original(old, name))}
        return {name: ref for name, ref in found.items() if ref}

    def _as_others(self, first: Lock) -> Lock:
        """A first lock with the revisions that other locks of this run have got, if they are others than it has."""
        shared = self._shared(first, Wish())
        for name in list(shared):
            key = resolve(first, (name,))
            if key is not None and nix_lock.shared_reference(first.nodes[key]) == shared[name]:
                del shared[name]
        return self._run(first, Wish(()), shared, self._write("first.lock", first)) if shared else first

    def _learn(self, new: Lock, name: str) -> None:
        original, key = _original(new, name), resolve(new, name.split("/"))
        reference = nix_lock.shared_reference(new.nodes[key]) if key else None
        if original and reference:
            self.answers.setdefault(original, reference)

    def _run(self, old: Lock | None, wish: Wish, overrides: Mapping[str, str], reference: str | None) -> Lock:
        """Let nix update what moves and has no override, then put the overrides in place."""
        output = f"{self.scratch}/new.lock"
        rest = wish.inputs
        if (overrides or wish.kept.paths) and old is not None:
            names = wish.moving(old)
            rest = tuple(name for name in names if name not in overrides and followed(old, tuple(name.split("/"))) is None)
        if rest is None or rest:
            nix_lock.update(*self._for_nix, rest or (), reference=reference, output=output, on_line=self.on_line)
            reference = output
        if overrides or output != reference:
            output = f"{self.scratch}/pinned.lock"
            nix_lock.lock(*self._for_nix, overrides, reference=reference, output=output, on_line=self.on_line)
        text = read_file(self.repo.runner, self.group.name, output)
        return parse_lock(text, self.group.name, f"{self.group.lock} that nix wrote")

    def _check_result(self, old: Lock | None, new: Lock, wish: Wish) -> None:
        for name in wish.named or ():
            if resolve(new, name.split("/")) is None:
                raise self._unknown(name, new)
        outside = difference(old, new).outside(wish.named) if old is not None else ()
        if old is not None and (moved := wish.kept.moved(difference(old, new))):
            what = f"the update would move {', '.join(moved)}, which must not move"
            raise CommandFailed(self.group.name, what, "Name the inputs to update, without those that bring it along.")
        if outside:
            raise BadInput(
                self.group.name,
                f"the update would change more than {', '.join(wish.named or ())}: {', '.join(outside)}",
                "flake.nix has other inputs than the lock: lock them first (nix flake lock), and commit.",
            )
        self.require_complete(new, "nix does not accept the lock that it wrote", "Run `nix flake lock` by hand.")


def _original(lock: Lock, name: str) -> str | None:
    """What flake.nix says of an input, as a key to compare by; None for one that has no pin of its own."""
    path = tuple(name.split("/"))
    key = resolve(lock, path)
    return json.dumps(lock.nodes[key].original, sort_keys=True) if key and followed(lock, path) is None else None
