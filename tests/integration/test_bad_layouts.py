# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input for every way of keeping locks: one sentence that names the group or host and the fix, and nothing changed.

Here is what depends on where a group's flake, lock, branch, repository and hosts are. test_bad_input.py has, through the real
playbook, what does not: host keys, log-ins, full disks, a target's architecture, limits; test_bad_git.py has git's odd states.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import Run, make_candidate, publish
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, FlotillaError
from ansible_collections.flotilla.nixos.plugins.module_utils.flake_source import inside
from ansible_collections.flotilla.nixos.plugins.module_utils.group_build import BuildSettings, GroupBuild, build_groups
from ansible_collections.flotilla.nixos.plugins.module_utils.group_info import inspect
from ansible_collections.flotilla.nixos.plugins.module_utils.locking import Wish
from ansible_collections.flotilla.nixos.plugins.module_utils.nix import require_nix
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import STRATEGIES, Member, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.fleet import update_groups
from integration import test_bad_git
from integration.repositories import Fixture, Repo, new_repo, sh
from integration.test_bad_git import RUNNER, Site, owner
from integration.test_flake_lock import served

site = test_bad_git.site
_nix = test_bad_git._nix


@pytest.fixture(scope="session")
def templates() -> dict[str, Fixture]:
    """Repositories that were made before, by strategy, for all tests of a worker."""
    return {}


# What a run says, by the door through which the bad input comes


def updating(site: Site, wish: Wish | None = None) -> str:
    """What an update says; "" if it works."""
    try:
        require_nix(RUNNER)
        make_candidate(RUNNER, site.group, Run(owner()), wish)
    except FlotillaError as error:
        return str(error)
    return ""


def built(site: Site, *, dry: bool = True) -> GroupBuild:
    return build_groups(RUNNER, [(site.group, None)], BuildSettings(dry=dry)).groups["sbcs"]


def building(site: Site) -> str:
    """What a build says of pi-1; "" if it works."""
    try:
        return built(site).hosts[0].error
    except FlotillaError as error:
        return str(error)


def looking(site: Site) -> str:
    """What flake_info says that a rollout would fail at."""
    try:
        problems = inspect(RUNNER, site.group, now=0).problems
    except FlotillaError as error:
        return str(error)
    return " ".join(f"sbcs: {one.what}. {one.fix}" for one in problems if one.error)


def words(site: Site, text: str) -> str:
    """A sentence with this site's paths in it."""
    flake = inside(site.group.flake, "flake.nix")
    return text.format(flake=flake, lock=site.lock, repo=site.repo.path, directory=site.group.flake)


def refused(site: Site, says: str, *doors: Callable[[Site], str]) -> None:
    """Each door says this (a `…` stands for anything) and nothing changes."""
    before = site.repo.state()
    for door in doors:
        said = door(site)
        rest = said
        for part in words(site, says).split("…"):
            assert part in rest, f"{door.__name__}: {said}"
            rest = rest.partition(part)[2]
        assert "\n" not in said
    assert site.repo.state() == before


# Locks and flakes


def lock_of(text: str) -> Callable[[Site], None]:
    def write(site: Site) -> None:
        site.repo.write(site.lock, text)
        site.repo.commit()

    return write


def uncommitted(path: Callable[[Site], str], *, ignored: bool = False, added: bool = False) -> Callable[[Site], None]:
    """The file is in the work tree, but in no commit."""

    def forget(site: Site) -> None:
        name = path(site)
        site.repo.git("rm", "--quiet", "--cached", name)
        if ignored:
            site.repo.write(".gitignore", f"{name}\n")
            site.repo.git("add", ".gitignore")
        site.repo.git("commit", "--quiet", "-m", "Forget it")
        if added:
            site.repo.git("add", name)

    return forget


def the_lock(site: Site) -> str:
    return site.lock


def the_flake(site: Site) -> str:
    return inside(site.group.flake, "flake.nix")


def without(path: Callable[[Site], str]) -> Callable[[Site], None]:
    def remove(site: Site) -> None:
        site.repo.git("rm", "--quiet", path(site))
        site.repo.commit()

    return remove


def edited(old: str, new: str) -> Callable[[Site], None]:
    def edit(site: Site) -> None:
        text = (site.repo.path / the_flake(site)).read_text()
        assert old in text
        site.repo.write(the_flake(site), text.replace(old, new))
        site.repo.commit()

    return edit


@dataclass(frozen=True)
class Case:
    """prepare: what goes wrong. says: what is said of it. updating: if an update says another thing; "" if that mends it."""

    prepare: Callable[[Site], None]
    says: str
    updating: str | None = None


CASES = {
    "empty lock": Case(lock_of(""), "sbcs: the lock {lock} is empty. Bring the last good one back: git checkout"),
    "conflict": Case(
        lock_of('{\n<<<<<<< HEAD\n  "nodes": {}\n=======\n>>>>>>> other\n}\n'),
        "sbcs: the lock {lock} has a merge conflict in it. Take one side (git checkout --ours or --theirs)",
    ),
    "git-crypt": Case(lock_of("\0GITCRYPT\0abc"), "sbcs: the lock {lock} is encrypted by git-crypt…Leave lock files out of"),
    "not JSON": Case(lock_of("{"), "sbcs: the lock {lock} cannot be read: it is not JSON…. Bring the last good one back"),
    "old lock": Case(
        lock_of('{"version": 4}'), "sbcs: the lock {lock} has version 4, and only 5 to 7 can be read. Write it again"
    ),
    "newer lock": Case(
        lock_of('{"version": 99}'), "sbcs: the lock {lock} has version 99, and only 5 to 7 can be read. It is of a newer nix"
    ),
    "untracked lock": Case(
        uncommitted(the_lock), "sbcs: {lock} is not tracked by git, so nix does not see it. Run: git add {lock} && git commit"
    ),
    "ignored lock": Case(
        uncommitted(the_lock, ignored=True), "sbcs: {lock} is ignored by git, so nix does not see it. Run: git add --force {lock}"
    ),
    "added lock": Case(
        uncommitted(the_lock, added=True),
        "sbcs: {lock} is added but not committed, and only what is committed is deployed. Run: git commit {lock}",
        "sbcs: the lock {lock} has uncommitted changes, and an update starts from the commit. Commit them",
    ),
    "no lock": Case(without(the_lock), "sbcs: there is no …{lock}…(flotilla_update=true…commit", ""),
    "untracked flake": Case(
        uncommitted(the_flake), "sbcs: {flake} is not tracked by git, so nix does not see it. Run: git add {flake} && git commit"
    ),
    "ignored flake": Case(
        uncommitted(the_flake, ignored=True), "sbcs: {flake} is ignored by git, so nix does not see it. Run: git add --force"
    ),
    "no flake": Case(without(the_flake), "sbcs: there is no {flake} at commit …of {repo}. Name its directory in flotilla_flake."),
    "syntax error": Case(
        edited("outputs =", "outputs"),
        "sbcs: evaluation failed: syntax error, … at {flake}:3. Run: nix eval",
        "sbcs: locking the inputs failed at {flake}:3: syntax error",
    ),
    "no hosts": Case(
        edited("nixosConfigurations", "homeConfigurations"),
        "sbcs: …the flake has no nixosConfigurations. Name the flake that has them in flotilla_flake.",
        "",
    ),
    "another host": Case(
        edited("pi-1 =", "pi-9 ="),
        "sbcs: there is no 'pi-1' in nixosConfigurations of {directory} at commit …It has: pi-9. Name the host's attribute in",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_locks_and_flakes(site: Site, case: Case) -> None:
    case.prepare(site)
    refused(site, case.says, building, looking)
    if case.updating != "":
        refused(site, case.updating or case.says, updating)


def test_a_lock_that_lacks_an_input(site: Site) -> None:
    edited("inputs.nixpkgs", 'inputs.more.url = "git+file://{}";\n  inputs.nixpkgs'.format(site.repo.path.parent / "more"))(site)
    edited("{ self, nixpkgs }", "{ self, nixpkgs, more }")(site)
    more = new_repo(site.repo.path.parent / "more")
    more.write("flake.nix", "{ outputs = _: { }; }\n")
    more.commit()
    refused(site, "sbcs: {lock} is not complete for its flake.nix: inputs were added or changed…Lock it", building, looking)
    if site.group.inputs:
        refused(site, "sbcs: the update would change more than nixpkgs: more. flake.nix has other inputs than the lock", updating)


def test_an_input_that_there_is_not(site: Site) -> None:
    def asking(site: Site) -> str:
        return updating(site, Wish(("nosuch",)))

    limited = "sbcs: input nosuch is not one that this group may move. Choose of nixpkgs, or extend flotilla_inputs."
    unknown = "sbcs: {flake} has no input 'nosuch'…. Its inputs are nixpkgs."
    refused(site, limited if site.group.inputs else unknown, asking)
    named = replace(site, group=replace(site.group, inputs=("nosuch",)))
    refused(named, unknown, updating)
    refused(named, "sbcs: the lock has no input nosuch. Put others into flotilla_inputs; there are: nixpkgs.", looking)


def test_an_upstream_that_does_not_answer_although_nix_remembers_one(
    site: Site, tmp_path: Path, templates: dict[str, Fixture], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    upstream = templates[request.node.callspec.params["site"]].upstream.path
    sh("git", "clone", "--quiet", "--bare", str(upstream), str(tmp_path / "web/upstream.git"))
    sh("git", "-C", str(tmp_path / "web/upstream.git"), "update-server-info")
    with served(tmp_path / "web") as url:
        edited(f"git+file://{upstream}", f"git+{url}/upstream.git")(site)
        publish(make_candidate(RUNNER, site.group, Run(owner())))
        site.land()
    refused(
        site,
        "sbcs: an input's upstream did not answer, and nix went on with what it had cached…Try again when it answers",
        updating,
    )


# Hosts


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ('lib.host { name = throw "no file system"; }', "sbcs: evaluation of pi-1 failed: no file system…Run: nix eval "),
        (
            'lib.host { name = "pi-1"; needs = [ (lib.run "part" "echo no such thing; exit 3") ]; }',
            "sbcs: build of pi-1 failed: builder for part failed with exit code 3; its last line: no such thing. Run: nix log ",
        ),
    ],
    ids=["evaluation", "build"],
)
def test_a_host_that_fails_takes_no_neighbour_along(site: Site, expression: str, says: str) -> None:
    neighbour = f'{expression}; pi-2 = lib.host {{ name = "pi-2"; }}'
    edited('lib.host { name = "pi-1"; }', neighbour)(site)
    both = replace(site, group=replace(site.group, members=(*site.group.members, Member("pi-2", "pi-2"))))
    if site.group.per_host:
        shutil.copy(site.repo.path / "locks/pi-1.lock", site.repo.path / "locks/pi-2.lock")
        site.repo.commit()
    before = site.repo.state()
    bad, good = built(both, dry=False).hosts
    rest = bad.error
    for part in says.split("…"):
        assert part in rest, bad.error
        rest = rest.partition(part)[2]
    assert (good.phase, good.error) == ("done", "")
    assert site.repo.state() == before


def test_a_broken_lock_of_one_host(site: Site) -> None:
    """A neighbour with the same lock cannot be built, one with its own can."""
    edited('lib.host { name = "pi-1"; }', 'lib.host { name = "pi-1"; }; pi-2 = lib.host { name = "pi-2"; }')(site)
    both = replace(site, group=replace(site.group, members=(*site.group.members, Member("pi-2", "pi-2"))))
    if site.group.per_host:
        shutil.copy(site.repo.path / "locks/pi-1.lock", site.repo.path / "locks/pi-2.lock")
    lock_of("")(site)
    before = site.repo.state()
    said = f"sbcs: the lock {site.lock} is empty"
    bad, other = built(both).hosts
    assert bad.error.startswith(said)
    assert not other.error if site.group.per_host else other.error.startswith(said)
    assert updating(both).startswith(said)
    assert site.repo.state() == before


INVENTORY: dict[str, tuple[dict[str, object], str]] = {
    "two groups": (
        {"flotilla_update_groups": ["sbcs", "boards"]},
        "pi-1: the host is in 2 update groups: sbcs, boards. A host has one lock, so leave it in one of them.",
    ),
    "no group": (
        {"flotilla_update_groups": ["servers"]},
        "pi-1: the host is in no update group (flotilla_update_groups: servers). Set flotilla_update_group",
    ),
    "another group": (
        {"flotilla_update_group": "servers", "flotilla_update_groups": ["sbcs"]},
        "pi-1: flotilla_update_group says 'servers', and the inventory has the host in 'sbcs'. Move the host, or remove",
    ),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("variables", "says"), INVENTORY.values(), ids=INVENTORY)
def test_hosts_of_no_group_or_two(strategy: str, variables: dict[str, object], says: str) -> None:
    fields = {"flotilla_strategy": strategy, "flotilla_repo": "/srv/fleet", "group_names": ["sbcs", "boards"]}
    with pytest.raises(BadInput) as caught:
        update_groups(["pi-1"], {"pi-1": {**fields, **variables}})
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["my sbcs", "-rf", "../../etc", 'pi"1', "pi'1", "pi;reboot", "${x}", "a\nb", ""])
def test_names(strategy: str, name: str) -> None:
    hints = "Use letters, digits, `_`, `.`, `+` and `-`, not beginning with a dash or dot, without `..`."
    members = {"host": Member(name, "pi-1"), "flake attribute": Member("pi-1", name)}
    for kind in ("update group", "host", "flake attribute"):
        group, hosts = (name, ()) if kind == "update group" else ("sbcs", (members[kind],))
        with pytest.raises(BadInput) as caught:
            update_group(group, "/srv/fleet", strategy=strategy, members=hosts)
        assert str(caught.value).startswith(f"{kind} {name!r}: this name cannot be used")
        assert caught.value.hint == hints


# Groups, branches and repositories

NO_GROUP = {
    "group_flakes": "nosuch: there is no hosts/nosuch/flake.nix at commit …Name its directory…It has flakes in: hosts/sbcs.",
    "stage_flakes": "nosuch: there is no hosts/nosuch/flake.nix at commit …Name its directory…It has flakes in: hosts/sbcs.",
    "group_branches": "nosuch: the repository {repo} has no branch 'nosuch'. It has main, sbcs. Make the branch, or name another",
    "group_repos": "nosuch: {repo}-nosuch on …is not a git repository. Name the fleet's repository in flotilla_repo.",
    "group_inputs": "nosuch: {flake} has no input 'nosuch'. Its inputs are nixpkgs.",
    "channel_inputs": "nosuch: {flake} has no input 'nosuch'. Its inputs are nixpkgs.",
    "host_locks": "nosuch: there is no lock locks/nosuch-1.lock at commit …(flotilla_update=true) and commit it, or name",
}


def test_a_group_that_the_repository_has_not(site: Site, request: pytest.FixtureRequest) -> None:
    strategy = request.node.callspec.params["site"]
    repo = f"{site.repo.path}-nosuch" if strategy == "group_repos" else str(site.repo.path)
    inputs = ["nosuch"] if site.group.inputs else None
    group = update_group("nosuch", repo, strategy=strategy, inputs=inputs, members=[Member("nosuch-1", "nosuch-1")])

    def asking(_site: Site) -> str:
        if site.group.inputs:
            return updating(replace(site, group=group))
        return build_groups(RUNNER, [(group, None)], BuildSettings(dry=True)).groups["nosuch"].hosts[0].error

    refused(site, NO_GROUP[strategy], asking)


def test_a_group_without_hosts(site: Site) -> None:
    group = replace(site.group, members=())
    before = site.repo.state()
    assert built(replace(site, group=group)).error == "sbcs: this update group has no hosts. Put hosts into its inventory group."
    assert site.repo.state() == before


def test_a_branch_that_there_is_not(site: Site) -> None:
    there = "main, sbcs" if site.group.branch else "main"
    lost = replace(site, group=replace(site.group, branch="nosuch"))
    says = f"sbcs: the repository {{repo}} has no branch 'nosuch'. It has {there}. Make the branch, or name another"
    refused(lost, says, updating, building, looking)


def test_no_repository_and_one_without_commits(site: Site, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for name in ("plain", "nowhere"):
        says = f"sbcs: {tmp_path}/{name} on …is not a git repository. Name the fleet's repository in flotilla_repo."
        refused(replace(site, group=replace(site.group, repo=str(tmp_path / name))), says, updating, building, looking)
    empty = new_repo(tmp_path / "empty")
    says = f"sbcs: the repository {empty.path} has no commit yet. Commit the fleet's files first."
    refused(site.at(empty.path), says, updating, building, looking)


def test_a_repository_of_another_user(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.repo.state()
    says = f"sbcs: the repository {site.repo.path} belongs to another user, and git and nix refuse such repositories. Run"
    sh("chown", "-R", "nobody", str(site.repo.path))
    with monkeypatch.context() as other:
        other.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
        for door in (updating, building, looking):
            assert says in door(site)
    sh("chown", "-R", "root", str(site.repo.path))
    assert site.repo.state() == before


def test_nobody_to_commit_as(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("user.name", "user.email"):
        site.repo.git("config", "--unset", key)
    site.repo.git("config", "user.useConfigOnly", "true")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    refused(site, "sbcs: git on …does not know in whose name to commit. Set it there: git config --global user.name", updating)


# The builder's nix


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            'echo "nix (Nix) 2.8.0"',
            "its nix is too old: it says 'nix (Nix) 2.8.0', and 2.26 is the oldest…Install nix 2.26 or newer",
        ),
        (
            'for word; do shift; case $word in "nix-command flakes") word=;; esac; set -- "$@" "$word"; done\n'
            'NIX_CONFIG="experimental-features =" exec NIX "$@"',
            "nix has flakes switched off …Put `experimental-features = nix-command flakes` into its nix.conf.",
        ),
    ],
    ids=["too old", "flakes off"],
)
def test_a_nix_that_does_not_do(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str) -> None:
    program = Repo(tmp_path / "bin")
    program.write("nix", f"#!/bin/sh\n{script.replace('NIX ', shutil.which('nix') + ' ')}\n")
    (program.path / "nix").chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.path}:{sh('sh', '-c', 'echo $PATH')}")
    refused(site, says, updating, building)
