# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: moves a repository to another strategy: a commit, proven host by host, and landed if it holds.

The work tree and the index are touched by the landing alone, which fast-forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import git, nix_flake
from .builder_files import held, scratch_dir, write_file
from .errors import BadInput, CommandFailed, FlotillaError
from .evaluation import HostSystem
from .flake_facts import FlakeFacts
from .flake_source import inside
from .git_tree import changed_tree
from .layout import SINGLE, Layout, LayoutGroup, recognise
from .lockfile import Lock, difference, parse_lock
from .locking import Locking
from .memory import hosts_per_evaluator
from .migration import Files, Others, Target, Wish, is_there, lock_of, others, place, proposal, summary, targets
from .migration_join import Join
from .migration_locks import same_pins
from .migration_proof import Look, Proof, explained, proofs, systems
from .migration_split import STYLES, Split
from .nix import EVALUATION, flake_ref
from .runner import Runner
from .update_group import UpdateGroup

#: Hosts whose difference is looked into: the others mostly differ for the same reason.
_EXPLAINED = 5


@dataclass(frozen=True, slots=True)
class Means:
    """How to do it. owner: see builder_files.held. allow_revision: land though systems differ by the commit's own name."""

    owner: str
    check: bool = False
    allow_revision: bool = False
    timeout: float = EVALUATION
    progress: Callable[[str], None] = lambda _line: None


@dataclass(slots=True)
class Migration:
    """What came of it. groups: as they are then. commit: the commit that was proven, None where nothing is to be done.

    files: path → text before and after, None where there is none. proofs: of every host; without a group, if it is not moved.
    """

    layout: Layout
    to: str
    groups: list[LayoutGroup]
    commit: str | None = None
    files: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    proofs: list[Proof] = field(default_factory=list)
    allowed: bool = True
    landed: bool = False
    message: str = ""

    @property
    def differing(self) -> list[Proof]:
        """Hosts that would not be the same."""
        return [proof for proof in self.proofs if not proof.same]


def migrate(runner: Runner, path: str, wish: Wish, means: Means) -> Migration:
    """Move a repository's groups to another strategy. What differs is in the result, and then nothing was landed.

    BadInput for what the user can mend, CommandFailed where nix or git fail; then nothing was changed.
    """
    layout = recognise(runner, path, timeout=means.timeout)
    found = targets(layout, wish)
    todo = [target for target in found if not is_there(layout, target, wish.to)]
    there = [proposal(next(iter(t.sources.values())).group, wish.to) for t in found if t not in todo]
    if not todo:
        return Migration(layout, wish.to, there)
    repo = layout.repo
    if layout.head.branch is None:
        raise BadInput(repo.path, "its HEAD is detached, so there is no branch to land on", "Check a branch out.")
    git.require_identity(repo)
    with held(runner, path, f"{repo.git_dir}/flotilla/busy/layout", means.owner), scratch_dir(runner, path) as scratch:
        done = _Mover(layout, wish.to, todo, means, scratch, others(layout, wish, todo)).moved()
        done.groups = [*there, *done.groups]
        if not means.check and done.allowed:
            _land(repo, layout, done, means.owner)
    return done


@dataclass(frozen=True, slots=True)
class _Mover:
    layout: Layout
    to: str
    targets: Sequence[Target]
    means: Means
    scratch: str
    others: Others

    @property
    def repo(self) -> git.Repository:
        return self.layout.repo

    def moved(self) -> Migration:
        """The commit, with the proofs: of the way to write it that leaves most hosts the same."""
        look = Look(hosts_per_evaluator(self.repo.runner), self.means.timeout, self.means.progress)
        before, errors = systems(self.repo, self._places_now(), look)
        for host, error in errors.items():
            if host in self.others.attributes:
                continue
            what = f"it does not evaluate as it is, so that nothing can be compared: {error.what}"
            raise BadInput(host, what, "Mend it, or leave it out of flotilla_groups.")
        best: Migration | None = None
        seen = []
        for files in self._ways():
            if files.texts in seen:
                continue
            seen.append(files.texts)
            tried = self._tried(files, before, look)
            if best is None or len(tried.differing) < len(best.differing):
                best = tried
            if not best.differing:
                break
        if best is None:
            raise AssertionError
        best.proofs = self._explained(best)
        revision_only = all(proof.only_commit for proof in best.differing)
        best.allowed = not best.differing or (revision_only and self.means.allow_revision)
        return best

    # -- before ---------------------------------------------------------------------------------------------------------------

    def _sources(self) -> Iterator[tuple[Target, str, UpdateGroup, str]]:
        """Each host with the group, of its own lock and alone, and the commit that it is made from now."""
        for target in self.targets:
            for host, source in target.sources.items():
                group = lock_of(source, host)
                yield target, host, group, git.branch_head(self.repo, group.branch) if group.branch else self.layout.head.commit

    def _places_now(self) -> list[tuple[UpdateGroup, str]]:
        moved = [(group, commit) for _target, _host, group, commit in self._sources()]
        return moved + [(group, self.layout.head.commit) for group in self.others.groups]

    def _locks(self, target: Target | None = None) -> dict[str, Lock]:
        """The lock of each host (of one group) now."""
        found = {}
        for of, host, group, commit in self._sources():
            if target is None or of is target:
                entry = git.entries(self.repo, commit, [group.lock]).get(group.lock)
                text = git.show(self.repo, entry.blob) if entry else '{"nodes": {"root": {}}, "root": "root", "version": 7}'
                found[host] = parse_lock(text, group.name, group.lock)
        return found

    def _lock(self, target: Target) -> Lock:
        locks = self._locks(target)
        fix = "Give them groups of their own in flotilla_groups, or update them to the same pins first."
        same_pins(target.name, locks, "a group's flake has one lock", fix)
        return next(iter(locks.values()))

    # -- after ----------------------------------------------------------------------------------------------------------------

    def _ways(self) -> Iterator[Files]:
        """Ways to write it, the one that reads best first."""
        directories = dict.fromkeys(group.flake for _target, _host, group, _commit in self._sources())
        flakes = {directory: self._flake(directory) for directory in directories}
        if len(flakes) == 1:
            [flake] = flakes.values()
            yield from self._split(flake) if self.to == "group_flakes" else [self._locks_of(flake)]
        elif self.to == "group_flakes":
            raise BadInput(
                self.repo.path,
                f"its hosts are in several flakes: {', '.join(flakes)}",
                "Name in flotilla_groups the groups of one of them at a time.",
            )
        else:
            yield from self._joined(Join(self.layout.head, flakes))

    def _flake(self, directory: str) -> FlakeFacts:
        flake = self.layout.flakes.get(directory)
        if flake is None or flake.hosts is None:
            raise (flake.error if flake else None) or BadInput(directory, "there is no flake", "Name its directory.")
        return flake

    def _split(self, flake: FlakeFacts) -> Iterator[Files]:
        locks = {group.lock for _target, _host, group, _commit in self._sources()}
        obsolete = tuple(sorted(lock for lock in locks if lock != inside(flake.directory, "flake.lock")))
        split = Split(
            self.layout.head,
            flake,
            self.layout.uses,
            self._required(flake),
            {target.name: self._lock(target) for target in self.targets}.__getitem__,
            {target.name: place(target, self.to, self.repo.path).flake for target in self.targets}.__getitem__,
            tuple(path for path in obsolete if path in self.layout.head.files),
        )
        return (split.files(self.targets, style) for style in STYLES)

    def _required(self, flake: FlakeFacts) -> frozenset[str]:
        path, file = inside(flake.directory, "flake.nix"), f"{self.scratch}/flake.nix"
        write_file(self.repo.runner, path, file, self.layout.head.text(path) or "")
        found = nix_flake.formals(self.repo.runner, path, file)
        return frozenset(name for name, optional in found.items() if not optional)

    def _locks_of(self, flake: FlakeFacts) -> Files:
        """The flake stays as it is, and its hosts get other locks."""
        locks = self._locks()
        if self.to == SINGLE:
            self._require_same(locks)
            own = {group.lock for _target, _host, group, _commit in self._sources()}
            texts: dict[str, str | None] = dict.fromkeys(path for path in own if path in self.layout.head.files)
            return Files(texts | {inside(flake.directory, "flake.lock"): next(iter(locks.values())).to_text()})
        found: dict[str, str | None] = {}
        for group in self._places_then():
            found[group.lock] = locks[group.members[0].attribute].to_text()
        return Files(found)

    def _require_same(self, locks: Mapping[str, Lock]) -> None:
        same_pins(self.repo.path, locks, "one lock has one pin of each", "Update or promote them to the same first.")

    def _joined(self, join: Join) -> Iterator[Files]:
        directory_of = {host: group.flake for _target, host, group, _commit in self._sources()}
        if self.to == SINGLE:
            self._require_same(self._locks())
        for whole in (False, True):
            texts = dict(join.files(whole=whole).texts)
            texts["flake.lock"] = join.lock(next(iter(join.flakes), ".")).to_text()
            for group in self._places_then():
                texts[group.lock] = join.lock(directory_of[group.members[0].attribute]).to_text()
            yield Files(texts)

    def _places_then(self) -> list[UpdateGroup]:
        return [part for group in self._groups_then() for part in group.parts()]

    def _groups_then(self) -> list[UpdateGroup]:
        directories = {group.flake for _target, _host, group, _commit in self._sources()}
        flake = next(iter(directories)) if len(directories) == 1 else "."
        return [place(target, self.to, self.repo.path, flake) for target in self.targets]

    # -- the commit, and its proof --------------------------------------------------------------------------------------------

    def _tried(self, files: Files, before: Mapping[str, HostSystem], look: Look) -> Migration:
        texts = {path: text for path, text in files.texts.items() if text != self.layout.head.text(path)}
        self._require_clean(texts)
        self._require_kept(texts, before)
        base = self.layout.head.commit
        commit = self._commit(base, texts, summary(self.to, self.targets))
        texts |= self._canonical(texts, commit)
        groups = self._groups_then()
        message = self._message(texts)
        commit = self._commit(base, texts, message)
        kept = [group for group in self.others.groups if group.members[0].attribute in before]
        after = systems(self.repo, [(part, commit) for group in (*groups, *kept) for part in group.parts()], look)
        of = {host: target.name for target in self.targets for host in target.attributes}
        of |= {group.members[0].attribute: "" for group in kept}
        shown = {path: (self.layout.head.text(path), text) for path, text in sorted(texts.items())}
        proposals = [proposal(group, self.to) for group in groups]
        found = proofs(of, before, after)
        return Migration(self.layout, self.to, proposals, commit, shown, found, message=message.partition("\n")[0])

    def _commit(self, base: str, texts: Mapping[str, str | None], message: str) -> str:
        return git.commit_tree(self.repo, changed_tree(self.repo, base, texts, self.scratch), (base,), message)

    def _message(self, texts: Mapping[str, str | None]) -> str:
        hosts = ", ".join(host for target in self.targets for host in target.attributes)
        gone = [path for path, text in texts.items() if text is None]
        body = f"The systems of {hosts} are made from the same derivations before and after."
        return f"{summary(self.to, self.targets)}\n\n{body}\n" + (f"Not needed any more: {', '.join(gone)}.\n" if gone else "")

    def _canonical(self, texts: Mapping[str, str | None], commit: str) -> dict[str, str]:
        """New locks as nix writes them; BadInput if it would change more than the names of nodes."""
        found: dict[str, str] = {}
        written: dict[tuple[str, str], str] = {}
        flakes = {group.lock: group.flake for group in self._places_then()}
        for path, text in texts.items():
            directory = flakes.get(path) or path.rpartition("/")[0] or "."
            if text is None or not path.endswith(".lock"):
                continue
            if (directory, text) not in written:
                group = UpdateGroup(path, self.repo.path, None, directory, path, None)
                written[directory, text] = self._as_nix_writes(group, commit, parse_lock(text, path, path))
            found[path] = written[directory, text]
        return found

    def _as_nix_writes(self, group: UpdateGroup, commit: str, lock: Lock) -> str:
        locking = Locking(self.repo, group, commit, self.scratch, {})
        try:
            new = locking.rewritten(lock, offline=True)
        except CommandFailed:
            new = locking.rewritten(lock)
        if moved := sorted({"/".join(path) for path in difference(lock, new).touched}):
            what = f"nix would lock anew {', '.join(moved)}, as the lock now does not fit its flake.nix"
            raise BadInput(group.lock, what, "Lock and commit what flake.nix says first.")
        return new.to_text()

    def _require_clean(self, texts: Mapping[str, str | None]) -> None:
        worktree = git.worktree_of(self.repo, self.layout.head.branch)
        dirty = git.dirty_files(self.repo, list(texts), worktree=worktree, ignored=True) if worktree and texts else ()
        if dirty:
            names = ", ".join(file.path for file in dirty)
            raise BadInput(
                self.repo.path, f"files are in the way that are not committed: {names}", "Commit them, or move them away."
            )

    def _require_kept(self, texts: Mapping[str, str | None], before: Mapping[str, HostSystem]) -> None:
        """BadInput for hosts of no group that would be left without their flake or lock, or with pins that nothing compares."""
        gone = {path for path, text in texts.items() if text is None}
        lost = {
            group.members[0].attribute: path
            for group in self.others.groups
            for path in (group.lock, inside(group.flake, "flake.nix"))
            if path in gone or (path == group.lock and path in texts and group.members[0].attribute not in before)
        }
        if path := next((path for path in texts if path in self.others.locks), None):
            lost |= dict.fromkeys(self.others.unplaced, path)
        if lost:
            files = ", ".join(dict.fromkeys(lost.values()))
            what = f"{', '.join(lost)} would lose the files that they may be made with ({files}), and no group that is moved"
            what += " has these hosts"
            raise BadInput(self.repo.path, what, "Name them in flotilla_groups, too.")

    def _explained(self, done: Migration) -> list[Proof]:
        refs = {group.members[0].attribute: (group, commit) for group, commit in self._places_now()}
        after = {member.attribute: group for group in (*self._groups_then(), *self.others.groups) for member in group.members}
        known: dict[str, Mapping[str, str]] = {}
        found, count = [], 0
        for proof in done.proofs:
            if proof.same or proof.after is None or (count >= _EXPLAINED and not self.means.allow_revision):
                found.append(proof)
                continue
            count += 1
            group, commit = refs[proof.host]
            pair = (self._ref(group, commit), self._ref(after[proof.host], done.commit or ""))
            found.append(explained(self.repo, proof, pair, known))
        return [self._with_branch(proof, refs) for proof in found]

    def _ref(self, group: UpdateGroup, commit: str) -> str:
        return flake_ref(self.repo.path, group.flake, commit, shallow=self.repo.shallow)

    def _with_branch(self, proof: Proof, refs: Mapping[str, tuple[UpdateGroup, str]]) -> Proof:
        """Says too in which files a host's own branch differs from the one that all would be on."""
        _group, commit = refs[proof.host]
        if proof.same or commit == self.layout.head.commit:
            return proof
        paths = [path for path in git.changed_paths(self.repo, commit, self.layout.head.commit) if not path.endswith(".lock")]
        if not paths:
            return proof
        branch = refs[proof.host][0].branch
        why = f"{proof.why}; branch {branch} differs from {self.layout.head.branch} in {', '.join(paths[:10])}".lstrip("; ")
        return Proof(proof.host, proof.group, proof.before, proof.after, why, proof.only_commit)


def _land(repo: git.Repository, layout: Layout, done: Migration, owner: str) -> None:
    """Bring the branch to the commit; CommandFailed if it has moved meanwhile, and then it is as it was."""
    branch, commit = layout.head.branch, done.commit
    if branch is None or commit is None:
        raise AssertionError
    with held(repo.runner, repo.path, f"{repo.git_dir}/flotilla/landing", owner):
        if git.branch_head(repo, branch) != layout.head.commit:
            raise CommandFailed(repo.path, f"branch {branch} has moved meanwhile", "Run it again.")
        worktree = git.worktree_of(repo, branch)
        if worktree is None:
            moved = git.update_ref(repo, f"refs/heads/{branch}", commit, layout.head.commit, "flotilla: migrate")
            if not moved:
                raise CommandFailed(repo.path, f"branch {branch} has moved meanwhile", "Run it again.")
        else:
            result = git.fast_forward(repo, worktree, commit)
            if result.status != 0:
                what = f"branch {branch} could not be brought to {commit[:12]}: {result.stderr.strip()[-500:]}"
                raise CommandFailed(repo.path, what, "Clear what git names, and run it again.", result=result)
    done.landed = True


def failure_of(done: Migration) -> FlotillaError | None:
    """The error for a migration that would change hosts."""
    if done.allowed:
        return None
    hosts = ", ".join(proof.host for proof in done.differing)
    why = " ".join(f"{proof.host}: {proof.why}." for proof in done.differing if proof.why)
    only = all(proof.only_commit for proof in done.differing)
    fix = "Allow that with flotilla_allow_revision=true." if only else "Mend that, or move these hosts by hand."
    if outside := [proof.host for proof in done.differing if not proof.group]:
        what = "is in no group that is" if len(outside) == 1 else "are in no group that is"
        why = f"{why.rstrip('.')}{'. ' if why else ''}{', '.join(outside)} {what} moved."
        fix = fix if only else "Name them in flotilla_groups, too, or update all to the same pins first."
    what = f"{hosts} would not be the same afterwards, so nothing was landed. {why}".rstrip(".")
    return BadInput(done.layout.repo.path, what, fix)
