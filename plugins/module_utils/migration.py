# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: from which strategy to which a repository is moved, and which hosts go where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from .errors import BadInput
from .evaluation import FlakeSource, no_such_host
from .flake_source import inside
from .layout import SINGLE, Certainty, Layout, LayoutGroup
from .update_group import STRATEGIES, Member, UpdateGroup, checked_name, update_group

#: What migrate.yml can make.
GOALS = ("group_flakes", "host_locks", SINGLE)


@dataclass(frozen=True, slots=True)
class Source:
    """An update group as it is now. name: its own; group: its fields; hosts: None where no flake says them."""

    name: str
    group: UpdateGroup
    hosts: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Target:
    """An update group as it shall be. sources: attribute → where the host is now."""

    name: str
    sources: Mapping[str, Source]

    @property
    def attributes(self) -> tuple[str, ...]:
        """Its hosts, by their attributes."""
        return tuple(self.sources)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. groups: name → patterns of attributes; none: the groups that there are. known: as the inventory says."""

    to: str
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: tuple[UpdateGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class Files:
    """Files of the commit that a migration makes, None for those that go."""

    texts: Mapping[str, str | None]


def targets(layout: Layout, wish: Wish) -> list[Target]:
    """Which hosts go where; BadInput for what cannot be."""
    if wish.to not in GOALS:
        others = f" ({wish.to} is a strategy, but its flakes have to be written by hand)" if wish.to in STRATEGIES else ""
        raise BadInput("flotilla_to", f"nothing can be moved to {wish.to!r}{others}", f"Choose one of {', '.join(GOALS)}.")
    wish = _with_known_places(layout, wish)
    sources = _sources(layout, wish)
    if not sources:
        raise BadInput(layout.repo.path, "no flake has a host, so there is nothing to move", "Start with flotilla.nixos.init.")
    found = _asked(layout, wish, sources) if wish.groups else _as_they_are(layout, wish, sources)
    _require_once(found)
    return found


def _with_known_places(layout: Layout, wish: Wish) -> Wish:
    """The wish; without the places of groups that the inventory has elsewhere than the repository: they are wishes, too."""
    files = layout.head.files
    there = [group for group in wish.known if group.branch or all(lock in files for lock in group.locks)]
    if len(there) == len(wish.known):
        return wish
    named = {group.name: tuple(member.attribute for member in group.members) for group in wish.known}
    return Wish(wish.to, wish.groups or named)


def _sources(layout: Layout, wish: Wish) -> list[Source]:
    if wish.known:
        return [Source(group.name, group, tuple(m.attribute for m in group.members)) for group in wish.known]
    return [Source(group.name, _fields(layout, group), group.hosts) for group in layout.groups if group.remote is None]


def _fields(layout: Layout, group: LayoutGroup) -> UpdateGroup:
    members = tuple(Member(host, host) for host in group.hosts or ())
    return UpdateGroup(group.name, layout.repo.path, group.branch, group.flake, group.lock, group.inputs, members)


def _as_they_are(layout: Layout, wish: Wish, sources: Sequence[Source]) -> list[Target]:
    if wish.to == SINGLE:
        return [Target(SINGLE, {host: source for source in sources for host in source.hosts or ()})]
    if layout.strategy == SINGLE and not wish.known and wish.to != "host_locks":
        every = ", ".join(layout.groups[0].hosts or ())
        raise BadInput(
            layout.repo.path,
            "one lock is for all hosts, and nothing says which of them belong together",
            f'Say it: -e \'{{"flotilla_groups": {{"GROUP": ["HOST", …], …}}}}\', with the hosts {every}.',
        )
    unknown = [source.name for source in sources if source.hosts is None]
    if unknown:
        raise BadInput(
            ", ".join(unknown),
            "which hosts are in these groups stands in no flake",
            'Say it in the inventory (flotilla_update_group), or with -e \'{"flotilla_groups": {"GROUP": ["HOST", …], …}}\'.',
        )
    return [Target(source.name, dict.fromkeys(source.hosts or (), source)) for source in sources]


def _asked(layout: Layout, wish: Wish, sources: Sequence[Source]) -> list[Target]:
    every = tuple(dict.fromkeys(host for source in sources for host in source.hosts or _hosts_of(layout, source)))
    found = []
    for name, patterns in wish.groups.items():
        checked_name("update group", name)
        if isinstance(patterns, str) or not patterns:
            raise BadInput(name, "it has no hosts", "Give each group of flotilla_groups a list of attributes or patterns.")
        members: dict[str, Source] = {}
        for pattern in patterns:
            matching = [host for host in every if fnmatchcase(host, pattern)]
            if not matching:
                source = FlakeSource(name, sources[0].group.flake, "", layout.head.commit)
                raise no_such_host(source, pattern, every)
            members |= {host: _source_of(layout, name, host, sources) for host in matching}
        found.append(Target(name, members))
    return found


def _hosts_of(layout: Layout, source: Source) -> tuple[str, ...]:
    flake = layout.flakes.get(source.group.flake)
    return (flake.hosts or ()) if flake else ()


def _source_of(layout: Layout, group: str, host: str, sources: Sequence[Source]) -> Source:
    """Where a host is now: in the group of that name if there is one that may have it, or in the only one that has it."""
    named = [source for source in sources if source.name == group and (source.hosts is None or host in source.hosts)]
    having = named or [source for source in sources if host in (source.hosts or ())]
    if not having and len(sources) == 1 and host in _hosts_of(layout, sources[0]):
        having = list(sources)
    if len(having) != 1:
        has = ", ".join(source.name for source in having or sources)
        raise BadInput(
            host, f"it may be in any of the groups {has}", "Say in the inventory in which it is (flotilla_update_group)."
        )
    return having[0]


def _require_once(found: Sequence[Target]) -> None:
    seen: dict[str, str] = {}
    for target in found:
        if not target.sources:
            raise BadInput(target.name, "it has no hosts", "Leave the group out, or name its hosts in flotilla_groups.")
        for host in target.attributes:
            if host in seen:
                raise BadInput(host, f"it would be in two groups: {seen[host]} and {target.name}", "Leave it in one of them.")
            seen[host] = target.name


def place(target: Target, to: str, repo: str, flake: str = ".") -> UpdateGroup:
    """The fields that a group has after the migration. flake: of the hosts, where they stay in one."""
    members = [Member(_name(source, host), host) for host, source in target.sources.items()]
    if to == SINGLE:
        return update_group(target.name, repo, flake=flake, members=members)
    kept = None if "{group}" in STRATEGIES[to]["flake"] else flake
    return update_group(target.name, repo, strategy=to, flake=kept, members=members)


def _name(source: Source, host: str) -> str:
    """The name that the inventory has for a host."""
    return next((member.name for member in source.group.members if member.attribute == host), host)


def is_there(layout: Layout, target: Target, to: str) -> bool:
    """Whether a group is already as it shall be."""
    groups = {source.group for source in target.sources.values()}
    [first, *others] = groups
    flake = layout.flakes.get(first.flake)
    if others or first.branch not in (None, layout.head.branch):
        return False
    if "{group}" in STRATEGIES.get(to, {}).get("flake", ""):
        own = first.lock == inside(first.flake, "flake.lock") and first.flake != "."
        return own and flake is not None and set(flake.hosts or ()) <= set(target.attributes)
    new = place(target, to, first.repo, first.flake)
    return (new.flake, new.lock) == (first.flake, first.lock)


def proposal(group: UpdateGroup, to: str) -> LayoutGroup:
    """A group in the shape of a recognised one: for its variables."""
    attributes = tuple(member.attribute for member in group.members)
    return LayoutGroup(group.name, to, Certainty.SURE, (), attributes, group.branch, group.flake, group.lock)


def lock_of(source: Source, host: str) -> UpdateGroup:
    """The group with the lock that a host's system is made with now, and this host alone."""
    member = Member(_name(source, host), host)
    return source.group.with_lock(source.group.lock_of(member), [member])


@dataclass(frozen=True, slots=True)
class Others:
    """The hosts of the repository that are not moved. groups: each of them alone, with the lock that it has.

    unplaced: those of which nothing says their lock; locks: those that may be theirs.
    """

    groups: tuple[UpdateGroup, ...] = ()
    unplaced: tuple[str, ...] = ()
    locks: frozenset[str] = frozenset()

    @property
    def attributes(self) -> frozenset[str]:
        """All of them."""
        return frozenset(member.attribute for group in self.groups for member in group.members)


def others(layout: Layout, wish: Wish, moved: Sequence[Target]) -> Others:
    """Who else has something to lose on the branch that is checked out."""
    known = _sources(layout, _with_known_places(layout, wish))
    recognised = _sources(layout, Wish(wish.to))
    sources = [source for source in (*known, *recognised) if source.group.flake in layout.flakes]
    seen = {host for target in moved for host in target.attributes}
    found: list[UpdateGroup] = []
    unplaced = []
    for flake in layout.flakes.values():
        for host in (host for host in flake.hosts or () if host not in seen):
            seen.add(host)
            having = next((source for source in sources if host in (source.hosts or ())), None)
            if having is None:
                unplaced.append(host)
            lock = inside(flake.directory, "flake.lock")
            alone = UpdateGroup(host, layout.repo.path, None, flake.directory, lock, None, (Member(host, host),))
            found.append(lock_of(having, host) if having else alone)
    here = (None, layout.head.branch)
    locks = {source.group.lock for source in sources if source.hosts is None and source.group.branch in here}
    return Others(tuple(group for group in found if group.branch in here), tuple(unplaced), frozenset(locks))


def summary(to: str, found: Sequence[Target]) -> str:
    """The first line of the commit's message."""
    names = ", ".join(target.name for target in found)
    return f"One lock for {', '.join(h for t in found for h in t.attributes)}" if to == SINGLE else f"{names}: {_HOW.get(to, to)}"


_HOW: Mapping[str, str] = {"group_flakes": "a flake for each group", "host_locks": "a lock for each host"}
