# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: from update groups to their hosts' systems: evaluated, built, measured, and kept from GC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from . import git, nix
from .building import build_systems
from .errors import BadInput, ConnectionLost, FlotillaError
from .evaluation import evaluate
from .flake_source import Alike, WorkTree, alike, commit_to_use, flake_source, in_submodule, require_flake, work_tree
from .memory import hosts_per_evaluator
from .runner import Runner
from .update_group import UpdateGroup

Phase = Literal["evaluation", "build", "done"]


@dataclass(slots=True)
class HostBuild:
    """What became of one host. phase: where it failed, or done. error: the whole message, "" if none."""

    name: str
    attribute: str
    drv: str = ""
    system: str = ""
    platform: str = ""
    version: str = ""
    closure_size: int | None = None
    error: str = ""
    log: tuple[str, ...] = ()
    phase: Phase = "evaluation"


@dataclass(slots=True)
class GroupBuild:
    """What became of one group. uncommitted: paths of the work tree that are no part of what was built."""

    group: UpdateGroup
    commit: str = ""
    dirty: bool = False
    hosts: list[HostBuild] = field(default_factory=list)
    error: str = ""
    uncommitted: tuple[str, ...] = ()

    @property
    def failed_hosts(self) -> list[HostBuild]:
        """The hosts that have no system to deploy."""
        return [host for host in self.hosts if host.error]


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How to build. keep: directory for the GC roots, None for one in each repository's git directory; chunk: hosts per
    evaluator, None for what fits; dry: evaluate only; timeout: seconds, for each evaluator and for the build.
    """

    allow_dirty: bool = False
    keep: str | None = None
    chunk: int | None = None
    dry: bool = False
    timeout: float = nix.BUILD


@dataclass(slots=True)
class Builds:
    """All groups, by name. changed: something was built, or would be when dry. warnings: what the user should know."""

    groups: dict[str, GroupBuild] = field(default_factory=dict)
    changed: bool = False
    warnings: list[str] = field(default_factory=list)


def build_groups(
    runner: Runner,
    wanted: Sequence[tuple[UpdateGroup, str | None]],
    settings: BuildSettings,
    progress: Callable[[str], None] = lambda _line: None,
) -> Builds:
    """Evaluate each group at its commit (None: the head of its branch), and build the systems of all groups together.

    What fails is in the result; raised is only what concerns the builder as such.
    """
    nix.require_nix(runner)
    builds = Builds()
    roots: dict[str, str] = {}
    chunk = settings.chunk or hosts_per_evaluator(runner)
    for group, commit in wanted:
        built = GroupBuild(group, hosts=[HostBuild(m.name, m.attribute) for m in group.members])
        builds.groups[group.name] = built
        try:
            repo = git.open_repository(runner, group.repo, group.name)
            roots[group.name] = settings.keep or f"{repo.git_dir}/flotilla/roots"
            _evaluate_group(repo, built, commit, settings, chunk, progress)
        except ConnectionLost:
            raise
        except FlotillaError as error:
            built.error = str(error)
            for host in built.hosts:
                host.error = str(error)
    _build_all(runner, builds, settings, progress)
    if not settings.dry:
        _keep(runner, builds, roots)
    return builds


def _evaluate_group(
    repo: git.Repository,
    built: GroupBuild,
    commit: str | None,
    settings: BuildSettings,
    chunk: int,
    progress: Callable[[str], None],
) -> None:
    group = built.group
    if not built.hosts:
        raise BadInput(group.name, "this update group has no hosts", "Put hosts into its inventory group.")
    built.commit = commit_to_use(repo, group, commit)
    tree = WorkTree() if commit else work_tree(repo, group)
    built.dirty = settings.allow_dirty and bool(tree.changed)
    built.uncommitted = tree.untracked if built.dirty else (*tree.changed, *tree.untracked)
    what = "the work tree" if built.dirty else f"commit {built.commit[:12]}"
    require_flake(repo, group, built.commit, dirty=built.dirty)
    some = alike(repo, group, built.commit, dirty=built.dirty)
    locks = f" with {len(some)} locks that differ" if len(some) > 1 else ""
    progress(f"{group.name}: evaluating {len(built.hosts)} host{'s' if len(built.hosts) > 1 else ''} at {what}{locks}")
    for hosts in some:
        try:
            _evaluate_alike(repo, built, hosts, settings, chunk, progress)
        except ConnectionLost:
            raise
        except FlotillaError as error:
            if not group.per_host:
                raise
            for host in _of(built, hosts):
                host.error = str(error)


def _of(built: GroupBuild, some: Alike) -> list[HostBuild]:
    names = {member.name for member in some.group.members}
    return [host for host in built.hosts if host.name in names]


def _evaluate_alike(
    repo: git.Repository,
    built: GroupBuild,
    some: Alike,
    settings: BuildSettings,
    chunk: int,
    progress: Callable[[str], None],
) -> None:
    """Evaluate hosts that have the same pins, in as few evaluators as there is memory for."""
    if some.error:
        raise some.error
    with flake_source(repo, some.group, built.commit, dirty=built.dirty, own=some.own) as source:
        attributes = [member.attribute for member in some.group.members]
        found = evaluate(repo.runner, source, attributes, chunk=chunk, timeout=settings.timeout, progress=progress)
    for host in _of(built, some):
        if host.attribute in found.errors:
            host.error = str(in_submodule(repo, built.commit, found.errors[host.attribute]))
            continue
        system = found.systems[host.attribute]
        host.drv, host.system, host.platform, host.version = system.drv, system.system, system.platform, system.version
        host.phase = "build"


def _build_all(runner: Runner, builds: Builds, settings: BuildSettings, progress: Callable[[str], None]) -> None:
    hosts = [(group, host) for group in builds.groups.values() for host in group.hosts if not host.error]
    if not hosts:
        return
    subject = ", ".join(dict.fromkeys(group.group.name for group, _host in hosts))
    systems = {host.drv: host.system for _group, host in hosts}
    if settings.dry:
        builds.changed = bool(nix.invalid_paths(runner, subject, list(systems.values())))
        return
    outcome = build_systems(runner, subject, systems, timeout=settings.timeout, progress=progress)
    builds.changed = bool(outcome.fresh)
    sizes = nix.closure_sizes(runner, subject, [out for drv, out in systems.items() if drv not in outcome.failures])
    for group, host in hosts:
        failure = outcome.failures.get(host.drv)
        if failure:
            host.error = str(FlotillaError(group.group.name, f"build of {host.name} failed: {failure.what}", failure.hint))
            host.log = failure.log
        else:
            host.phase, host.closure_size = "done", sizes.get(host.system)


def _keep(runner: Runner, builds: Builds, roots: Mapping[str, str]) -> None:
    """Make GC roots of what was built, so that no garbage collection takes it while the rollout goes on."""
    links = {
        f"{roots[name]}/{name}/{host.name}": host.system
        for name, group in builds.groups.items()
        for host in group.hosts
        if host.phase == "done"
    }
    result = nix.add_roots(runner, links) if links else None
    if result is not None and result.status != 0:
        said = result.stderr.strip().splitlines()[-1:] or [f"exit status {result.status}"]
        builds.warnings.append(
            f"the systems built are not kept from garbage collection on {runner.name}: {said[0]}. "
            "Give a directory that can be written in the option keep."
        )
