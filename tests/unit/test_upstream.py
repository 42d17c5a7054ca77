# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed's upstream: releases as tags, branches that move, the same revisions each time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest
from testbed import upstream
from testbed.upstream import RELEASES, SOURCE, UnknownRelease, Upstream


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    return upstream.create(tmp_path_factory.mktemp("upstream") / "nixpkgs.git")


def manifest_of(repository: Upstream, name: str) -> Mapping[str, object]:
    found: Mapping[str, object] = json.loads(repository.git("show", f"refs/tags/{name}:release.json"))
    return found


def test_every_release_is_a_tag_with_its_manifest(repository: Upstream) -> None:
    assert set(repository.git("tag").split()) == {release.name for release in RELEASES}
    for release in RELEASES:
        assert manifest_of(repository, release.name) == json.loads(json.dumps(upstream.manifest(release)))


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_a_release_makes_sense(release: upstream.Release) -> None:
    assert release.summary
    if release.parent:
        assert datetime.fromisoformat(release.date) > datetime.fromisoformat(upstream.find(release.parent).date)
    assert set(release.packages) | set(release.broken) | set(release.slow) <= set(upstream.BASE)
    for module in release.modules:
        assert (SOURCE / "nixos/releases" / f"{module}.nix").is_file()
    assert f"| `{release.name}` |" in (SOURCE / "README.md").read_text(), "the table in nixpkgs/README.md has it"


def test_no_release_module_is_left_over() -> None:
    used = {module for release in RELEASES for module in release.modules}
    assert {file.stem for file in (SOURCE / "nixos/releases").iterdir()} == used


def test_packages_are_inherited_and_changed() -> None:
    second = upstream.packages(upstream.find("25.05.2"))
    assert (second["glibc"], second["linux"]) == ("2.40-70", upstream.BASE["linux"])
    assert upstream.packages(upstream.find("25.05.3"))["glibc"] == "2.40-70"


def test_commits_are_dated_and_reproducible(repository: Upstream, tmp_path: Path) -> None:
    again = upstream.create(tmp_path / "again.git")
    assert again.git("show-ref", "--tags") == repository.git("show-ref", "--tags")
    assert repository.git("show", "--no-patch", "--format=%cI", "refs/tags/25.05.2") == "2026-10-19T12:00:00+00:00"


def test_branches_move_and_stay(tmp_path: Path) -> None:
    repository = upstream.create(tmp_path / "nixpkgs.git")
    assert [repository.current(branch) for branch in upstream.BRANCHES] == ["25.05.1", "25.05.1"]
    revision = repository.release("25.05.4")
    assert revision == repository.revision("nixos-unstable") == repository.revision("refs/tags/25.05.4")
    repository.release("bad-sshd", ("nixos-25.05",))
    repository = upstream.create(tmp_path / "nixpkgs.git")
    assert [repository.current(branch) for branch in upstream.BRANCHES] == ["25.05.4", "bad-sshd"]


def test_an_unknown_release_is_named(repository: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownRelease, match=r"^99\.99: no such release\. There are: 25\.05\.1, "):
        repository.release("99.99")
    assert upstream.main([str(repository.path), "release", "99.99"]) == 1
    assert capsys.readouterr().err.startswith("99.99: no such release.")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "nixpkgs.git")
    assert upstream.main([path, "create"]) == 0
    assert upstream.main([path, "release", "25.05.2", "--branch", "nixos-25.05"]) == 0
    assert upstream.main([path, "list"]) == 0
    told = capsys.readouterr().out
    assert "25.05.1          2026-10-05  the first one; a fresh testbed host runs it  ← nixos-unstable\n" in told
    assert "← nixos-25.05\n" in told


@pytest.mark.parametrize(("release", "ref"), [("25.05.2", "refs/tags/25.05.2"), ("bad-unit", "refs/tags/bad-unit")])
def test_urls(repository: Upstream, release: str, ref: str) -> None:
    assert repository.url() == f"git+file://{repository.path}?ref=nixos-unstable"
    assert repository.pinned_url(release) == f"git+file://{repository.path}?ref={ref}&rev={repository.revision(ref)}"
