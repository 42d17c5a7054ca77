# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: between which update groups a promotion or a restore is, from what the user has named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..module_utils.errors import BadInput
from ..module_utils.update_group import UpdateGroup
from .fleet import group_of, update_groups
from .group_options import completed, groups_from_options
from .role_options import check_role_options
from .values import plain

#: Variables that ask for other pins than those that were proven.
_OTHER_PINS = ("flotilla_update", "flotilla_update_inputs", "flotilla_pin")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a promotion or a restore is about.

    chosen: the target's hosts within the limit. target, source: groups as the builder's modules take them. source_hosts: none
    if the source is a branch that no group has.
    """

    chosen: list[str]
    target: dict[str, Any]
    source: dict[str, Any] | None
    source_hosts: list[str]
    groups: list[str]


def members_by_group(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The hosts of each update group; those that are in none, or in two, are passed over."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        try:
            found.setdefault(group_of(host, hostvars[host]), []).append(host)
        except BadInput:
            continue
    return found


def choose(
    target: str,
    source: str | None,
    play: Sequence[str],
    everyone: Iterable[str],
    hostvars: Mapping[str, Mapping[str, Any]],
) -> Choice:
    """The groups of these names. play: the hosts within the limit. source None: there is to be none."""
    everyone = list(everyone)
    members = members_by_group(everyone, hostvars)
    _require_clear(target, source, members)
    chosen = [host for host in play if host in members[target]]
    if not chosen:
        raise BadInput(target, f"none of its hosts ({', '.join(members[target])}) is in the limit", "Change -l, or leave it out.")
    _refuse_other_pins(chosen[0], hostvars)
    if source:
        _require_known(source, everyone, hostvars, has_hosts=source in members)
    group = update_groups(members[target], hostvars)[0]
    theirs = members.get(source, []) if source else []
    return Choice(chosen, group, _source(group, source, theirs, hostvars) if source else None, theirs, sorted(members))


def group_on_branch(
    branch: str, limited: Collection[str], everyone: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A group that stands for a branch which no update group has: with the hosts of all that have its flake and lock.

    limited: the hosts whose flake and lock are meant; none: there is but one.
    """
    everyone = list(everyone)
    members = members_by_group(everyone, hostvars)
    groups = [update_groups(hosts, hostvars)[0] for hosts in members.values()]
    known = {group["name"]: _resolved(group) for group in groups}
    if own := [name for name, group in known.items() if group.branch == branch]:
        what = f"it is the branch of the update group {', '.join(own)}"
        raise BadInput(f"branch {branch}", what, f"Update that: -l {own[0]}, without branch.")
    stands = _on_branch(groups[0], branch)["name"] if groups else branch
    if any(stands in _named_in(hostvars[host]) for host in everyone):
        what = f"there is an update group of the name {stands}, whose candidate this would replace"
        raise BadInput(f"branch {branch}", what, f"Give the branch another name (git branch NAME {branch}) and update that.")
    places: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for group in groups:
        place = known[group["name"]]
        places.setdefault((place.repo, place.flake, place.lock), []).append(group)
    wanted = [found for found in places.values() if not limited or any(h["name"] in limited for g in found for h in g["hosts"])]
    if len(wanted) != 1:
        listed = "; ".join(", ".join(group["name"] for group in found) for found in wanted)
        what = f"the update groups have different flakes, locks or repositories ({listed}), so it is not clear what to lock on it"
        raise BadInput(f"branch {branch}", what, "Name one of the groups with -l.")
    [alike] = wanted
    return {**_on_branch(alike[0], branch), "hosts": [host for group in alike for host in group["hosts"]]}


def _named_in(variables: Mapping[str, Any]) -> tuple[str, ...]:
    """The update groups that a host's variables name, whether it is in them or not."""
    return plain(variables.get("flotilla_update_group")), *(plain(variables.get("flotilla_update_groups")) or [])


def _on_branch(group: Mapping[str, Any], branch: str) -> dict[str, Any]:
    """A group as it would be on another branch, under that one's name."""
    known = _resolved(group)
    fields = {field: value for field, value in group.items() if field not in ("strategy", "inputs", "holds")}
    # Refs have the name, too: `+` stands for a slash, after which no branch has a dash, and `+-` for itself.
    return {
        **fields,
        "name": branch.replace("+", "+-").replace("/", "+"),
        "branch": branch,
        "flake": known.flake,
        "lock": known.lock,
    }


def _resolved(group: Mapping[str, Any]) -> UpdateGroup:
    [known] = groups_from_options([completed(group)])
    return known


def _require_clear(target: str, source: str | None, members: Mapping[str, Sequence[str]]) -> None:
    """BadInput where the groups are not named, not there, or the same."""
    there = f"The update groups are {', '.join(sorted(members)) or 'none'}."
    if source is None and not target:
        raise BadInput("restore", "it is not said which update group is to go back", f"Name it with -e group=GROUP. {there}")
    if source is not None and not (source and target):
        missing = "from where" if target else "to which update group"
        raise BadInput("promotion", f"it is not said {missing}", f"Name both: -e from=GROUP -e to=GROUP. {there}")
    if target not in members:
        raise BadInput(f"update group {target!r}", "there is no such update group in the inventory", there)
    if source == target:
        raise BadInput(target, "a group cannot be promoted to itself", f"Name two: -e from=GROUP -e to=GROUP. {there}")


def require_no_group(to: str, target: str, groups: Collection[str]) -> None:
    """BadInput if what a restore is to go back to is an update group: that is a promotion, which asks for a proof."""
    if to in groups:
        hint = f"Give a commit of {target} here; for what {to} has proven: promote -e from={to} -e to={target}."
        raise BadInput(target, f"{to} is an update group, and a restore goes back to a commit", hint)


def _require_known(source: str, everyone: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], *, has_hosts: bool) -> None:
    """BadInput if the source may be an update group some of whose hosts were passed over: a branch has no proof to ask for."""
    for host in everyone:
        named = plain(hostvars[host].get("flotilla_update_group"))
        if source in (*plain(hostvars[host].get("group_names", [])), named):
            group_of(host, hostvars[host])
    if not has_hosts and any(source in (plain(hostvars[host].get("flotilla_update_groups")) or []) for host in everyone):
        raise BadInput(
            f"promotion from {source}",
            f"flotilla_update_groups has an update group {source}, and no host of this inventory is in it",
            "Use the inventory that has its hosts: without them nothing shows what it has proven.",
        )


def _refuse_other_pins(host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> None:
    values = check_role_options("rollout", "prepare", [host], hostvars)[host]
    if given := [name for name in _OTHER_PINS if values.get(name)]:
        what = f"{', '.join(given)} would move inputs to what nobody has proven yet"
        raise BadInput("promotion or restore", what, "Leave it out, or update in a run of its own.")


def _source(
    target: Mapping[str, Any], name: str, theirs: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """An update group, or else that branch of the target's repository, with the target's flake and lock."""
    if theirs:
        return update_groups(theirs, hostvars)[0]
    return _on_branch(target, name)
