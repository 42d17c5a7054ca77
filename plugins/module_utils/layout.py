# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: recognises how a repository keeps its groups' locks, by what nix says of its flakes.

Names of strategies are what it answers with; what they mean stands in update_group.STRATEGIES alone.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from . import git, git_tree, nix_flake
from .builder_files import scratch_dir
from .errors import ConnectionLost, FlotillaError
from .flake_facts import FlakeFacts, Snapshot, host_names, look, other_locks, snapshot
from .flake_source import inside
from .input_use import grouped_by_use
from .lockfile import Lock, resolve, root_inputs
from .nix import EVALUATION
from .runner import Runner
from .update_group import HOST, update_group

#: One flake with one lock for all: a layout that has no strategy yet.
SINGLE = "single"
#: No flake with hosts at all.
NONE = "none"
MIXED = "mixed"
#: Branches of a repository that are looked into.
_BRANCHES = 40
#: What people call the rings of a fleet.
_RING = re.compile(
    r"(^|[/_-])(canary|early|stable|prod(uction)?|stag(e|ing)|beta|edge|deploy(ed)?|rollout|fleet|hosts?)([/_-]|$)"
)
#: The group that the hosts of a single flake are in, for lack of any other name.
_ALL = "fleet"


class Certainty(StrEnum):
    """How sure an answer is."""

    SURE = "sure"
    LIKELY = "likely"
    GUESS = "guess"


@dataclass(frozen=True, slots=True)
class LayoutGroup:
    """An update group of a repository. strategy: of the table, or SINGLE. hosts: attributes; None where no flake says it.

    Fields as in UpdateGroup. remote: the URL of the group's own repository.
    """

    name: str
    strategy: str
    certainty: Certainty
    evidence: tuple[str, ...]
    hosts: tuple[str, ...] | None = None
    branch: str | None = None
    flake: str = "."
    lock: str = "flake.lock"
    inputs: tuple[str, ...] | None = None
    remote: str | None = None

    def variables(self) -> dict[str, Any]:
        """The inventory variables that say so: those in which it differs from its strategy's defaults."""
        found: dict[str, Any] = {"flotilla_update_group": self.name}
        preset = self.strategy if self.strategy != SINGLE else "group_flakes"
        if preset != "group_flakes":
            found["flotilla_strategy"] = preset
        if self.remote:
            found["flotilla_repo"] = self.remote
        usual = update_group(self.name, "/", strategy=preset)
        if self.branch is not None and self.branch != usual.branch:
            found["flotilla_branch"] = self.branch
        if self.flake != usual.flake:
            found["flotilla_flake"] = self.flake
        if self.lock != update_group(self.name, "/", strategy=preset, flake=self.flake).lock:
            found["flotilla_lock"] = self.lock
        if self.inputs is not None:
            found["flotilla_inputs"] = list(self.inputs)
        return found


@dataclass(slots=True)
class Layout:
    """What a repository is. strategy: of the table, or SINGLE, NONE, MIXED. flakes: every flake of the commit, by directory."""

    repo: git.Repository
    head: Snapshot
    strategy: str
    groups: tuple[LayoutGroup, ...]
    flakes: dict[str, FlakeFacts]
    #: Flakes whose hosts others re-export from below: they are in both on purpose.
    wrapped: frozenset[str] = frozenset()
    evidence: tuple[str, ...] = ()
    advice: str = ""
    uses: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def certainty(self) -> Certainty:
        """That of the group of which least is known."""
        order = list(Certainty)
        return max((group.certainty for group in self.groups), key=order.index, default=Certainty.SURE)


def recognise(runner: Runner, path: str, *, evaluate: bool = True, timeout: float = EVALUATION) -> Layout:
    """Look at a repository at its head, and at the heads of its branches, which stay as they are.

    evaluate: also evaluate the hosts of a flake with several inputs, to see which inputs each uses.
    """
    repo = git.open_repository(runner, path, path)
    branch = git.current_branch(repo)
    head = snapshot(repo, branch, git.branch_head(repo, None))
    with scratch_dir(runner, path) as scratch:
        directories = sorted(git.flake_dirs(repo, head.commit))
        flakes = {directory: look(head, directory, scratch, timeout=timeout) for directory in directories}
        return _Recogniser(head, flakes, scratch, evaluate, timeout).layout()


@dataclass(slots=True)
class _Recogniser:
    """One look at one repository."""

    head: Snapshot
    flakes: dict[str, FlakeFacts]
    scratch: str
    evaluate: bool
    timeout: float
    uses: dict[str, frozenset[str]] = field(default_factory=dict)

    def layout(self) -> Layout:
        with_hosts = [flake for flake in self.flakes.values() if flake.hosts]
        wrappers = {flake.directory: main for flake in with_hosts if (main := self._wrapped(flake))}
        collectors = {flake.directory: parts for flake in with_hosts if (parts := self._collected(flake))}
        groups = [self._stage(self.flakes[where], main) for where, main in wrappers.items()]
        taken = set(wrappers.values()) | set(wrappers)
        seen = {host for where in wrappers for host in host_names(self.flakes[where])}
        plain = [f for f in with_hosts if f.directory not in taken and f.directory not in collectors]
        unknown = [f for f in self.flakes.values() if f.hosts is None and self._could_be_group(f)]
        if len(plain) == 1 and not wrappers and not collectors and not unknown and not _is_group_directory(plain[0].directory):
            groups += self._one_flake(plain[0], None)
        else:
            groups += [self._of_plain(flake, [*plain, *unknown]) for flake in plain if flake.directory != "."]
            groups += [self._unknown(flake) for flake in unknown if flake.directory != "."]
            seen |= {host for flake in plain if flake.directory != "." for host in host_names(flake)}
            for flake in (*(self.flakes[main] for main in sorted({*wrappers.values(), *collectors})), *plain):
                rest = tuple(host for host in host_names(flake) if host not in seen)
                if rest and (flake.directory == "." or flake not in plain):
                    groups += self._one_flake(flake, rest)
        return self._answer(groups, frozenset(wrappers.values()))

    def _answer(self, groups: Sequence[LayoutGroup], wrapped: frozenset[str]) -> Layout:
        groups = tuple(_with_names_of_their_own(groups))
        strategies = sorted({group.strategy for group in groups})
        strategy = NONE if not groups else strategies[0] if len(strategies) == 1 else MIXED
        evidence = [f"{len(self.flakes)} flakes at {self.head.commit[:12]}: {', '.join(self.flakes) or 'none'}"]
        evidence += [f"{inside(f.directory, 'flake.nix')}: {f.error}" for f in self.flakes.values() if f.error]
        return Layout(
            self.head.repo,
            self.head,
            strategy,
            groups,
            self.flakes,
            wrapped,
            tuple(evidence),
            _advice(strategy, groups),
            self.uses,
        )

    def _wrapped(self, flake: FlakeFacts) -> str | None:
        """The directory of the flake whose hosts this one re-exports from above or beside itself."""
        for where in flake.leads_to().values():
            main = self.flakes.get(where)
            if (
                main
                and main is not flake
                and not _below(where, flake.directory)
                and set(host_names(flake)) <= set(host_names(main))
            ):
                return where
        return None

    def _collected(self, flake: FlakeFacts) -> tuple[str, ...]:
        """Directories below this flake's whose hosts it re-exports."""
        found = []
        for where in flake.leads_to().values():
            part = self.flakes.get(where)
            if part and _below(where, flake.directory) and set(host_names(part)) & set(host_names(flake)):
                found.append(where)
        return tuple(found)

    def _could_be_group(self, flake: FlakeFacts) -> bool:
        """Whether a flake that nix cannot evaluate looks like one of hosts, by where it is."""
        return flake.is_flake and (flake.directory == "." or _is_group_directory(flake.directory))

    def _stage(self, flake: FlakeFacts, main: str) -> LayoutGroup:
        name = next(name for name, where in flake.leads_to().items() if where == main)
        of = inside(main, "flake.nix")
        has = ", ".join(host_names(flake))
        evidence = (f"{inside(flake.directory, 'flake.nix')} has {of} as its input {name} and re-exports of its hosts: {has}",)
        return self._in_directory(flake, "stage_flakes", Certainty.SURE, evidence)

    def _of_plain(self, flake: FlakeFacts, all_of_them: Sequence[FlakeFacts]) -> LayoutGroup:
        certainty = Certainty.SURE if len(all_of_them) > 1 else Certainty.LIKELY
        has = ", ".join(host_names(flake))
        evidence = (f"{inside(flake.directory, 'flake.nix')} has nixosConfigurations and a lock of its own: {has}",)
        return self._in_directory(flake, "group_flakes", certainty, evidence)

    def _unknown(self, flake: FlakeFacts) -> LayoutGroup:
        evidence = (f"{inside(flake.directory, 'flake.nix')} could not be evaluated, and is where a group's flake would be",)
        return self._in_directory(flake, "group_flakes", Certainty.GUESS, evidence)

    def _in_directory(self, flake: FlakeFacts, strategy: str, certainty: Certainty, evidence: tuple[str, ...]) -> LayoutGroup:
        name = _name(flake.directory)
        lock = inside(flake.directory, "flake.lock")
        return LayoutGroup(name, strategy, certainty, evidence, flake.hosts, flake=flake.directory, lock=lock)

    # -- one flake for several groups ---------------------------------------------------------------------------------------

    def _one_flake(self, flake: FlakeFacts, hosts: tuple[str, ...] | None) -> list[LayoutGroup]:
        """The groups of a flake that has hosts of several, or of one (hosts: only these of it)."""
        has = hosts if hosts is not None else host_names(flake)
        return (
            self._by_locks(flake, has)
            or self._by_branches(flake, has)
            or self._by_repositories(flake, has)
            or self._by_inputs(flake, has)
            or [self._single(flake, has)]
        )

    def _single(self, flake: FlakeFacts, hosts: tuple[str, ...]) -> LayoutGroup:
        lock = inside(flake.directory, "flake.lock")
        evidence = (
            f"{inside(flake.directory, 'flake.nix')} has all of these hosts, and {lock} is the lock of all: {', '.join(hosts)}",
        )
        return LayoutGroup(_ALL, SINGLE, Certainty.SURE, evidence, hosts, flake=flake.directory, lock=lock)

    def _by_locks(self, flake: FlakeFacts, hosts: tuple[str, ...]) -> list[LayoutGroup]:
        locks = other_locks(self.head, flake.inputs)
        stems = {path: posixpath.basename(path).removesuffix(".lock") for path in locks}
        own = {path: stem for path, stem in stems.items() if stem in hosts}
        groups = []
        for directory in sorted({posixpath.dirname(path) for path in own}):
            mine = tuple(sorted(stem for path, stem in own.items() if posixpath.dirname(path) == directory))
            lock = inside(directory or ".", f"{HOST}.lock")
            why = (f"{len(mine)} locks fit {inside(flake.directory, 'flake.nix')} and are named after its hosts: {lock}",)
            groups.append(LayoutGroup("hosts", "host_locks", Certainty.SURE, why, mine, flake=flake.directory, lock=lock))
        for path, stem in sorted(stems.items()):
            if path not in own:
                why = (
                    f"{path} fits the inputs of {inside(flake.directory, 'flake.nix')}; which hosts use it stands in no flake",
                )
                groups.append(LayoutGroup(stem, "host_locks", Certainty.LIKELY, why, None, flake=flake.directory, lock=path))
        rest = tuple(host for host in hosts if host not in own.values())
        if own and rest:
            groups += self._by_branches(flake, rest, least=1) or [self._single(flake, rest)]
        return groups

    def _by_branches(self, flake: FlakeFacts, hosts: tuple[str, ...], *, least: int = 2) -> list[LayoutGroup]:
        """A group for each branch that has nothing but locks of its own: two at least, or they are named after hosts."""
        found = []
        for branch in git_tree.branches(self.head.repo)[:_BRANCHES]:
            if branch.name == self.head.branch or not self._only_locks_differ(branch):
                continue
            there = look(
                snapshot(self.head.repo, branch.name, branch.commit), flake.directory, self.scratch, timeout=self.timeout
            )
            if there.hosts or (there.hosts is None and there.is_flake):
                found.append((branch, there))
        of_hosts = [branch for branch, _there in found if branch.name in hosts]
        telling = [b for b, there in found if _RING.search(b.name) or b.name in hosts or there.lock_text != flake.lock_text]
        if len(telling if least > 1 else found) < least and not of_hosts:
            return []
        alone = len(found) == 1 and hosts != flake.hosts
        return [self._on_branch(flake, branch, _of_branch(branch, there, hosts, alone=alone)) for branch, there in found]

    def _only_locks_differ(self, branch: git_tree.Branch) -> bool:
        """Whether the branch has nothing of its own but locks since it left the head's history."""
        repo = self.head.repo
        try:
            base = git.merge_base(repo, self.head.commit, branch.commit)
        except FlotillaError:
            return False
        return all(path.endswith(".lock") for path in git.changed_paths(repo, base, branch.commit))

    def _on_branch(self, flake: FlakeFacts, branch: git_tree.Branch, mine: tuple[str, ...] | None) -> LayoutGroup:
        certainty = Certainty.SURE if mine else Certainty.LIKELY if _RING.search(branch.name) else Certainty.GUESS
        where = f"{branch.remote}/{branch.name}" if branch.remote else branch.name
        why = [f"branch {where} has the same flake, and since it left {self.head.branch or 'HEAD'} only locks have changed on it"]
        if branch.remote:
            why.append(f"it is not here yet: git branch {branch.name} {where}")
        if mine is None:
            why.append("which hosts follow it stands in no flake")
        lock = inside(flake.directory, "flake.lock")
        name = _plain(branch.name)
        return LayoutGroup(
            name, "group_branches", certainty, tuple(why), mine, branch=branch.name, flake=flake.directory, lock=lock
        )

    def _by_repositories(self, flake: FlakeFacts, hosts: tuple[str, ...]) -> list[LayoutGroup]:
        """A group for each input that is another repository's flake and has hosts of this one."""
        if flake.lock is None or not self.evaluate:
            return []
        facts = self._input_facts(flake)
        found = []
        for name, fact in facts.items():
            mine = tuple(host for host in fact.hosts if host in hosts)
            key = resolve(flake.lock, (name,))
            node = flake.lock.nodes[key] if mine and key else None
            if node and name not in flake.leads_to():
                url = str(node.original.get("url") or "")
                why = (f"the input {name} is a repository of its own, with these hosts: {', '.join(mine)}",)
                found.append(LayoutGroup(_plain(name), "group_repos", Certainty.LIKELY, why, mine, remote=url or None))
        return found

    def _by_inputs(self, flake: FlakeFacts, hosts: tuple[str, ...]) -> list[LayoutGroup]:
        if flake.lock is None or not self.evaluate or len(hosts) < 2 or len(root_inputs(flake.lock)) < 2:
            return []
        channels = [name for name, fact in self._input_facts(flake).items() if fact.channel]
        runner = self.head.repo.runner
        self.uses = nix_flake.used_inputs(runner, flake.directory, flake.ref, list(flake.inputs), hosts, timeout=self.timeout)
        lock = inside(flake.directory, "flake.lock")
        groups = []
        parts = grouped_by_use(self.uses, channels)
        # One upstream under several names is there to be locked several times.
        upstreams = {_original(flake.lock, name) for part in parts for name in part.inputs}
        for part in parts:
            strategy = "channel_inputs" if part.channels and len(upstreams) > 1 else "group_inputs"
            certainty = Certainty.LIKELY if part.channels or len(part.hosts) > 1 else Certainty.GUESS
            groups.append(
                LayoutGroup(
                    _plain(part.name), strategy, certainty, (part.evidence,), part.hosts,
                    flake=flake.directory, lock=lock, inputs=part.inputs,
                )
            )  # fmt: skip
        left = tuple(host for host in hosts if host not in self.uses)
        return [*groups, self._single(flake, left)] if groups and left else groups

    def _input_facts(self, flake: FlakeFacts) -> dict[str, nix_flake.InputFacts]:
        """What the flake's inputs are; nothing where they cannot all be evaluated, such as for want of a network."""
        flakes = [name for name, declared in flake.inputs.items() if declared.get("flake") is not False]
        try:
            return nix_flake.input_facts(self.head.repo.runner, flake.directory, flake.ref, flakes, timeout=self.timeout)
        except ConnectionLost:
            raise
        except FlotillaError:
            return {}


def _of_branch(branch: git_tree.Branch, there: FlakeFacts, hosts: tuple[str, ...], *, alone: bool) -> tuple[str, ...] | None:
    """Which of the hosts follow a branch; None if all branches have them all."""
    if branch.name in hosts:
        return (branch.name,)
    common = tuple(host for host in hosts if host in host_names(there))
    return common if common and (alone or common != hosts) else None


def _original(lock: Lock, name: str) -> str:
    key = resolve(lock, (name,))
    return json.dumps(lock.nodes[key].original, sort_keys=True) if key else name


def _below(inner: str, outer: str) -> bool:
    """Whether a directory is inside another one, and not the same."""
    return inner != outer and (outer == "." or inner.startswith(f"{outer}/"))


def _is_group_directory(directory: str) -> bool:
    """Whether a flake here is where group_flakes would have a group's."""
    return update_group(_name(directory), "/").flake == directory


def _name(directory: str) -> str:
    return _ALL if directory == "." else _plain(posixpath.basename(directory))


def _plain(name: str) -> str:
    """A name that an update group and an inventory group may have."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or _ALL


def _with_names_of_their_own(groups: Iterable[LayoutGroup]) -> Iterator[LayoutGroup]:
    seen: dict[str, int] = {}
    for group in groups:
        count = seen[group.name] = seen.get(group.name, 0) + 1
        yield group if count == 1 else replace(group, name=f"{group.name}_{count}")


def _advice(strategy: str, groups: Sequence[LayoutGroup]) -> str:
    """What to do with such a layout, for a person."""
    if strategy == NONE:
        return "No flake has a host in nixosConfigurations. Start a fleet here with flotilla.nixos.init."
    if strategy == SINGLE:
        return (
            "One lock holds all hosts, so that they can only be updated together. "
            "Give each group its own with flotilla.nixos.migrate -e flotilla_to=group_flakes. "
            "If every group has a repository like this one, the strategy is group_repos."
        )
    if any(group.hosts is None for group in groups):
        return "Which hosts are in which group stands in no flake: set flotilla_update_group for them."
    return ""
