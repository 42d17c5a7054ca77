# SPDX-License-Identifier: GPL-3.0-or-later
"""Clones of ours with real git: what a fetch brings forward, what it never loses, and what is said when it cannot."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.clones import Clone, clone_path, give_known_good, is_clone, refresh
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed
from ansible_collections.flotilla.nixos.plugins.module_utils.git_notes import notes
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Repo, new_repo, sh

RUNNER = LocalRunner()


def owner() -> str:
    return f"{os.uname().nodename} {os.getpid()} {int(time.time())} tester"


class Site:
    """A repository that people push to, and a controller's clone of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.upstream = new_repo(folder / "upstream")
        self.upstream.write("flake.nix", "{ }\n")
        self.upstream.commit()
        self.url = f"file://{self.upstream.path}"

    @property
    def path(self) -> Path:
        return Path(clone_path(self.url, str(self.folder / "clones")))

    @property
    def mine(self) -> Repo:
        return Repo(self.path)

    def fetch(self, *guarded: str, url: str | None = None, offline: bool = False) -> Clone:
        branches = guarded or (None,)
        return refresh(
            RUNNER,
            url or self.url,
            str(self.path),
            owner(),
            subject="sbcs",
            token=uuid.uuid4().hex,
            guarded=branches,
            offline=offline,
        )

    def commit(self, text: str) -> str:
        self.upstream.write("flake.nix", text)
        return self.upstream.commit()

    def own_commit(self, branch: str = "main") -> str:
        """A commit that only the clone has."""
        tree, head = self.mine.git("rev-parse", f"{branch}^{{tree}}", branch).split()
        return self.mine.git("commit-tree", tree, "-p", head, "-m", "Ours")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_clone_is_made_and_brought_forward_and_again_nothing_happens(site: Site) -> None:
    first = site.fetch()
    assert (first.created, first.default, is_clone(first.repo), first.repo.bare) == (True, "main", True, True)
    again = site.fetch()
    assert (again.created, again.moved, again.warnings, again.parted) == (False, (), (), {})
    head = site.commit("{ inputs = { }; }\n")
    site.upstream.git("branch", "field/a")
    site.upstream.git("tag", "-a", "-m", "One", "v1")
    assert len(site.fetch().moved) == 2
    assert site.mine.git("rev-parse", "main", "field/a", "v1^{commit}").split() == [head] * 3
    assert site.fetch().moved == ()
    assert [entry.name for entry in site.path.parent.iterdir()] == [site.path.name]


def test_a_default_branch_that_is_renamed_is_followed(site: Site) -> None:
    site.fetch()
    site.upstream.git("branch", "-m", "main", "trunk")
    found = site.fetch("trunk")
    assert (found.default, found.parted) == ("trunk", {})
    assert site.mine.git("symbolic-ref", "HEAD") == "refs/heads/trunk"


def test_commits_that_were_never_pushed_are_kept_and_named(site: Site) -> None:
    site.fetch()
    ours = site.own_commit()
    site.mine.git("update-ref", "refs/heads/main", ours)
    (warning,) = site.fetch().warnings
    assert warning.startswith(
        f"sbcs: branch main of the clone has commits that {site.url} has not; they were kept. Push them: git -C"
    )
    assert site.mine.git("rev-parse", "main") == ours
    theirs = site.commit("{ inputs = { }; }\n")
    found = site.fetch()
    assert str(found.parted["main"]).startswith(f"sbcs: branch main of {site.url} has no longer the commit {ours[:12]}")
    assert site.mine.git("rev-parse", "main", "refs/remotes/origin/main").split() == [ours, theirs]


def test_a_branch_that_was_rewritten_is_an_error_for_its_group_each_time_and_its_fix_works(site: Site) -> None:
    site.upstream.git("branch", "dev")
    site.upstream.git("checkout", "--quiet", "dev")
    old = site.commit("{ inputs = { }; }\n")
    site.fetch("dev")
    site.upstream.git("commit", "--quiet", "--amend", "-m", "Another")
    new = site.upstream.git("rev-parse", "dev")
    for _time in range(2):
        found = site.fetch("dev")
        assert "it was force-pushed, or that commit never arrived there" in str(found.parted["dev"])
        assert site.mine.git("rev-parse", "dev") == old
    sh(*found.parted["dev"].hint.partition("Take theirs: ")[2].split())
    assert site.fetch("dev").parted == {}
    assert site.mine.git("rev-parse", "dev") == new


def test_a_branch_that_no_group_is_on_follows_what_was_rewritten_and_nothing_is_lost(site: Site) -> None:
    site.upstream.git("checkout", "--quiet", "-b", "topic/one")
    old = site.commit("{ inputs = { }; }\n")
    site.upstream.git("checkout", "--quiet", "main")
    site.fetch("main")
    site.upstream.git("branch", "--force", "topic/one", "main")
    site.upstream.git("checkout", "--quiet", "topic/one")
    site.upstream.git("commit", "--quiet", "--allow-empty", "-m", "Another")
    assert site.fetch("main").parted == {}
    assert site.mine.git("rev-parse", "topic/one") == site.upstream.git("rev-parse", "topic/one")
    assert site.mine.git("rev-parse", "refs/flotilla/gone/topic+one") == old
    # A branch in whose place there is a folder of branches now.
    site.upstream.git("checkout", "--quiet", "main")
    site.upstream.git("branch", "--quiet", "-D", "topic/one")
    site.upstream.git("branch", "topic")
    assert site.fetch("main").parted == {}
    assert site.mine.git("for-each-ref", "--format=%(refname)", "refs/heads").split() == ["refs/heads/main", "refs/heads/topic"]


def test_a_branch_that_is_gone_is_an_error_for_its_group(site: Site) -> None:
    site.upstream.git("branch", "field")
    site.fetch("field")
    site.upstream.git("branch", "--quiet", "-D", "field")
    for _time in range(2):
        found = site.fetch("field")
        assert str(found.parted["field"]).startswith(f"sbcs: branch field is gone from {site.url}; the clone still has it at")
        assert git.commit_of(found.repo, "refs/heads/field")


def test_the_ledger_and_known_good_come_along_and_go_back(site: Site, tmp_path: Path) -> None:
    head = site.upstream.git("rev-parse", "main")
    site.upstream.git("notes", "--ref=flotilla", "add", "-m", "theirs", head)
    site.upstream.git("update-ref", "refs/flotilla/known-good/sbcs", head)
    found = site.fetch()
    assert {"the ledger", "known-good of sbcs"} <= set(found.moved)
    assert [(note.commit, note.lines) for note in notes(found.repo)] == [(head, ["theirs"])]
    site.mine.git("notes", "--ref=flotilla", "append", "-m", "ours", head)
    site.upstream.git("notes", "--ref=flotilla", "append", "-m", "theirs too", head)
    assert site.fetch().moved == ("the ledger",)
    assert set(notes(found.repo)[0].lines) == {"theirs", "theirs too", "ours"}
    assert site.fetch().moved == ()
    # A known-good commit of ours stays, and gets to the remote when it has moved.
    ours = site.own_commit()
    site.mine.git("update-ref", "refs/flotilla/known-good/sbcs", ours)
    assert site.fetch().moved == ()
    assert site.mine.git("rev-parse", "refs/flotilla/known-good/sbcs") == ours
    give_known_good(found.repo, "origin", "sbcs", anew=False)
    assert site.upstream.git("rev-parse", "refs/flotilla/known-good/sbcs") == ours
    other = Site.__new__(Site)
    other.folder, other.upstream, other.url = tmp_path / "other", site.upstream, site.url
    other.fetch()
    assert other.mine.git("rev-parse", "refs/flotilla/known-good/sbcs") == ours


def test_two_runs_at_once_make_one_clone(site: Site) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _i: site.fetch(), range(4)))
    assert sorted(clone.created for clone in made) == [False, False, False, True]
    assert [entry.name for entry in site.path.parent.iterdir()] == [site.path.name]


def test_what_a_killed_run_left_is_removed(site: Site) -> None:
    left = site.path.parent / f"{site.path.name}.new.abcdefgh"
    (left / "objects").mkdir(parents=True)
    assert site.fetch().created
    assert not left.exists()


def test_what_is_no_clone_of_ours_is_left_alone(site: Site) -> None:
    sh("git", "init", "--quiet", "--bare", str(site.path))
    with pytest.raises(BadInput, match=r"is in the way: it is no clone of ours\. Move it away, or set flotilla_clones"):
        site.fetch()
    assert (site.path / "HEAD").exists()


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no HEAD": lambda path: (path / "HEAD").unlink(),
    "garbage in the config": lambda path: (path / "config").write_text("[core\n"),
    "an empty branch": lambda path: empty(path / "refs/heads/main"),
    "no refs": lambda path: (path / "refs").rename(path / "refs.gone"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_clone_is_made_anew_with_all_that_only_it_had(site: Site, damage: Callable[[Path], object]) -> None:
    site.fetch()
    ours, candidate = site.own_commit(), site.own_commit()
    candidate = site.mine.git("commit-tree", f"{candidate}^{{tree}}", "-p", candidate, "-m", "A candidate")
    site.mine.git("update-ref", "refs/heads/main", ours)
    site.mine.git("update-ref", "refs/flotilla/candidate/sbcs", candidate)
    site.mine.git("notes", "--ref=flotilla", "add", "-m", "ours", ours)
    damage(site.path)
    if not (site.path / "refs").exists():
        # Then only what was packed can be read.
        (site.path / "packed-refs").write_text(f"{ours} refs/heads/main\n{candidate} refs/flotilla/candidate/sbcs\n")
    found = site.fetch()
    assert found.created
    (aside,) = site.path.parent.glob("*.damaged.*")
    assert "was damaged, and was made anew" in found.warnings[0]
    assert str(aside) in found.warnings[0]
    assert site.mine.git("rev-parse", "refs/flotilla/candidate/sbcs") == candidate
    lost = "refs/heads/main, which cannot be read there" in found.warnings[0]
    assert site.mine.git("rev-parse", "main") == (site.upstream.git("rev-parse", "main") if lost else ours)
    assert lost == (damage is DAMAGES["an empty branch"])
    again = site.fetch()
    assert not again.created
    assert (aside / "objects").exists()


@pytest.mark.parametrize("damage", ["no HEAD", "garbage in the config", "an empty branch"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_clone_that_a_killed_run_put_aside_is_not_forgotten(site: Site, damage: str, *, offline: bool) -> None:
    site.fetch()
    ours = site.own_commit()
    site.mine.git("update-ref", "refs/heads/field", ours)
    site.mine.git("update-ref", "refs/flotilla/candidate/sbcs", ours)
    DAMAGES[damage](site.path)
    site.path.rename(f"{site.path}.damaged.{uuid.uuid4().hex}")
    if offline:
        with pytest.raises(BadInput, match="there is but a damaged clone"):
            site.fetch(offline=True)
    found = site.fetch()
    assert any("was killed while it replaced the clone" in warning for warning in found.warnings) != offline
    assert "was damaged, and was made anew" in found.warnings[0 if offline else 1]
    assert site.mine.git("rev-parse", "refs/heads/field", "refs/flotilla/candidate/sbcs").split() == [ours, ours]
    assert len([*site.path.parent.glob("*.damaged.*")]) == 1
    again = site.fetch()
    assert (again.created, [warning for warning in again.warnings if "field" not in warning]) == (False, [])


def test_settings_that_were_lost_are_written_again(site: Site) -> None:
    site.fetch()
    empty(site.path / "config")
    empty(site.path / "flotilla.config")
    found = site.fetch()
    assert (found.created, is_clone(found.repo), found.repo.bare) == (False, True, True)


def test_a_damaged_clone_that_cannot_be_fetched_anew_stays(site: Site) -> None:
    site.fetch()
    empty(site.path / "refs/heads/main")
    site.upstream.path.rename(site.folder / "away")
    with pytest.raises(CommandFailed, match="cannot be fetched from"):
        site.fetch()
    assert (site.path / "refs/heads/main").exists()
    with pytest.raises(BadInput, match="there is but a damaged clone"):
        site.fetch(offline=True)


def test_offline(site: Site) -> None:
    with pytest.raises(BadInput, match=r"there is no clone of .*\. Run once without flotilla_offline"):
        site.fetch(offline=True)
    site.fetch()
    site.upstream.path.rename(site.folder / "away")
    (warning,) = site.fetch(offline=True).warnings
    assert warning == f"sbcs: {site.url} was not fetched from."


# What is said when a remote does not answer


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///nowhere/fleet.git", "there is no such repository, or it is not shown to this user. Correct the URL"),
        ("ssh://git@127.0.0.1:1/fleet.git", "it cannot be reached. Try again when it answers."),
        ("git@no-such-host.invalid:fleet.git", "there is no machine of this name. Correct the URL, or see to the network"),
        ("http://127.0.0.1:1/fleet.git", "it cannot be reached. Try again when it answers."),
    ],
)
def test_a_remote_that_does_not_answer(site: Site, url: str, says: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        site.fetch(url=url)
    assert str(caught.value).startswith(f"sbcs: {url} cannot be fetched from: {says}")
    assert not site.path.exists()
    assert list(site.path.parent.iterdir()) == []
    site.fetch()
    before = site.mine.git("for-each-ref")
    with pytest.raises(CommandFailed, match="cannot be fetched from"):
        site.fetch(url=url)
    assert site.mine.git("for-each-ref") == before


def test_a_remote_without_a_commit(site: Site) -> None:
    sh("git", "init", "--quiet", "--bare", str(site.folder / "empty.git"))
    with pytest.raises(BadInput, match=r"has no commit on its default branch yet\. Push the fleet's files first"):
        site.fetch(url=f"file://{site.folder}/empty.git")


class Private(http.server.SimpleHTTPRequestHandler):
    """Serves files to those who say `user` and `s3cret`."""

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(b"user:s3cret").decode()
        if self.headers.get("Authorization") == wanted:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="fleet"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_words: Any) -> None: ...


@pytest.fixture
def private(site: Site) -> Iterator[str]:
    """The repository behind a password; HOST:PORT/PATH."""
    bare = site.folder / "web/fleet.git"
    sh("git", "clone", "--quiet", "--bare", str(site.upstream.path), str(bare))
    sh("git", "-C", str(bare), "update-server-info")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Private, directory=str(site.folder / "web")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}/fleet.git"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_password_in_the_url_is_used_and_never_shown(site: Site, private: str) -> None:
    found = site.fetch(url=f"http://user:s3cret@{private}")
    assert found.created
    assert "s3cret" not in repr(found)
    assert site.path.stat().st_mode & 0o077 == 0
    for url in (f"http://user:wr0ng@{private}", f"http://{private}"):
        with pytest.raises(CommandFailed) as caught:
            site.fetch(url=url)
        assert "it does not let git in without a user and password, or not with these" in str(caught.value)
        assert "wr0ng" not in f"{caught.value} {caught.value.result and caught.value.result.command}"
