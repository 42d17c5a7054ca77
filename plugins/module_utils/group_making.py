# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: makes what group_layout plans, once nix has evaluated it, with the locks that new groups need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from . import git, nix, nix_lock
from .builder_files import held, read_file, scratch_dir, write_file
from .errors import BadInput, CommandFailed, FlotillaError
from .evaluation import Evaluation, FlakeSource, attribute_names, evaluate
from .flake_source import inside
from .flake_text import GroupLayout, is_path
from .git_worktree import (
    Changes,
    apply,
    commit_changes,
    ignored,
    kinds,
    nameless_commit,
    require_writable,
    texts_of,
    tracked,
    tree_with_changes,
    under_way,
)
from .group_layout import Found, GroupPlan, Order, Plan, flakes_of, open_work_tree, planned, require_clean, summary
from .lockfile import parse_lock, pins, root_inputs
from .memory import hosts_per_evaluator
from .runner import Runner


@dataclass(frozen=True, slots=True)
class Means:
    """How to make it. owner: see builder_files.held. lock: make locks that are not there yet."""

    owner: str
    check: bool = False
    commit: bool = False
    lock: bool = True
    on_line: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that changes, for a diff: None where it is not there."""

    path: str
    before: str | None
    after: str | None


@dataclass(slots=True)
class Made:
    """What was made, or under check would be. locks: of which groups a lock was made, and whose pins it has ("" for new ones).

    proven: hosts whose derivation was compared with that in another flake.
    """

    plan: Plan
    changes: Changes
    files: list[FileChange] = field(default_factory=list)
    locks: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    proven: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything changes."""
        return bool(self.changes)


def make_groups(
    runner: Runner,
    path: str,
    order: Order,
    means: Means,
    *,
    more: Mapping[str, str] | None = None,
    same_as: str | None = None,
    subject: str | None = None,
) -> Made:
    """Bring the groups of a repository's work tree to what is ordered. more: further files that go with them, by path.

    same_as: the directory of a flake that has the same hosts, whose derivations they must have. subject: that of the commit.
    Raises BadInput for what the user can mend, and CommandFailed where nix or git fail; then nothing was changed.
    """
    repo = open_work_tree(runner, path)
    if means.commit:
        _require_committable(repo)
    with held(runner, path, f"{repo.git_dir}/flotilla/busy/layout", means.owner), scratch_dir(runner, path) as scratch:
        found = flakes_of(repo)
        plan = planned(repo, order, found)
        changes = Changes({**plan.texts(found, order.render), **(more or {})}, plan.moves, tuple(plan.removed))
        made = Made(plan, changes)
        if changes or any(_needs_lock(repo, group) for group in plan.groups):
            require_clean(repo, changes, commit=means.commit)
            require_writable(repo, changes)
            _Proof(repo, found, made, means, scratch, same_as).run()
            _require_seen(repo, made)
            made.files = _file_changes(repo, made.changes)
        if made.changed and not means.check:
            apply(repo, made.changes)
            if means.commit:
                made.commit = commit_changes(repo, made.changes, f"{subject or summary(plan)}\n", scratch)
    return made


def _require_committable(repo: git.Repository) -> None:
    git.require_identity(repo)
    if what := under_way(repo):
        raise BadInput(repo.subject, f"{what} is under way there", "Finish it first, or leave out commit.")


def _needs_lock(repo: git.Repository, group: GroupPlan) -> bool:
    if group.after is None or not group.rendered or not group.after.inputs:
        return False
    return not tracked(repo, inside(group.flake, "flake.lock"))


@dataclass(slots=True)
class _Proof:
    """Has nix look at a commit of what the work tree would be, and adds the locks that it lacks to the changes."""

    repo: git.Repository
    found: Mapping[str, Found]
    made: Made
    means: Means
    scratch: str
    same_as: str | None = None

    def run(self) -> None:
        self._require_syntax()
        commit = self._commit()
        for group in self.made.plan.groups:
            if group.after is not None and group.rendered:
                self._require_modules(commit, group.after)
                self._lock(commit, group)
        for group in self.made.plan.groups:
            if group.after is not None and group.rendered:
                self._require_hosts(commit, group, group.after)
        self._require_moved(commit)
        if self.same_as is not None:
            self._require_same(commit, self.same_as)

    def _require_syntax(self) -> None:
        """The message about a file that is no nix, before others that come of it."""
        for path, text in self.made.changes.texts.items():
            if path.endswith(".nix"):
                nix.require_syntax(self.repo.runner, path, text)

    def _commit(self) -> str:
        base = git.branch_head(self.repo, None) if self.means.commit and git.commit_of(self.repo, "HEAD") else None
        tree = tree_with_changes(self.repo, self.made.changes, self.scratch, base=base)
        return nameless_commit(self.repo, tree)

    def _ref(self, flake: str, commit: str | None) -> str:
        return nix.flake_ref(self.repo.path, flake, commit, shallow=self.repo.shallow)

    def _require_modules(self, commit: str, layout: GroupLayout) -> None:
        """Every module is a file that nix will see."""
        modules = dict.fromkeys(module for modules in (layout.modules, *(h.modules for h in layout.hosts)) for module in modules)
        paths = [module for module in modules if is_path(module, layout.inputs)]
        defaults = [f"{path}/default.nix" for path in paths]
        there = git.entries(self.repo, commit, [*paths, *defaults]) if paths else {}
        missing = [path for path in paths if path not in there and f"{path}/default.nix" not in there]
        if not missing:
            return
        path = missing[0]
        kind = kinds(self.repo, [path])[path]
        if kind == "none":
            raise BadInput(layout.name, f"there is no {path} in {self.repo.path}", "Write it, or correct the module's path.")
        if kind == "directory" and not tracked(self.repo, path):
            raise BadInput(layout.name, f"{path} is not tracked by git, so nix does not see it", f"Run: git add {path}")
        if kind == "directory":
            raise BadInput(layout.name, f"the directory {path} has no default.nix", "Name a file as the module, or write it.")
        if tracked(self.repo, path):
            raise BadInput(layout.name, f"{path} is not committed yet", f"Run: git commit -- {path}")
        raise BadInput(layout.name, f"{path} is not tracked by git, so nix does not see it", f"Run: git add {path}")

    def _lock(self, commit: str, group: GroupPlan) -> None:
        """Add a lock to the changes if the group needs one that it has not, or one for other inputs."""
        layout, path = group.after, inside(group.flake, "flake.lock")
        if layout is None or not layout.inputs:
            return
        there = self._tracked_lock(path)
        if there is not None and group.before and dict(group.before.inputs) == dict(layout.inputs):
            return
        if there is None and not self.means.lock:
            return
        reference, origin = (there, group.name) if there is not None else self._source(group)
        text = self._locked(group, commit, reference)
        if there is None or (there != text):
            self.made.changes = replace(self.made.changes, texts={**self.made.changes.texts, path: text})
            self.made.locks[group.name] = origin
        if there is None and origin and reference is not None and origin != group.name:
            self._require_same_pins(group, reference, text, origin)

    def _tracked_lock(self, path: str) -> str | None:
        if kinds(self.repo, [path])[path] == "none":
            return None
        if not tracked(self.repo, path):
            raise BadInput(self.repo.subject, f"{path} is not tracked by git, so nix does not see it", f"Run: git add {path}")
        return texts_of(self.repo, [path])[path]

    def _source(self, group: GroupPlan) -> tuple[str | None, str]:
        """The lock whose pins a new one gets, and whose it is; "" for that of a group of the same call, made a moment ago."""
        if group.lock_from is not None:
            path = self._lock_path(group.lock_from)
            kind = kinds(self.repo, [path])[path]
            if kind != "file":
                raise BadInput(group.name, f"there is no lock {path} to take its pins from", "Correct lock_from.")
            return texts_of(self.repo, [path])[path], group.lock_from
        for other in self.made.plan.groups:
            path = inside(other.flake, "flake.lock")
            same = other is not group and other.after and group.after and other.after.inputs == group.after.inputs
            if same and other.name in self.made.locks and path in self.made.changes.texts:
                return self.made.changes.texts[path], ""
        return None, ""

    def _lock_path(self, lock_from: str) -> str:
        if lock_from.endswith(".lock"):
            return lock_from
        if lock_from in self.found:
            return inside(lock_from, "flake.lock")
        ours = [one.flake for one in self.found.values() if one.layout and one.layout.name == lock_from]
        return inside(ours[0] if ours else f"hosts/{lock_from}", "flake.lock")

    def _locked(self, group: GroupPlan, commit: str, reference: str | None) -> str:
        """The lock that nix writes for the group's new flake.nix."""
        runner, output = self.repo.runner, f"{self.scratch}/new.lock"
        start = None
        if reference is not None:
            start = f"{self.scratch}/reference.lock"
            write_file(runner, group.name, start, reference)
        ref = self._ref(group.flake, commit)
        nix_lock.lock(runner, group.name, ref, {}, reference=start, output=output, on_line=self.means.on_line)
        return read_file(runner, group.name, output)

    def _require_same_pins(self, group: GroupPlan, source: str, text: str, origin: str) -> None:
        """BadInput if nix gave an input another pin than the lock has that it was to have it from: it does so silently."""
        path = inside(group.flake, "flake.lock")
        old, new = pins(parse_lock(source, group.name, origin)), parse_lock(text, group.name, path)
        moved = [
            name
            for name in root_inputs(new)
            if name in old and (old[name].rev, old[name].nar_hash) != (pins(new)[name].rev, pins(new)[name].nar_hash)
        ]
        if moved:
            raise BadInput(
                group.name,
                f"it cannot have the pins of {origin}: {', '.join(moved)} has another url there",
                "Give it the same inputs, or name another group in lock_from.",
            )

    def _require_hosts(self, commit: str, group: GroupPlan, layout: GroupLayout) -> None:
        """What is written evaluates, and has the hosts that it shall have. Without a lock, its inputs do."""
        texts, path = self.made.changes.texts, inside(group.flake, "flake.lock")
        if layout.inputs and path not in texts and not tracked(self.repo, path):
            flake = texts.get(inside(group.flake, "flake.nix"))
            if flake is not None:
                nix.require_flake_file(self.repo.runner, group.name, flake)
            return
        names = attribute_names(self.repo.runner, self._flake(commit, group))
        missing = [name for name in layout.attributes if name not in names]
        extra = [name for name in names if name not in layout.attributes]
        if missing or extra:
            words = [f"lacks {', '.join(missing)}"] if missing else []
            words += [f"has {', '.join(extra)}, which it shall not have"] if extra else []
            raise BadInput(
                group.name,
                f"what the template makes {' and '.join(words)} in nixosConfigurations",
                "Let it make an attribute for each of `hosts`, named `host.attribute`.",
            )

    def _flake(self, commit: str | None, group: GroupPlan) -> FlakeSource:
        text = self.made.changes.texts.get(inside(group.flake, "flake.lock")) if commit else None
        lock = None
        if text is not None:
            lock = f"{self.scratch}/{group.name}.lock"
            write_file(self.repo.runner, group.name, lock, text)
        return FlakeSource(group.name, group.flake, self._ref(group.flake, commit), commit or "", lock)

    def _require_moved(self, commit: str) -> None:
        """A host that moved evaluates in its new place, if it did in the old: files that it imports may be left behind."""
        for group in self.made.plan.groups:
            if not group.moved or group.after is None or not group.rendered:
                continue
            attributes = {host.attribute: host.name for host in group.after.hosts if host.name in group.moved}
            found = self._evaluated(self._flake(commit, group), list(attributes))
            for attribute, error in found.errors.items():
                origin = next(g for g in self.made.plan.groups if g.name == group.moved[attributes[attribute]])
                if attribute in self._evaluated(self._flake(None, origin), [attribute]).systems:
                    raise CommandFailed(
                        group.name,
                        f"{attributes[attribute]} would not evaluate there as it does in {origin.name}: {error.what}",
                        "Do its files import others that are left behind? Nothing was changed.",
                    ) from error

    def _require_same(self, commit: str, flake: str) -> None:
        """Hosts that another flake of the repository has, too, have the same derivation there, at the same commit."""
        source = FlakeSource(self.repo.subject, flake, self._ref(flake, commit), commit)
        for group in self.made.plan.groups:
            if group.after is None or not group.added:
                continue
            attributes = list(group.after.attributes)
            old, new = self._evaluated(source, attributes), self._evaluated(self._flake(commit, group), attributes)
            for attribute in attributes:
                before, after = old.systems.get(attribute), new.systems.get(attribute)
                if after is None and before is not None:
                    why = new.errors[attribute].what
                    raise CommandFailed(
                        group.name, f"{attribute} evaluates at the top, and not there: {why}", "Nothing was changed."
                    )
                if before and after and before.drv != after.drv:
                    what = f"{attribute} would be another system there: {after.drv} instead of {before.drv}"
                    hint = f"Nothing was changed. See what differs: nix derivation show {before.drv} {after.drv}"
                    raise CommandFailed(group.name, what, hint)
            self.made.proven += [name for name in attributes if name in old.systems]

    def _evaluated(self, source: FlakeSource, attributes: list[str]) -> Evaluation:
        try:
            return evaluate(self.repo.runner, source, attributes, chunk=hosts_per_evaluator(self.repo.runner))
        except FlotillaError as error:
            return Evaluation({}, dict.fromkeys(attributes, error))


def _require_seen(repo: git.Repository, made: Made) -> None:
    """BadInput if git ignores a file that is written: nix would not see it."""
    if hidden := ignored(repo, list(made.changes.texts)):
        what = f"git ignores {', '.join(hidden)}, so nix would not see it"
        raise BadInput(repo.subject, what, "Take it out of .gitignore (git check-ignore -v says where it is).")


def _file_changes(repo: git.Repository, changes: Changes) -> list[FileChange]:
    there = [path for path, kind in kinds(repo, [*changes.texts, *changes.removed]).items() if kind == "file"]
    before = texts_of(repo, there)
    found = [FileChange(path, before.get(path), text) for path, text in changes.texts.items()]
    found += [FileChange(path, before.get(path), None) for path in changes.removed]
    return found + [FileChange(f"{old} → {new}", f"{old}\n", f"{new}\n") for old, new in changes.moves.items()]
