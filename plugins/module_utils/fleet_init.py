# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: turns a directory, or a repository with one flake, into a fleet that can be rolled out."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import fleet_files, git, nix
from .builder_files import scratch_dir
from .errors import BadInput, FlotillaError
from .evaluation import FlakeSource, no_such_host
from .flake_text import DEFAULT_NIXPKGS, Input, built_in
from .git_worktree import Changes, apply, commit_changes, kinds, make_repository, require_writable, texts_of, tracked_below
from .group_layout import Found, GroupWish, HostWish, Order, flakes_of, work_tree_attributes
from .group_making import Made, Means, make_groups
from .lockfile import parse_lock, root_inputs
from .runner import Runner
from .update_group import checked_name

BASE = "modules/base.nix"
#: The group of a single flake's hosts for which nothing else is known.
ONLY = "fleet"
SPLIT, LOCKS = "group_flakes", "host_locks"


@dataclass(frozen=True, slots=True)
class InitWish:
    """What is said, or was found out, of the fleet that there shall be.

    groups: None where nothing was said. listed: the inventory's, which count where there are no flakes to ask.
    addresses: host → address. keys: ssh keys of who may log in. playbooks: those that the collection has.
    """

    groups: tuple[GroupWish, ...] | None = None
    listed: tuple[GroupWish, ...] = ()
    strategy: str | None = None
    nixpkgs: str | None = None
    system: str | None = None
    addresses: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    playbooks: tuple[str, ...] = ("rollout", "status", "update", "rollback")


@dataclass(slots=True)
class Init:
    """What was made. groups: the fleet's hosts by group. kept: files of the user's, and what would be in them."""

    path: str
    groups: dict[str, list[str]]
    made: Made
    kept: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    new_repository: bool = False
    to_fill_in: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything changes."""
        return self.made.changed or self.new_repository

    def next_steps(self, *, committed: bool) -> list[str]:
        """Sentences on what the user has to do before the first rollout; none if nothing was made."""
        if not self.changed:
            return []
        group = next((name for name, hosts in self.groups.items() if hosts), "all")
        files = [path for path in ("inventory/hosts.yml",) if path in self.made.changes.texts]
        fill = [*files, *self.to_fill_in]
        steps = [f"Fill in {', '.join(fill[:6])}{' and so on' if len(fill) > 6 else ''}"] if fill else []
        steps += [] if committed and not fill else [f"git -C {self.path} commit -a"]
        return [*steps, f"cd {self.path} && ansible-playbook rollout.yml -l {group} --check --diff"]


@dataclass(slots=True)
class _Shape:
    """The fleet that there shall be: its groups, the flakes to make, their fields for the inventory, and further files."""

    groups: dict[str, list[str]]
    where: str
    wishes: tuple[GroupWish, ...] = ()
    fields: dict[str, dict[str, object]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    same: str | None = None


def init_fleet(runner: Runner, path: str, wish: InitWish, means: Means) -> Init:
    """Make what a fleet lacks. Files that are there are never changed. BadInput with the fix; then nothing was changed."""
    there = _repository(runner, path)
    if there is not None:
        return _within(there, path, wish, means)
    # Everything is tried in a repository elsewhere, so that a failure leaves nothing in this one's place.
    with scratch_dir(runner, path) as scratch:
        trial = f"{scratch}/trial"
        make_repository(runner, trial)
        done = _within(git.open_repository(runner, trial, path), path, wish, replace(means, check=True, commit=False))
        done.new_repository = True
        if not means.check:
            _require_absent(runner, path, done.made.changes)
            make_repository(runner, path)
            repo = git.open_repository(runner, path, path)
            if means.commit:
                git.require_identity(repo)
            require_writable(repo, done.made.changes)
            apply(repo, done.made.changes)
            if means.commit:
                done.made.commit = commit_changes(repo, done.made.changes, "Start the fleet\n", scratch)
    return done


def _repository(runner: Runner, path: str) -> git.Repository | None:
    """The repository of which this directory is the top; None where there is none, and one can be made."""
    result = runner.run(["sh", "-euc", _LOOK, "sh", path], env={"LC_ALL": "C"})
    state, _newline, top = result.stdout.partition("\n")
    top = top.strip()
    if state == "file":
        raise BadInput(path, "this is a file, and no directory", "Name the directory that the fleet is to be in.")
    if state == "nothing":
        return None
    if state == "flakes":
        what = "there are flakes, and no git repository, so that nix would take whatever lies there"
        raise BadInput(path, what, f"Make one of what belongs to the fleet: git -C {path} init && git -C {path} add FILES")
    if state == "inside":
        raise BadInput(path, f"this is inside the repository {top}", f"Run it there: flotilla_repo={top}")
    repo = git.open_repository(runner, path, path)
    if repo.bare:
        raise BadInput(path, "this is a bare repository, which has no files to change", "Name a clone with a work tree.")
    return repo


#: Prints what is at a path, and the top of the work tree that it is in.
_LOOK = r"""
[ -e "$1" ] || { echo nothing; exit 0; }
[ -d "$1" ] || { echo file; exit 0; }
cd -- "$1"
if top=$(git rev-parse --show-toplevel 2>/dev/null) && [ -n "$top" ]; then
  if [ "$top" = "$(pwd -P)" ]; then echo repository; else echo inside; fi
  printf '%s\n' "$top"
elif git rev-parse --git-dir >/dev/null 2>&1 || [ -e .git ]; then echo repository
elif [ -e flake.nix ] || [ -n "$(find . -mindepth 2 -maxdepth 3 -name flake.nix | head -n 1)" ]; then echo flakes
else echo nothing; fi
"""


def _require_absent(runner: Runner, path: str, changes: Changes) -> None:
    place = git.Repository(runner, path, path, path, bare=False, shallow=False)
    if runner.run(["test", "-d", path]).status == 0 and (there := _existing(place, list(changes.texts))):
        raise BadInput(path, f"{', '.join(there)} came to be there meanwhile", "Try again.")


def _existing(place: git.Repository, paths: Sequence[str]) -> list[str]:
    return [path for path, kind in kinds(place, paths).items() if kind != "none"]


def _within(repo: git.Repository, path: str, wish: InitWish, means: Means) -> Init:
    """Plan, prove and make it in a repository. path: the directory itself, where the repository is only tried out."""
    runner = repo.runner
    system = wish.system or nix.current_system(runner)
    shape = _shape(repo, wish)
    files = {**shape.files, **_files(shape, wish)}
    place = replace(repo, path=path)
    there = set(_existing(place, list(files))) if runner.run(["test", "-d", path]).status == 0 else set()
    before = texts_of(place, [p for p in there if kinds(place, [p])[p] == "file"])
    kept = {p: text for p, text in files.items() if p in there and before.get(p) != text and not p.endswith(".lock")}
    new = {p: text for p, text in files.items() if p not in there}
    order = Order(shape.wishes, built_in, system, append=True)
    made = make_groups(runner, repo.path, order, means, more=new, same_as=shape.same, subject="Start the fleet")
    starters = tuple(made.plan.starters)
    return Init(path, shape.groups, made, kept, before, to_fill_in=starters, warnings=[*shape.warnings, *made.plan.warnings])


def _shape(repo: git.Repository, wish: InitWish) -> _Shape:
    found = flakes_of(repo)
    groups = {flake: one for flake, one in found.items() if flake.startswith("hosts/") and flake.count("/") == 1}
    if groups:
        return _of_groups(repo, wish, groups)
    if "." in found and (names := _configurations(repo)):
        return _of_one_flake(repo, wish, names)
    return _of_nothing(repo, wish)


def _configurations(repo: git.Repository) -> tuple[str, ...]:
    """The hosts of the flake at the repository's top; none if it has no nixosConfigurations at all."""
    try:
        return work_tree_attributes(repo, repo.subject, ".")
    except FlotillaError as error:
        if error.what.endswith("the flake has no nixosConfigurations"):
            return ()
        raise


def _of_groups(repo: git.Repository, wish: InitWish, flakes: Mapping[str, Found]) -> _Shape:
    """A repository that has a flake for each group already: only groups that are not there are made."""
    shape = _Shape({}, "Each group has a flake and a lock of its own in `hosts/`.")
    for flake, one in sorted(flakes.items()):
        name = flake.rpartition("/")[2]
        if one.layout:
            shape.groups[name] = [host.name for host in one.layout.hosts]
            continue
        try:
            shape.groups[name] = list(work_tree_attributes(repo, name, flake))
        except FlotillaError as error:
            shape.groups[name] = []
            shape.warnings.append(str(error))
    placed = {host for hosts in shape.groups.values() for host in hosts}
    new = [group for group in wish.groups or () if group.name not in shape.groups]
    model = next((one.layout for one in flakes.values() if one.layout and not one.layout.hosts_from), None)
    for group in new:
        hosts = tuple(host for host in group.hosts or () if host.name not in placed)
        like = {"inputs": dict(model.inputs), "modules": model.modules} if model else {}
        shape.wishes += (_new_group(repo, replace(group, hosts=hosts), wish, like),)
        shape.groups[group.name] = [host.name for host in hosts]
    return shape


def _of_nothing(repo: git.Repository, wish: InitWish) -> _Shape:
    """A repository without hosts: the groups that are asked for, with a module that all hosts share."""
    groups = wish.groups or wish.listed
    if not groups:
        raise BadInput(
            repo.subject,
            "which hosts there are is not known",
            "Give an inventory with -i, or say it: "
            """-e '{"flotilla_groups": {"servers": ["web1"], "sbcs": ["pi-1", "pi-2"]}}'""",
        )
    if wish.strategy not in (None, SPLIT):
        raise BadInput(
            repo.subject, f"a fleet cannot be started as {wish.strategy}", f"Start it as {SPLIT}; migrate.yml changes it."
        )
    shape = _Shape({}, "Each group has a flake and a lock of its own in `hosts/`.")
    shape.files[BASE] = fleet_files.base_module(wish.keys)
    for group in groups:
        checked_name("update group", group.name)
        shape.wishes += (_new_group(repo, group, wish, {"modules": (BASE,)}),)
        shape.groups[group.name] = [host.name for host in group.hosts or ()]
    return shape


def _new_group(repo: git.Repository, group: GroupWish, wish: InitWish, like: Mapping[str, Any]) -> GroupWish:
    if not group.hosts:
        raise BadInput(repo.subject, f"the group {group.name} has no hosts", "Name some in flotilla_groups, or leave it out.")
    inputs = {"nixpkgs": wish.nixpkgs} if wish.nixpkgs else like.get("inputs") or {"nixpkgs": DEFAULT_NIXPKGS}
    return replace(
        group,
        inputs=group.inputs if group.inputs is not None else inputs,
        modules=group.modules if group.modules is not None else like.get("modules"),
    )


def _of_one_flake(repo: git.Repository, wish: InitWish, names: Sequence[str]) -> _Shape:
    """A repository with one flake: it stays as it is, and its groups get locks of their own if there are several."""
    members = _members(repo, wish, names)
    if wish.strategy not in (None, SPLIT, LOCKS):
        what = f"one flake cannot be made {wish.strategy} here"
        raise BadInput(repo.subject, what, f"Choose {SPLIT} or {LOCKS}; migrate.yml knows more.")
    left = [name for name in names if not any(name in hosts for hosts in members.values())]
    warnings = [f"{', '.join(left)}: in flake.nix, and in no update group, so no rollout reaches them"] if left else []
    if wish.strategy == SPLIT or (wish.strategy is None and wish.groups):
        return _split(repo, members, warnings)
    if len(members) == 1 and wish.strategy is None:
        [name] = members
        return _Shape(members, "Their flake and its lock are at the top.", fields={name: {"flake": "."}}, warnings=warnings)
    lock = _top_lock(repo)
    shape = _Shape(
        members, "They share the flake at the top, and each group has a lock of its own in `locks/`.", warnings=warnings
    )
    for name, hosts in members.items():
        shape.files[f"locks/{name}.lock"] = lock
        shape.fields[name] = {"strategy": LOCKS, "lock": f"locks/{name}.lock", "hosts": hosts}
    return shape


def _members(repo: git.Repository, wish: InitWish, names: Sequence[str]) -> dict[str, list[str]]:
    """The hosts of each group: as asked for, or as the directories of hosts/ have it, or all in one."""
    if wish.groups:
        members = {checked_name("update group", g.name): [h.attribute or h.name for h in g.hosts or ()] for g in wish.groups}
        source = FlakeSource(repo.subject, ".", "")
        for group, hosts in members.items():
            if unknown := next((host for host in hosts if host not in names), None):
                raise no_such_host(source, unknown, names)
            if not hosts:
                raise BadInput(repo.subject, f"the group {group} has no hosts", "Name some in flotilla_groups, or leave it out.")
        return members
    found: dict[str, list[str]] = {}
    tracked = tracked_below(repo, "hosts")
    for name in names:
        parts = [path.split("/") for path in tracked]
        own = {p[1] for p in parts if len(p) > 2 and p[2] in (name, f"{name}.nix")}
        if len(own) != 1:
            return {ONLY: list(names)}
        found.setdefault(own.pop(), []).append(name)
    return found


def _top_lock(repo: git.Repository) -> str:
    if kinds(repo, ["flake.lock"])["flake.lock"] != "file":
        raise BadInput(repo.subject, "the flake at the top has no flake.lock to begin with", "Make one: nix flake lock")
    return texts_of(repo, ["flake.lock"])["flake.lock"]


def _split(repo: git.Repository, members: Mapping[str, list[str]], warnings: list[str]) -> _Shape:
    """A flake for each group, with pins of its own, that takes its hosts from the one at the top, whose inputs follow these."""
    declared = nix.flake_inputs(repo.runner, repo.subject, repo.path)
    if "self" in declared:
        what = "flake.nix has options for itself in inputs.self, which a flake around it cannot give it"
        raise BadInput(repo.subject, what, f"Keep it whole: -e flotilla_strategy={LOCKS}")
    names = root_inputs(parse_lock(_top_lock(repo), repo.subject, "flake.lock")) if declared else ()
    inputs: dict[str, Input] = {name: _from_below(spec) for name, spec in declared.items()}
    inputs |= {name: {"url": f"flake:{name}"} for name in names if name not in inputs}
    main = next(name for name in (ONLY, "main", "fleet-flake", "top") if name not in inputs)
    follows = {name: {"follows": name} for name in inputs}
    inputs[main] = {"url": "path:../..", **({"inputs": follows} if follows else {})}
    shape = _Shape(
        dict(members),
        "Each group has a lock of its own in `hosts/`, beside a small flake that takes its hosts from the one at the top.",
        warnings=warnings,
        same=".",
    )
    lock = "flake.lock" if names else None
    for name, hosts in members.items():
        listed = tuple(HostWish(host, modules=()) for host in hosts)
        shape.wishes += (GroupWish(name, listed, inputs=inputs, hosts_from=main, lock_from=lock),)
    return shape


def _from_below(spec: Input) -> Input:
    """An input as a flake two directories further down names it."""
    url = str(spec.get("url", ""))
    path, mark, query = url.removeprefix("path:").partition("?")
    if "url" not in spec or path.startswith("/") or (path == url.partition("?")[0] and not url.startswith(("./", "../", "."))):
        return spec
    return {**spec, "url": f"path:{posixpath.normpath(posixpath.join('../..', path))}{mark}{query}"}


def _files(shape: _Shape, wish: InitWish) -> dict[str, str]:
    """The files around the flakes."""
    # In an order that does not depend on how they were found, so that a second run finds what the first has written.
    groups = sorted(name for name, hosts in shape.groups.items() if hosts) or [ONLY]
    hosts = [host for name in sorted(shape.groups) for host in sorted(shape.groups[name])]
    group, host = groups[0], (hosts or ["HOST"])[0]
    files = {f"{name}.yml": fleet_files.playbook(name, group, host) for name in fleet_files.PLAYBOOKS if name in wish.playbooks}
    return {
        ".gitignore": fleet_files.GITIGNORE,
        "README.md": fleet_files.readme(groups, host, shape.where),
        "ansible.cfg": fleet_files.ANSIBLE_CFG,
        "inventory/fleet.flotilla.yml": fleet_files.fleet_inventory(shape.fields),
        "inventory/hosts.yml": fleet_files.addresses(hosts, wish.addresses),
        **files,
    }
