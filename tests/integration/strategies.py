# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stories of the strategies share: an example's repositories and hosts, and a look at everything that must not move."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from testbed import Fleet, layouts, upstream
from testbed.example import Example, addresses_of
from testbed.layouts import Layout
from testbed.playbooks import Ansible, Played

#: What a rollout leaves beside branches: the record of it, and what it has proven.
RECORDS = ("refs/notes/flotilla", "refs/flotilla/known-good/", "refs/flotilla/proven/")

Branch = tuple[str, str]
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a rollout of one group must leave alone for the others.

    heads and files (path → blob) by repository and branch; refs but for branches and records; pins: each group's, with all
    that lies below its inputs; tree: digests of the work tree's files; status: git's word on it; hosts: system, profile, boot.
    """

    heads: Mapping[Branch, str]
    files: Mapping[Branch, Mapping[str, str]]
    refs: frozenset[str]
    pins: Mapping[str, Any]
    tree: Mapping[str, str]
    status: str
    hosts: Mapping[str, str]

    @classmethod
    def of(cls, layout: Layout, fleet: Fleet) -> Snapshot:
        """How it is now."""
        heads, files, refs = {}, {}, set()
        for name, repo in layout.repositories():
            for line in repo.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines():
                ref, _, commit = line.partition(" ")
                if ref.startswith("refs/heads/"):
                    branch = (name, ref.removeprefix("refs/heads/"))
                    heads[branch], files[branch] = commit, _blobs(repo, commit)
                elif not ref.startswith(RECORDS):
                    refs.add(f"{name} {line}")
        pins = {group: _graphs(layout, group) for group in layout.groups}
        hosts = {host: _state(fleet, host) for host in layout.hosts if host in fleet.hosts}
        status = layout.home.git("status", "--porcelain")
        return cls(heads, files, frozenset(refs), pins, _digests(layout.home.path), status, hosts)

    def assert_only(
        self,
        layout: Layout,
        group: str,
        then: Snapshot,
        *,
        hosts: Sequence[str] | None = None,
        files: Sequence[str] = (),
        sharing: Sequence[str] = (),
    ) -> None:
        """Between this and `then` nothing moved that is not the group's: its lock on its branch, and its hosts.

        hosts: those that had to move (default: all of the group's). files: that its branch gets beside the lock. sharing: groups
        that have given their consent to a move of their pins.
        """
        place = layout.groups[group]
        own = (place.repo, place.branch)
        assert then.heads.keys() == self.heads.keys()
        assert _changed(self.heads, then.heads) <= {own}, "another branch has moved"
        assert _changed(self.files[own], then.files[own]) <= {*place.locks, *files}, "more than the group's lock was committed"
        assert then.refs == self.refs, "a ref was left behind"
        checked_out = not place.repo and place.branch == "main"
        assert _changed(self.tree, then.tree) <= set(place.locks if checked_out else ()), "the work tree has changed"
        assert then.status == self.status
        for other in layout.groups.keys() - {group, *sharing}:
            assert then.pins[other] == self.pins[other], f"{other}'s pins have moved"
        assert _changed(self.hosts, then.hosts) == set(place.hosts if hosts is None else hosts)


@dataclass(frozen=True, slots=True)
class Site:
    """An example's repositories, its hosts, and the Ansible that runs them."""

    fleet: Fleet
    ansible: Ansible
    layout: Layout
    source: upstream.Upstream
    variables: Mapping[str, Any]

    def play(self, book: str, *arguments: str, check: bool = True) -> Played:
        """Run one of the repository's playbooks, as its user does."""
        path = self.layout.home.path
        words = (f"{book}.yml", "--forks", "4", "-e", json.dumps(self.variables), *arguments)
        return self.ansible.playbook(words[0], *words[1:], inventory=path / "inventory/hosts.yml", cwd=path, check=check)

    def rollout(self, group: str, *arguments: str, check: bool = True) -> Played:
        """Bring a group to what its branch says, or with `-e flotilla_update=true` to fresh inputs."""
        return self.play("rollout", "-l", group, *arguments, check=check)

    def update(self, group: str, *arguments: str, check: bool = True) -> Played:
        """Roll fresh inputs out to one group."""
        return self.rollout(group, "-e", "flotilla_update=true", *arguments, check=check)

    def release(self, name: str) -> str:
        """Upstream releases something on all of its branches; the revision."""
        return self.source.release(name, upstream.BRANCHES)

    def running(self, *groups: str) -> dict[str, str]:
        """What the hosts of groups run, by the release in the system's name."""
        hosts = [host for group in groups for host in self.layout.groups[group].hosts]
        return {host: _inside(self.fleet, host, "readlink -f /run/current-system").rpartition("-")[2] for host in hosts}

    def pinned(self, group: str, host: str | None = None, commit: str | None = None) -> set[str]:
        """The releases that a group's inputs are locked to (those of upstream; others have their revision)."""
        tags = [line.split() for line in self.source.git("for-each-ref", "--format=%(objectname) %(refname:short)").splitlines()]
        names = {commit: name for commit, name in tags if not name.startswith("nixos-")}
        return {names.get(rev, rev) for rev in self.layout.pins(group, host, commit).values()}

    @property
    def booted_groups(self) -> list[str]:
        """The groups whose hosts are up."""
        return [group for group, place in self.layout.groups.items() if place.hosts[0] in self.fleet.hosts]

    def consent(self, group: str) -> tuple[str, ...]:
        """What an update of the group needs where other groups follow the same input."""
        mine = self.layout.groups[group]
        same = [name for name, place in self.layout.groups.items() if replace(place, hosts=mine.hosts) == mine]
        return ("-e", "flotilla_allow_shared_inputs=true") if same != [group] else ()

    def snapshot(self) -> Snapshot:
        """How everything is now."""
        return Snapshot.of(self.layout, self.fleet)

    def proven(self, group: str) -> str:
        """The commit that a group has proven last, as the repository's refs have it."""
        return self.records(group).git("rev-parse", f"refs/flotilla/known-good/{group}")

    def records(self, group: str) -> Example:
        """The repository that has the group's records: the one that has its branch."""
        return self.layout.repository(group)


def site(name: str, fleet: Fleet, ansible: Ansible, folder: Path, **variables: Any) -> Iterator[Site]:
    """Hosts as new, and the example's repositories for them, which follow upstream's first release."""
    hosts = [host for place in layouts.LAYOUTS[name].values() for host in place.hosts if host != "desk1" or name == "mixture"]
    fleet.reset(*hosts)
    source = upstream.create(folder / "nixpkgs.git")
    made = layouts.create(folder / "site", name, source, env=fleet.env(), addresses=addresses_of(fleet))
    # Waiting for units that die late is what test_activation.py shows.
    yield Site(fleet, ansible, made, source, {"flotilla_settle": 0, **variables})
    for host in hosts:
        fleet.fault(host, "link-up")


def rolls_out_first(site: Site) -> None:
    """Every host gets what the repository says, which is upstream's first release; nothing is committed for that."""
    before = site.snapshot()
    played = site.rollout(":".join(site.booted_groups))
    assert set(outcomes(played).values()) == {"updated"}
    assert set(site.running(*site.booted_groups).values()) == {"25.05.1"}
    after = site.snapshot()
    assert (after.heads, after.tree, after.refs) == (before.heads, before.tree, before.refs)


def updates(site: Site, group: str, release: str) -> None:
    """Upstream releases; one group gets it, and nothing of any other group moves."""
    site.release(release)
    before, others = site.snapshot(), {g: site.pinned(g) for g in site.layout.groups if g != group}
    played = site.update(group)
    assert set(outcomes(played).values()) == {"updated"}
    before.assert_only(site.layout, group, site.snapshot())
    assert release in site.pinned(group)
    assert {g: site.pinned(g) for g in others} == others
    assert set(site.running(group).values()) == {release}


def promotes(
    site: Site,
    source: str,
    target: str,
    release: str,
    *arguments: str,
    away: str = "",
    files: Sequence[str] = (),
    sharing: Sequence[str] = (),
) -> None:
    """The target gets what the source has proven, and no other group moves. away: a host of the target that is off meanwhile.

    files, sharing: see Snapshot.assert_only.
    """
    if away:
        site.fleet.fault(away, "link-down")
    before = site.snapshot()
    played = site.play("promote", "-e", f"from={source}", "-e", f"to={target}", *arguments)
    place = site.layout.groups[target]
    hosts = [host for host in place.hosts if host != away]
    assert outcomes(played) == {**dict.fromkeys(hosts, "updated"), **({away: "deferred"} if away else {})}
    before.assert_only(site.layout, target, site.snapshot(), hosts=hosts, files=files, sharing=sharing)
    assert [release in site.pinned(target, host) for host in place.hosts] == [True] * len(place.hosts)
    if source in site.layout.groups:
        assert site.pinned(target) == site.pinned(source, commit=site.proven(source))
    assert {host: at for host, at in site.running(target).items() if host != away} == dict.fromkeys(hosts, release)


def restores(site: Site, group: str, commit: str, release: str) -> None:
    """A group goes back to the pins of an earlier commit, by a commit of its own."""
    before, pins = site.snapshot(), site.layout.lock_text(group, commit=commit)
    played = site.play("restore", "-e", f"group={group}", "-e", f"to={commit}")
    assert set(outcomes(played).values()) == {"updated"}
    before.assert_only(site.layout, group, site.snapshot())
    assert site.pinned(group) >= {release}
    assert set(site.running(group).values()) == {release}
    if site.layout.groups[group].inputs is None:
        assert site.layout.lock_text(group) == pins


def catches_up(site: Site, group: str, late: str, release: str) -> None:
    """A late host gets what its group has proven, though the head has moved on since."""
    site.play("update", "-l", group, "-e", "flotilla_land=true", *site.consent(group))
    assert release not in site.pinned(group)
    site.fleet.fault(late, "link-up")
    before = site.snapshot()
    played = site.play("catchup")
    assert outcomes(played) == {late: "updated"}
    before.assert_only(site.layout, group, site.snapshot(), hosts=[late])
    assert site.running(group)[late] == release


def outcomes(played: Played) -> dict[str, str]:
    """What the report says of each host."""
    reports = played.of("rollout_report")
    if len(reports) != 1:
        pytest.fail(f"there are {len(reports)} reports:\n{played.text[-4000:]}")
    return {host: value["outcome"] for host, value in reports[0].result["hosts"].items()}


def said(played: Played) -> str:
    """All that was printed, on one line, as messages are wrapped."""
    return " ".join(played.text.split())


def _inside(fleet: Fleet, host: str, script: str) -> str:
    # Not over the network: hosts whose link is down are looked at, too.
    return fleet.host(host).inside(["sh", "-c", script]).stdout.strip()


def _state(fleet: Fleet, host: str) -> str:
    script = "readlink -f /run/current-system; ls -l /nix/var/nix/profiles | grep system; cat /proc/sys/kernel/random/boot_id"
    return _inside(fleet, host, script)


def _blobs(repo: Example, commit: str) -> dict[str, str]:
    lines = repo.git("ls-tree", "-r", commit).splitlines()
    return {path: meta.split()[2] for meta, path in (line.split("\t") for line in lines)}


def _digests(tree: Path) -> dict[str, str]:
    files = [file for file in sorted(tree.rglob("*")) if file.is_file() and ".git" not in file.parts]
    return {str(file.relative_to(tree)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _changed(before: Mapping[Key, str], after: Mapping[Key, str]) -> set[Key]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _graphs(layout: Layout, group: str) -> dict[str, Any]:
    """Each of the group's locks: the whole text where it is the group's alone, else what lies below the group's inputs."""
    place = layout.groups[group]
    texts = {lock: layout.lock_text(group, lock) for lock in place.locks}
    if place.inputs is None:
        return texts
    lock = json.loads(texts["flake.lock"])
    below = {name: _subtree(lock, lock["nodes"][lock["root"]]["inputs"][name]) for name in place.inputs}
    return {"flake.lock": below}


def _subtree(lock: Mapping[str, Any], key: str) -> Any:
    node = lock["nodes"][key]
    inputs = {name: _subtree(lock, to) if isinstance(to, str) else to for name, to in node.get("inputs", {}).items()}
    return {**node, "inputs": inputs}
