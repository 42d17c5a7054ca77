# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the hosts of a repository's flakes, by asking nix: for the inventory plugin."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from . import git, nix
from .errors import BadInput, CommandTimeout, ConnectionLost, FlotillaError
from .evaluation import CONFIGURATIONS, FlakeSource, attribute_names, evaluate_values, in_output
from .flake_source import alike, commit_to_use, flake_source, parsed_lock, work_tree
from .hives import SOURCES, Address, agreed, look
from .lockfile import pins
from .memory import hosts_per_evaluator
from .nix_flake import output_names
from .runner import Runner
from .update_group import HOST, Member, UpdateGroup, checked_name, update_group

#: Outputs of a flake that other tools read.
_OTHER_OUTPUTS = {"colmena", "colmenaHive", "deploy"}
#: Facts of a host for its variables; whatever of it a configuration lacks, or refuses to say, is null.
_FACTS = """
  let
    network = c.config.networking or {{}};
    held = value: let r = builtins.tryEval (builtins.deepSeq value value); in if r.success then r.value else null;
  in {{
    platform = held (
      c.pkgs.stdenv.hostPlatform.system or c.config.nixpkgs.hostPlatform.system or c.config.system.build.toplevel.system
    );
    host_name = held (network.hostName or null);
    fqdn = held (network.fqdn or null);
    variables = {{ {variables} }};
  }}"""


@dataclass(frozen=True, slots=True)
class Listing:
    """What to list of one update group. hosts, exclude: shell patterns of attribute names."""

    group: UpdateGroup
    hosts: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def has(self, attribute: str) -> bool:
        """Whether this attribute is one of the group's hosts."""
        return _matches(attribute, self.hosts) and not _matches(attribute, self.exclude)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to look. details: evaluate the hosts; variables: name → nix expression over the configuration `c`.

    sources: see hives.look. host_name: see host_names. It also says which lock a host has, where each has its own.
    """

    allow_dirty: bool = False
    details: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    chunk: int | None = None
    timeout: float = nix.EVALUATION
    host_name: str = "{attribute}"
    sources: tuple[str, ...] = SOURCES


@dataclass(slots=True)
class ListedHost:
    """A host of a flake. host_name and fqdn are the configuration's own; error: what is not known of it, and why.

    address, tags: how it is reached and marked by other tools' outputs.
    """

    attribute: str
    platform: str | None = None
    host_name: str | None = None
    fqdn: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    address: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ListedGroup:
    """A group's hosts. locked: Unix seconds of the newest pin in its lock. error: why the group has none. problems: sentences."""

    name: str
    commit: str = ""
    locked: int | None = None
    hosts: list[ListedHost] = field(default_factory=list)
    error: str = ""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For a cache."""
        hosts = [{key: getattr(host, key) for key in ListedHost.__slots__} for host in self.hosts]
        known = {key: getattr(self, key) for key in ("name", "commit", "locked", "error", "problems")}
        return {**known, "hosts": hosts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ListedGroup:
        """From a cache."""
        hosts = [ListedHost(**host) for host in data["hosts"]]
        return cls(data["name"], data["commit"], data["locked"], hosts, data["error"], data["problems"])


def discover(runner: Runner, repo_path: str, pattern: str, *, allow_dirty: bool = False) -> tuple[list[UpdateGroup], list[str]]:
    """The groups of a repository, one for each flake.nix at HEAD that the pattern matches, named after its directory.

    Also sentences on what looks like a group and is none. pattern: a path with `*`, which does not go across a slash.
    """
    repo = git.open_repository(runner, repo_path, repo_path)
    commit = git.branch_head(repo, None)
    there = [directory for directory in git.flake_dirs(repo, commit) if _path_matches(_flake_nix(directory), pattern)]
    files = git.dirty_files(repo) if not repo.bare else ()
    unseen = [f for f in files if f.path not in map(_flake_nix, there) and _path_matches(f.path, pattern)]
    if allow_dirty:
        there += [f.path.removesuffix("/flake.nix") for f in unseen if f.state != "untracked"]
        unseen = [f for f in unseen if f.state == "untracked"]
    why = {"untracked": "is not tracked by git, so nix does not see it"}
    problems = [
        f"{f.path} {why.get(f.state, 'is not committed, so it is not deployed')}. Run: git add {f.path} && git commit"
        for f in unseen
    ]
    groups = [
        update_group(directory.rpartition("/")[2], repo_path, flake=directory) for directory in sorted(there) if directory != "."
    ]
    return groups, problems


def _flake_nix(directory: str) -> str:
    return "flake.nix" if directory == "." else f"{directory}/flake.nix"


def _path_matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def fingerprint(runner: Runner, listings: Sequence[Listing], settings: Settings) -> str | None:
    """A text that changes when a listing could: the groups' commits and all settings. None where a work tree is what counts."""
    commits = []
    for listing in listings:
        try:
            repo = git.open_repository(runner, listing.group.repo, listing.group.name)
            commits.append(commit_to_use(repo, listing.group, None))
            if settings.allow_dirty and work_tree(repo, listing.group).changed:
                return None
        except FlotillaError:
            return None
    return hashlib.sha256(repr((listings, settings, commits)).encode()).hexdigest()


def list_groups(runner: Runner, listings: Sequence[Listing], settings: Settings) -> list[ListedGroup]:
    """The hosts of all groups, some groups at a time. What is wrong with a group or host is in it."""
    nix.require_nix(runner)
    workers = max(1, min(len(listings), os.cpu_count() or 1, 4))
    chunk = settings.chunk or max(1, hosts_per_evaluator(runner) // workers)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(partial(_list_group, runner, settings, chunk), listings))


def _list_group(runner: Runner, settings: Settings, chunk: int, listing: Listing) -> ListedGroup:
    found = ListedGroup(listing.group.name)
    try:
        _fill(runner, found, listing, settings, chunk)
    except FlotillaError as error:
        found.error = str(error)
    return found


def _fill(runner: Runner, found: ListedGroup, listing: Listing, settings: Settings, chunk: int) -> None:
    group = listing.group
    repo = git.open_repository(runner, group.repo, group.name)
    found.commit = commit_to_use(repo, group, None)
    dirty = settings.allow_dirty and bool(work_tree(repo, group).changed)
    if group.per_host:
        _fill_by_each_lock(repo, found, listing, settings, chunk, dirty=dirty)
        return
    with flake_source(repo, group, found.commit, dirty=dirty) as source:
        found.locked = None if dirty else _locked(repo, group, found.commit)
        outputs = _outputs(runner, source, settings)
        # Without any other tool's output, a flake without configurations is an error that says so.
        lacks = CONFIGURATIONS not in outputs and outputs & _OTHER_OUTPUTS
        names = () if lacks else attribute_names(runner, source, timeout=settings.timeout)
        elsewhere = look(runner, source, outputs, names, settings.sources, timeout=settings.timeout)
        found.problems = elsewhere.problems
        attributes = [*names, *(attribute for attribute in elsewhere.addresses if attribute not in names)]
        found.hosts = [_checked_host(name, group) for name in attributes if listing.has(in_output(name)[1])]
        for host in found.hosts:
            host.error = host.error or elsewhere.unbuilt.get(host.attribute, "")
        if settings.details:
            _look_at(runner, source, found.hosts, settings, chunk)
        for host in found.hosts:
            _set_address(host, group, elsewhere.addresses.get(host.attribute, ()))


def _outputs(runner: Runner, source: FlakeSource, settings: Settings) -> set[str]:
    """The flake's outputs. Where even these do not evaluate, what asks for the hosts says why."""
    if not settings.sources:
        return {CONFIGURATIONS}
    lock, timeout = source.reference_lock, settings.timeout
    try:
        return set(output_names(runner, source.group, source.ref, reference_lock=lock, timeout=timeout))
    except (CommandTimeout, ConnectionLost):
        raise
    except FlotillaError:
        return {CONFIGURATIONS}


def _set_address(host: ListedHost, group: UpdateGroup, addresses: Sequence[Address]) -> None:
    name = f"{group.name}: {in_output(host.attribute)[1]}"
    host.address, tags, problem = agreed(name, addresses)
    host.tags = list(tags)
    host.error = host.error or problem


def _locked(repo: git.Repository, group: UpdateGroup, commit: str) -> int | None:
    lock = parsed_lock(repo, group, commit)
    dates = [pin.last_modified for pin in pins(lock).values() if pin.date and pin.last_modified] if lock else []
    return max(dates, default=None)


def _look_at(runner: Runner, source: FlakeSource, hosts: Sequence[ListedHost], settings: Settings, chunk: int) -> None:
    """Find out about hosts that one lock is for."""
    good = [host.attribute for host in hosts if not host.error]
    if not good:
        return
    values, errors = evaluate_values(runner, source, good, _facts(settings), chunk=chunk, timeout=settings.timeout)
    for host in hosts:
        if host.attribute in errors:
            host.error = str(errors[host.attribute])
        elif host.attribute in values:
            _set_facts(host, values[host.attribute])


def _fill_by_each_lock(
    repo: git.Repository, found: ListedGroup, listing: Listing, settings: Settings, chunk: int, *, dirty: bool
) -> None:
    """The same where each host has a lock of its own: any of them tells the names, and its own what a host is."""
    group = listing.group
    any_lock, names = _names_by_any_lock(repo, group, found.commit, settings, dirty=dirty)
    found.hosts = [_checked_host(name, group) for name in names if listing.has(name)]
    hosts = {host.attribute: host for host in found.hosts if not host.error}
    if settings.details and ("{host_name}" in settings.host_name or "{fqdn}" in settings.host_name):
        with flake_source(repo, any_lock, found.commit, dirty=dirty) as source:
            _look_at(repo.runner, source, list(hosts.values()), settings, chunk)
        # With pins of another's: its own say whether it evaluates.
        for host in hosts.values():
            host.error = ""
    members = _members(group, hosts.values(), settings)
    dates = []
    for some in alike(repo, group.with_lock(group.lock, members), found.commit, dirty=dirty) if members else ():
        these = [hosts[member.attribute] for member in some.group.members]
        try:
            if not dirty:
                dates.append(_locked(repo, some.group, found.commit))
            if settings.details:
                with flake_source(repo, some.group, found.commit, dirty=dirty, own=some.own) as source:
                    _look_at(repo.runner, source, these, settings, chunk)
        except FlotillaError as error:
            for host in these if settings.details else ():
                host.error = str(error)
    found.locked = min((date for date in dates if date is not None), default=None)


def _members(group: UpdateGroup, hosts: Iterable[ListedHost], settings: Settings) -> list[Member]:
    members = []
    for host in hosts:
        try:
            members.append(Member(checked_name("host", _name(settings.host_name, group.name, host)), host.attribute))
        except BadInput as error:
            host.error = f"{group.name}: {error}"
    return members


def _names_by_any_lock(
    repo: git.Repository, group: UpdateGroup, commit: str, settings: Settings, *, dirty: bool
) -> tuple[UpdateGroup, tuple[str, ...]]:
    """The names of the flake's hosts, by the first lock that is complete; and the group as if that was its own."""
    failure: FlotillaError = BadInput(
        group.name,
        f"there is no lock {group.lock} of any host at commit {commit[:12]} of {repo.path}",
        f"Make a first one, as in: nix flake lock --output-lock-file {group.lock.replace(HOST, 'NAME')}, and commit it.",
    )
    locks = [path for path in git.files(repo, commit) if group.owns(path)]
    there = git.entries(repo, commit, locks) if locks else {}
    # What is the same in several gives the same answer.
    for path in {entry.blob: path for path, entry in sorted(there.items())}.values():
        part = group.with_lock(path)
        try:
            with flake_source(repo, part, commit, dirty=dirty) as source:
                return part, attribute_names(repo.runner, source, timeout=settings.timeout)
        except FlotillaError as error:
            failure = error
    raise failure


def _checked_host(name: str, group: UpdateGroup) -> ListedHost:
    try:
        checked_name("flake attribute", name)
    except BadInput as error:
        return ListedHost(name, error=f"{group.name}: {error} Or leave it out with exclude.")
    return ListedHost(name)


def _facts(settings: Settings) -> str:
    lines = [f"{nix.nix_string(name)} = held ({expression});" for name, expression in settings.variables.items()]
    return _FACTS.format(variables=" ".join(lines))


def _set_facts(host: ListedHost, value: Mapping[str, Any]) -> None:
    host.platform, host.host_name, host.fqdn = value["platform"], value["host_name"], value["fqdn"]
    host.variables = {name: said for name, said in value["variables"].items() if said is not None}


def host_names(groups: Sequence[tuple[Listing, ListedGroup]], template: str) -> dict[tuple[str, str], str]:
    """The inventory name of each host, by group and attribute; BadInput if two hosts get the same, naming both.

    template: text with {attribute}, {group}, {host_name} and {fqdn}.
    """
    names: dict[tuple[str, str], str] = {}
    owner: dict[str, tuple[str, str]] = {}
    for listing, found in groups:
        for host in found.hosts:
            key = (listing.group.name, host.attribute)
            name = _name(template, listing.group.name, host)
            if name in owner:
                one, two = owner[name], key
                raise BadInput(
                    f"host {name!r}",
                    f"it would be in two update groups, as {one[1]} of {one[0]} and as {two[1]} of {two[0]}",
                    'Leave it out of one (hosts, exclude), or give names that differ (host_name: "{attribute}.{group}").',
                )
            owner[name] = key
            names[key] = name
    return names


def _name(template: str, group: str, host: ListedHost) -> str:
    attribute = in_output(host.attribute)[1]
    values = {"attribute": attribute, "group": group, "host_name": host.host_name, "fqdn": host.fqdn}
    try:
        wanted = [name for name in values if f"{{{name}}}" in template and not values[name]]
        # A host of which nothing is known keeps its place in the inventory, so that a rollout can say what is wrong with it.
        return attribute if wanted else template.format(**values)
    except (KeyError, IndexError, ValueError):
        raise BadInput(
            f"host_name {template!r}",
            "this is not a text with placeholders",
            "Use {attribute}, {group}, {host_name} and {fqdn}, as in {attribute}.example.org.",
        ) from None


def dumped(groups: Sequence[ListedGroup]) -> str:
    """For a cache."""
    return json.dumps([group.to_json() for group in groups])


def loaded(text: str) -> list[ListedGroup]:
    """From a cache."""
    return [ListedGroup.from_json(group) for group in json.loads(text)]
