# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the update groups that a repository has flakes for, and their hosts: what an order comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import git
from .errors import BadInput, ConnectionLost, FlotillaError
from .evaluation import FlakeSource, attribute_names
from .flake_source import inside
from .flake_text import (
    GroupLayout,
    HostLayout,
    Render,
    checked_host,
    checked_inputs,
    checked_module,
    checked_system,
    is_path,
    own_layout,
    require_label,
    signed,
    to_paste,
    was_ours,
)
from .git_worktree import Changes, files_seen, is_committed, kinds, moved_path, texts_of
from .nix import flake_ref
from .runner import Runner
from .update_group import checked_name, checked_path

#: What a new host's own file says, until its user says more.
STARTER = """# What {name} alone has: its hardware-configuration.nix, its services, its system.stateVersion.
{{ ... }}:
{{
}}
"""


@dataclass(frozen=True, slots=True)
class HostWish:
    """A host that a group shall have. What is None stays as it is, or is found out."""

    name: str
    attribute: str | None = None
    modules: tuple[str, ...] | None = None
    system: str | None = None


@dataclass(frozen=True, slots=True)
class GroupWish:
    """A group as it shall be. What is None stays as it is, or is found out. hosts: all of them, unless the order appends.

    lock_from: the update group whose pins a new lock gets, or the path of a lock in the repository.
    """

    name: str
    hosts: tuple[HostWish, ...] | None = None
    flake: str | None = None
    inputs: Mapping[str, Any] | None = None
    modules: tuple[str, ...] | None = None
    system: str | None = None
    hosts_from: str | None = None
    lock_from: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What to do with the groups. system: that of new groups for which none is given or found."""

    groups: tuple[GroupWish, ...]
    render: Render
    system: str
    present: bool = True
    append: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A flake.nix of the work tree. layout: what it says, None if it is not ours (any more)."""

    flake: str
    text: str
    layout: GroupLayout | None


@dataclass(slots=True)
class GroupPlan:
    """What becomes of one group. before, after: None where it is not there. moved: host → the group that it came from.

    rendered: whether its flake.nix is ours to write. lock_from: directories and locks that a new lock may have its pins from.
    """

    name: str
    flake: str
    before: GroupLayout | None = None
    after: GroupLayout | None = None
    moved: dict[str, str] = field(default_factory=dict)
    rendered: bool = True
    lock_from: str | None = None

    @property
    def added(self) -> list[str]:
        """Hosts that no group had before."""
        return [name for name in _names(self.after) if name not in _names(self.before) and name not in self.moved]

    @property
    def removed(self) -> list[str]:
        """Hosts that this group has no more."""
        return [name for name in _names(self.before) if name not in _names(self.after)]


@dataclass(slots=True)
class Plan:
    """What an order comes to. groups: every group that is named or loses a host. starters: new hosts' own files."""

    groups: list[GroupPlan] = field(default_factory=list)
    moves: dict[str, str] = field(default_factory=dict)
    starters: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def texts(self, found: Mapping[str, Found], render: Render) -> dict[str, str]:
        """The files that are written, where they differ from what is there."""
        texts = dict(self.starters)
        for group in self.groups:
            if group.after is None or not group.rendered:
                continue
            text, path = signed(render(group.after), group.after), inside(group.flake, "flake.nix")
            if group.flake not in found or found[group.flake].text != text:
                texts[path] = text
        return texts


def _names(layout: GroupLayout | None) -> list[str]:
    return [host.name for host in layout.hosts] if layout else []


def flakes_of(repo: git.Repository) -> dict[str, Found]:
    """Every flake.nix of the work tree, by its directory."""
    paths = files_seen(repo, "flake.nix", "*/flake.nix")
    found = {}
    for path, text in texts_of(repo, [path for path, kind in kinds(repo, paths).items() if kind == "file"]).items():
        flake = path.rpartition("/")[0] or "."
        found[flake] = Found(flake, text, own_layout(text, flake))
    return found


def planned(repo: git.Repository, order: Order, found: Mapping[str, Found]) -> Plan:
    """What an order comes to; BadInput with the fix for what cannot be done. Nothing is written."""
    _require_once(order)
    plan = Plan()
    for wish in order.groups:
        if order.present:
            plan.groups.append(_Group(repo, order, found, plan, wish).planned())
        elif (gone := _absent(repo, order, found, plan, wish)) is not None:
            plan.groups.append(gone)
    _take_from_others(order, found, plan)
    _require_no_links(repo, plan)
    return plan


def _require_once(order: Order) -> None:
    groups: dict[str, str] = {}
    for wish in order.groups:
        checked_name("update group", wish.name)
        for host in wish.hosts or ():
            name, _attribute = checked_host(host.name, host.attribute)
            if name in groups:
                where = "twice" if groups[name] == wish.name else f"in {groups[name]} and in {wish.name}"
                raise BadInput(f"host {name}", f"it is listed {where}", "A host has one lock, so list it in one group.")
            groups[name] = wish.name
        attributes = [host.attribute or host.name for host in wish.hosts or ()]
        if same := next((a for a in attributes if attributes.count(a) > 1), None):
            raise BadInput(wish.name, f"two hosts have the attribute {same!r}", "Give each its own.")
    names = [wish.name for wish in order.groups]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(twice, "this update group is given twice", "Give each group once, with all of its hosts.")


def directory_of(name: str, flake: str | None, found: Mapping[str, Found]) -> str:
    """The directory of a group's flake: as given, or where the flake of that name is that we wrote, or hosts/NAME."""
    if flake is not None:
        return checked_path("flake", flake)
    ours = sorted(where for where, one in found.items() if one.layout and one.layout.name == name)
    return ours[0] if ours else f"hosts/{name}"


def _owners(found: Mapping[str, Found]) -> dict[str, GroupLayout]:
    """Host → the layout of ours that has it."""
    return {host.name: one.layout for one in found.values() if one.layout for host in one.layout.hosts}


class _Group:
    """The planning of one group that shall be there."""

    def __init__(self, repo: git.Repository, order: Order, found: Mapping[str, Found], plan: Plan, wish: GroupWish) -> None:
        self.repo, self.order, self.found, self.plan, self.wish = repo, order, found, plan, wish
        self.flake = directory_of(wish.name, wish.flake, found)
        there = found.get(self.flake)
        self.before = there.layout if there else None
        self.foreign = there if there and there.layout is None else None
        self.owners = _owners(found)

    def planned(self) -> GroupPlan:
        """The group as it shall be."""
        wish, before = self.wish, self.before
        if before and before.name != wish.name:
            raise BadInput(
                wish.name, f"{self.flake}/flake.nix is that of the group {before.name}", "Give another directory in flake."
            )
        origins = self._origins()
        base = before or self._new(origins)
        inputs = checked_inputs(wish.name, wish.inputs) if wish.inputs is not None else dict(base.inputs)
        shape = replace(
            base,
            inputs=inputs,
            system=checked_system(wish.name, wish.system) if wish.system else base.system,
            modules=tuple(checked_module(m, inputs) for m in wish.modules) if wish.modules is not None else base.modules,
            hosts_from=wish.hosts_from or base.hosts_from,
        )
        if shape.hosts_from and shape.hosts_from not in inputs:
            raise BadInput(wish.name, f"there is no input {shape.hosts_from!r} to take hosts from", "Name it in inputs.")
        after = replace(shape, hosts=self._hosts(shape))
        moved = {name: layout.name for name, layout in origins.items()}
        if self.foreign:
            self._require_nothing_to_write(after)
        else:
            self._require_not_elsewhere([name for name in _names(after) if name not in self.owners])
        source = wish.lock_from or self._one_source(origins)
        return GroupPlan(wish.name, self.flake, before, after, moved, self.foreign is None, source)

    def _origins(self) -> dict[str, GroupLayout]:
        """Those of the wanted hosts that another group of ours has, and that group."""
        names = [host.name for host in self.wish.hosts or ()]
        return {name: self.owners[name] for name in names if name in self.owners and self.owners[name].flake != self.flake}

    def _new(self, origins: Mapping[str, GroupLayout]) -> GroupLayout:
        """A group that is not there yet, as the groups are where its hosts come from."""
        model = next(iter(origins.values()), None)
        if model is None:
            return GroupLayout(self.wish.name, self.flake, self.order.system)
        return replace(model, name=self.wish.name, flake=self.flake, hosts=())

    def _one_source(self, origins: Mapping[str, GroupLayout]) -> str | None:
        """The group whose pins a new lock gets: the one that its hosts come from."""
        flakes = sorted({layout.flake for layout in origins.values()})
        if len(flakes) < 2 or self.before or self.foreign:
            return flakes[0] if flakes else None
        locks = texts_of(self.repo, [inside(flake, "flake.lock") for flake in flakes])
        if len(set(locks.values())) > 1:
            names = " and ".join(sorted({layout.name for layout in origins.values()}))
            raise BadInput(
                self.wish.name, f"its hosts come from {names}, whose locks differ", "Say in lock_from whose pins it shall have."
            )
        return flakes[0]

    def _hosts(self, shape: GroupLayout) -> tuple[HostLayout, ...]:
        before = list(self.before.hosts) if self.before else []
        if self.wish.hosts is None:
            return tuple(before)
        wanted = [self._host(wish, shape) for wish in self.wish.hosts]
        if not self.order.append:
            return tuple(wanted)
        new = {host.name: host for host in wanted}
        kept = [new.pop(host.name, host) for host in before]
        return (*kept, *new.values())

    def _host(self, wish: HostWish, shape: GroupLayout) -> HostLayout:
        owner = self.owners.get(wish.name)
        old = next((host for host in owner.hosts if host.name == wish.name), None) if owner else None
        name, attribute = checked_host(wish.name, wish.attribute or (old.attribute if old else None))
        if not shape.hosts_from and not self.foreign:
            require_label(name)
        system = wish.system or (old.system if old else None)
        if owner and old and not system and owner.system != shape.system:
            system = owner.system
        if system:
            checked_system(name, system)
        moved = owner is not None and owner.flake != self.flake
        if moved and owner and old and not self.foreign:
            self._move_files(old, owner.flake)
        if wish.modules is not None:
            modules = tuple(checked_module(module, shape.inputs) for module in wish.modules)
        elif old:
            modules = tuple(moved_path(m, self.plan.moves) if is_path(m, shape.inputs) else m for m in old.modules)
        else:
            modules = self._own_modules(name, attribute, shape)
        return HostLayout(name, attribute, modules, system)

    def _move_files(self, host: HostLayout, origin: str) -> None:
        """A host's own files go along with it."""
        pairs = dict(zip(own_paths(origin, host), own_paths(self.flake, host), strict=True))
        there = {path: kind for path, kind in kinds(self.repo, list(pairs)).items() if kind in ("file", "directory")}
        taken = kinds(self.repo, [pairs[path] for path in there])
        for path in there:
            to = pairs[path]
            if taken[to] != "none":
                raise BadInput(host.name, f"{path} would move to {to}, which is there already", f"Remove or rename {to} first.")
            self.plan.moves[path] = to

    def _own_modules(self, name: str, attribute: str, shape: GroupLayout) -> tuple[str, ...]:
        """The file of its own that a new host has in the group's directory, or is given."""
        if shape.hosts_from:
            return ()
        paths = own_paths(self.flake, HostLayout(name, attribute))
        there = kinds(self.repo, paths)
        if own := next((path for path in paths if there[path] in ("file", "directory")), None):
            return (own,)
        self.plan.starters[paths[0]] = STARTER.format(name=name)
        return (paths[0],)

    def _require_nothing_to_write(self, after: GroupLayout) -> None:
        """BadInput that says what to write into a flake that is the user's own, if it lacks something."""
        foreign = self.foreign
        if foreign is None:
            raise AssertionError
        self.plan.starters.clear()
        path = inside(self.flake, "flake.nix")
        by = "was edited since it was written here" if was_ours(foreign.text) else "was written by hand"
        names = work_tree_attributes(self.repo, self.wish.name, self.flake)
        missing = [host for host in after.hosts if host.attribute not in names]
        exact = self.wish.hosts is not None and not self.order.append
        extra = [name for name in names if name not in after.attributes] if exact else []
        if missing:
            lines = "\n".join(to_paste(host, after) for host in missing)
            raise BadInput(
                self.wish.name,
                f"{path} {by}, so it is left alone, and it has no {', '.join(host.attribute for host in missing)}",
                f"Add to its nixosConfigurations:\n{lines}",
            )
        if extra:
            what = f"{path} {by}, so it is left alone, and it has {', '.join(extra)}, which the group shall not have"
            raise BadInput(self.wish.name, what, f"Remove from its nixosConfigurations: {', '.join(extra)}.")

    def _require_not_elsewhere(self, names: Sequence[str]) -> None:
        """BadInput if a new host is in a flake of the user's own beside this one, which is not ours to take it from."""
        if not names or self.wish.hosts is None:
            return
        wanted = {host.attribute or host.name: host.name for host in self.wish.hosts if host.name in names}
        parent = self.flake.rpartition("/")[0]
        for flake, one in self.found.items():
            if one.layout or flake in (self.flake, ".") or flake.rpartition("/")[0] != parent:
                continue
            try:
                there = work_tree_attributes(self.repo, flake, flake)
            except ConnectionLost:
                raise
            except FlotillaError as error:
                unknown = f"whether {flake} has one of its hosts, too, is not known"
                self.plan.warnings.append(f"{self.wish.name}: {unknown}: {error.what}")
                continue
            if both := sorted(set(wanted) & set(there)):
                raise BadInput(
                    self.wish.name,
                    f"{', '.join(both)} is in {flake}/flake.nix, too, which was written by hand",
                    f"Remove it there from nixosConfigurations (and move its files to {self.flake}), then run this again.",
                )


def own_paths(flake: str, host: HostLayout) -> list[str]:
    """Where a host's own files may be in its group's directory."""
    names = list(dict.fromkeys((host.name, host.attribute)))
    return [inside(flake, f"{name}{end}") for end in (".nix", "") for name in names if f"{name}{end}" != "flake.nix"]


def work_tree_attributes(repo: git.Repository, subject: str, flake: str) -> tuple[str, ...]:
    """The hosts of a flake as the work tree has it."""
    return attribute_names(repo.runner, FlakeSource(subject, flake, flake_ref(repo.path, flake, None, shallow=repo.shallow)))


def _take_from_others(order: Order, found: Mapping[str, Found], plan: Plan) -> None:
    """Other groups of ours lose the hosts that move."""
    taken = {name for group in plan.groups for name in group.moved}
    planned_flakes = {group.flake: group for group in plan.groups}
    for flake, one in found.items():
        if one.layout is None or not taken & set(_names(one.layout)):
            continue
        group = planned_flakes.get(flake)
        if group is None:
            group = GroupPlan(one.layout.name, flake, one.layout, one.layout)
            plan.groups.append(group)
        if group.after is None:
            continue
        elsewhere = {name for other in plan.groups if other is not group for name in other.moved}
        group.after = replace(group.after, hosts=tuple(h for h in group.after.hosts if h.name not in elsewhere))
    moved = {name for group in plan.groups for name in group.moved}
    for group in plan.groups:
        for host in group.before.hosts if group.before else ():
            if host.name not in moved and host.name in group.removed and order.present:
                left = [m for m in host.modules if m in own_paths(group.flake, host)]
                files = f"; its {', '.join(left)} is left: git rm it if it is of no more use" if left else ""
                plan.warnings.append(f"{group.name}: {host.name} is no longer in {group.flake}/flake.nix{files}")


def _absent(repo: git.Repository, order: Order, found: Mapping[str, Found], plan: Plan, wish: GroupWish) -> GroupPlan | None:
    flake = directory_of(wish.name, wish.flake, found)
    one = found.get(flake)
    path = inside(flake, "flake.nix")
    if one is None:
        return None
    if one.layout is None:
        what = f"{path} was written by hand or edited since, so it is left alone"
        raise BadInput(wish.name, what, f"Remove it: git rm {path}")
    if one.layout.hosts and not order.force:
        names = ", ".join(_names(one.layout))
        raise BadInput(wish.name, f"it still has hosts: {names}", "Move them to another group first, or say force.")
    lock = inside(flake, "flake.lock")
    plan.removed += files_seen(repo, path, lock)
    left = [file for file in files_seen(repo, flake) if file not in plan.removed and file not in plan.moves]
    if left and flake != ".":
        plan.warnings.append(f"{wish.name}: other files of its directory are left: {', '.join(left[:10])}")
    return GroupPlan(wish.name, flake, one.layout)


def _require_no_links(repo: git.Repository, plan: Plan) -> None:
    """BadInput if a path that is written leads through a symbolic link."""
    paths = [inside(group.flake, name) for group in plan.groups for name in ("flake.nix", "flake.lock")]
    for flake, kind in kinds(repo, [group.flake for group in plan.groups]).items():
        if kind in ("file", "other"):
            raise BadInput(repo.subject, f"{flake} is a file, and no directory", "Give the group another directory in flake.")
    for path, kind in kinds(repo, [*paths, *plan.moves, *plan.moves.values(), *plan.starters]).items():
        if kind.startswith("link "):
            link = kind.removeprefix("link ")
            what = f"{link} is a symbolic link, and what {path} is behind it is not ours to write"
            raise BadInput(repo.subject, what, "Put a real file or directory there.")
        if kind == "other" or (kind == "directory" and path.endswith(("/flake.nix", "/flake.lock"))):
            raise BadInput(repo.subject, f"{path} is no file", "Remove it, or give the group another directory in flake.")


def open_work_tree(runner: Runner, path: str) -> git.Repository:
    """The repository of a work tree; BadInput with the fix for a bare one, or none."""
    repo = git.open_repository(runner, path, path)
    if repo.bare:
        raise BadInput(path, "this is a bare repository, which has no files to change", "Name a clone with a work tree.")
    return repo


def require_clean(repo: git.Repository, changes: Changes, *, commit: bool) -> None:
    """BadInput if files that change are in conflict; if pins would go that git cannot give back; or, where files are committed,

    if they have changes of the user's in them.
    """
    touched = _with_old(changes)
    for file in git.dirty_files(repo, touched) if touched else ():
        if file.state == "conflicted":
            raise BadInput(repo.subject, f"{file.path} has a merge conflict in it", "Resolve it first.")
        if file.path in changes.removed and file.path.endswith(".lock") and not is_committed(repo, file.path):
            what = f"{file.path} has pins that no commit has, and would be removed"
            raise BadInput(repo.subject, what, f"Commit it first, or remove it yourself: git rm -f {file.path}")
        mine = file.path in changes.texts and file.path.rpartition("/")[2] == "flake.nix"
        if commit and file.state == "changed" and not mine:
            what = f"{file.path} has uncommitted changes, which would get into the commit"
            raise BadInput(repo.subject, what, f"Commit or drop them first: git diff HEAD -- {file.path}")


def _with_old(changes: Changes) -> list[str]:
    return [*changes.texts, *changes.moves, *changes.removed]


def summary(plan: Plan) -> str:
    """One line of what changes, for a commit's subject."""
    parts = []
    for group in plan.groups:
        if group.after is None:
            parts.append(f"remove the group {group.name}")
            continue
        moved = _listed(f"{host} from {origin}" for host, origin in group.moved.items())
        words = [f"add {_listed(group.added)}"] if group.added else []
        words += [f"take {moved}"] if moved else []
        gone = [name for name in group.removed if not any(name in other.moved for other in plan.groups)]
        words += [f"remove {_listed(gone)}"] if gone else []
        parts += [f"{group.name}: {', '.join(words)}"] if words else []
    return "; ".join(parts) or "Update the groups' flakes"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
