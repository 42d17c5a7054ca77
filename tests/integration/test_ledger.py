# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger with real git: who writes at the same time, other repositories, odd ones, and the modules on each ansible-core."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.candidate import known_good_ref
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed
from ansible_collections.flotilla.nixos.plugins.module_utils.git_notes import NOTES, join, notes
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import HostRecord, Rollout, Source
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger_record import (
    Occasion,
    Report,
    as_rollout,
    read,
    record,
    settle,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.outcome import Outcome
from ansible_collections.flotilla.nixos.plugins.module_utils.update_group import UpdateGroup, update_group
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Repo, new_repo, sh

ROOT = Path(__file__).parents[2]
VENVS = [venv for venv in (".venv", ".venv-newest") if (ROOT / venv / "bin/ansible-playbook").exists()]
RUNNER = LocalRunner()
SBCS = update_group("sbcs", "/anywhere")
LOCK = {
    "version": 7,
    "root": "root",
    "nodes": {
        "root": {"inputs": {"nixpkgs": "nixpkgs", "tools": "tools"}},
        **{
            name: {
                "locked": {"type": "github", "owner": "example", "repo": name, "rev": "a" * 40, "lastModified": 1763596800},
                "original": {"type": "github", "owner": "example", "repo": name},
            }
            for name in ("nixpkgs", "tools")
        },
    },
}


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """git knows nobody's name here, whoever runs the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    (tmp_path / "gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = new_repo(tmp_path / "fleet")
    made.write("hosts/sbcs/flake.lock", json.dumps(LOCK))
    made.commit()
    return made


def opened(repo: Repo | Path, subject: str = "sbcs") -> git.Repository:
    return git.open_repository(RUNNER, str(repo.path if isinstance(repo, Repo) else repo), subject)


def line(repo: Repo | Path, name: str, *, at: int = 1000, group: str = "sbcs", commit: str | None = None, **more: Any) -> Rollout:
    """A good rollout of two hosts."""
    there = opened(repo)
    hosts = {host: HostRecord(Outcome.UPDATED, f"/nix/store/{name}-{host}", None, at) for host in ("pi-1", "pi-2")}
    fields = {key: more.pop(key) for key in ("inputs",) if key in more}
    report = Report(of(there.path, group, **fields), commit, Source.HEAD, hosts, **more)
    return as_rollout(there, report, Occasion(name, "switch", at - 60, at, {"user": "op"}))


def of(path: str, group: str, **fields: Any) -> UpdateGroup:
    return update_group(group, path, **fields)


def ids(repo: Repo | Path) -> list[str]:
    return sorted(rollout.id for rollout in read(opened(repo)))


def refs(repo: Repo) -> dict[str, str]:
    return dict(line.split()[::-1] for line in repo.git("for-each-ref", "--format=%(objectname) %(refname)").splitlines())


def test_a_rollout_stands_in_git_log(repo: Repo) -> None:
    before = repo.state()
    rollout = line(repo, "one", inputs=["nixpkgs"], reason="pi-3 failed")
    assert record(opened(repo), [rollout], "t") == [rollout]
    shown = repo.git("log", "--notes=flotilla", "-1")
    assert '{"id": "one", "group": "sbcs", "outcome": "complete", "reason": "pi-3 failed", ' in shown
    assert rollout.pins == {"nixpkgs": {"url": "github:example/nixpkgs", "rev": "a" * 40, "date": "2025-11-20"}}
    assert read(opened(repo)) == [rollout]
    assert set(refs(repo)) == {"refs/heads/main", NOTES}
    repo.git("update-ref", "-d", NOTES)
    assert repo.state() == before


def test_the_same_rollout_is_recorded_once(repo: Repo) -> None:
    assert record(opened(repo), [line(repo, "one")], "t")
    named = refs(repo)
    assert record(opened(repo), [line(repo, "one", at=2000)], "t") == []
    assert refs(repo) == named
    both = [line(repo, "one"), line(repo, "one", group="servers")]
    assert record(opened(repo), both, "t") == both[1:]


def test_check_mode_writes_nothing(repo: Repo) -> None:
    rollout = line(repo, "one")
    assert record(opened(repo), [rollout], "t", check=True) == [rollout]
    assert settle(opened(repo), SBCS, [rollout], 1000, check=True)
    assert set(refs(repo)) == {"refs/heads/main"}


def test_writers_at_the_same_time_lose_nothing(repo: Repo) -> None:
    commits = [repo.commit(), repo.commit()]
    # As many as two fleets' controllers would hardly be.
    made = [line(repo, f"r{number}", commit=commits[number % 2]) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda rollout: record(opened(repo), [rollout], rollout.id), made))
    assert ids(repo) == [f"r{number}" for number in range(8)]
    assert [len(note.lines) for note in notes(opened(repo))] == [4, 4]
    assert set(refs(repo)) == {"refs/heads/main", NOTES}
    assert repo.git("notes", "--ref=flotilla", "prune", "--dry-run") == ""


def test_notes_of_others_are_left_alone(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    repo.git("notes", "--ref=flotilla", "add", "-m", "Looked good to me.\n\n{}")
    assert read(opened(repo)) == []
    record(opened(repo), [line(repo, "one")], "t")
    text = repo.git("notes", "--ref=flotilla", "show", head)
    assert text.startswith("Looked good to me.\n{}\n{")
    assert ids(repo) == ["one"]


def test_two_controllers_share_a_ledger(repo: Repo, tmp_path: Path) -> None:
    head = repo.commit()
    hub = tmp_path / "hub.git"
    sh("git", "clone", "--quiet", "--bare", str(repo.path), str(hub))
    one, two = tmp_path / "one", tmp_path / "two"
    for clone in (one, two):
        sh("git", "clone", "--quiet", str(hub), str(clone))
        record(opened(clone), [line(clone, clone.name, commit=head)], "t")
    assert not join(opened(one), "origin", "t")
    assert join(opened(two), "origin", "t")
    assert join(opened(one), "origin", "t")
    assert not join(opened(one), "origin", "t")
    assert ids(one) == ids(two) == ids(hub) == ["one", "two"]
    # By hand, as git itself would.
    record(opened(two), [line(two, "three", commit=head)], "t")
    sh("git", "fetch", "--quiet", str(two), f"+{NOTES}:refs/notes/theirs", cwd=one)
    Repo(one).git("notes", "--ref=flotilla", "merge", "--quiet", "-s", "cat_sort_uniq", "theirs")
    assert ids(one) == ["one", "three", "two"]
    assert {name for name in refs(Repo(two)) if name.startswith(("refs/notes", "refs/flotilla"))} == {NOTES}


def test_a_remote_that_does_not_answer_or_refuses(repo: Repo, tmp_path: Path) -> None:
    record(opened(repo), [line(repo, "one")], "t")
    with pytest.raises(CommandFailed, match=r"(?s)fetching the ledger from origin failed: .* It is kept here"):
        join(opened(repo), "origin", "t")
    hub = tmp_path / "hub.git"
    sh("git", "clone", "--quiet", "--bare", str(repo.path), str(hub))
    (hub / "hooks/pre-receive").write_text("#!/bin/sh\necho 'no notes here' >&2\nexit 1\n")
    (hub / "hooks/pre-receive").chmod(0o755)
    repo.git("remote", "add", "origin", str(hub))
    with pytest.raises(CommandFailed, match=r"(?s)origin did not take the ledger: .*no notes here.*kept here"):
        join(opened(repo), "origin", "t")
    assert ids(repo) == ["one"]


@pytest.mark.parametrize("kind", ["bare", "shallow", "detached", "linked work tree"])
def test_other_kinds_of_repositories(repo: Repo, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other"
    if kind == "detached":
        repo.git("checkout", "--quiet", "--detach")
        path = repo.path
    elif kind == "linked work tree":
        repo.git("worktree", "add", "--quiet", "-b", "other", str(path))
    else:
        repo.commit()
        sh("git", "clone", "--quiet", "--bare" if kind == "bare" else "--depth=1", f"file://{repo.path}", str(path))
    rollout = line(path, "one")
    record(opened(path), [rollout], "t")
    assert settle(opened(path), SBCS, read(opened(path)), 1000)
    assert git.commit_of(opened(path), known_good_ref(SBCS)) == rollout.commit
    assert rollout.branch == {"detached": None, "linked work tree": "other"}.get(kind, "main")


def test_a_commit_that_is_gone_keeps_its_line(repo: Repo) -> None:
    kept = repo.commit()
    gone = repo.commit()
    record(opened(repo), [line(repo, "gone", commit=gone), line(repo, "kept", commit=kept, at=900)], "t")
    repo.git("reset", "--quiet", "--hard", kept)
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    assert ids(repo) == ["gone", "kept"]
    record(opened(repo), [line(repo, "later", at=3000)], "t")
    assert ids(repo) == ["gone", "kept", "later"]
    with pytest.raises(BadInput, match=r"^sbcs: its known-good commit [0-9a-f]{12} is not in the repository"):
        settle(opened(repo), SBCS, [r for r in read(opened(repo)) if r.id == "gone"], 2000)
    with pytest.raises(BadInput, match=r"has no commit [0-9a-f]{40}, so its rollout cannot be recorded there"):
        line(repo, "again", commit=gone)


def test_known_good_follows_the_soak(repo: Repo) -> None:
    first = line(repo, "one", soak=50)
    second = line(repo, "two", at=2000, commit=repo.commit(), soak=50)
    record(opened(repo), [first, second], "t")
    there = opened(repo)
    moves = [settle(there, SBCS, read(there), now) for now in (1049, 1050, 1051, 2049, 2050, 2051)]
    # The second rollout ended the first one's stretch after its soak.
    assert moves == [False, True, False, False, True, False]
    assert git.commit_of(there, known_good_ref(SBCS)) == second.commit


def test_a_group_without_a_lock_or_with_a_broken_one_is_recorded(repo: Repo) -> None:
    assert line(repo, "one", group="servers").pins == {}
    repo.write("hosts/sbcs/flake.lock", "<<<<<<< HEAD\n")
    repo.commit()
    assert line(repo, "two").pins == {}


@pytest.fixture(params=VENVS)
def venv(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def run_tasks(folder: Path, venv: str, tasks: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Run tasks on localhost with an Ansible: their results, and what was printed."""
    play = {"hosts": "localhost", "gather_facts": False, "ignore_errors": True, "tasks": tasks}
    (folder / "play.yml").write_text(json.dumps([play]))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "PYTHONPATH": str(ROOT / ".dev"),
        "ANSIBLE_STDOUT_CALLBACK": "minimal",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_HOME": str(folder / "home"),
    }
    argv = [str(ROOT / venv / "bin/ansible-playbook"), "play.yml"]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    results = [json.JSONDecoder().raw_decode(part)[0] for part in f"{done.stdout}\n".split(" => ")[1:]]
    assert len(results) == len(tasks), done.stdout + done.stderr
    return results, done.stdout + done.stderr


def hosts(**results: str) -> Sequence[Mapping[str, str]]:
    return [{"name": name.replace("_", "-"), "result": result} for name, result in results.items()]


def test_the_modules(repo: Repo, tmp_path: Path, venv: str) -> None:
    head = repo.git("rev-parse", "HEAD")
    groups = [{"name": "sbcs", "repo": str(repo.path)}]
    rollout = {"group": "sbcs", "soak": "1m", "hosts": hosts(pi_1="updated", pi_2="deferred")}
    given = {"groups": groups, "id": "one", "rollouts": [rollout], "started": 1000, "ended": 2000}
    unknown = {"groups": groups, "id": "two", "rollouts": [{**rollout, "commit": "f" * 40}], "continue_on_error": True}
    tasks: list[dict[str, Any]] = [
        {"flotilla.nixos.flake_ledger": given, "check_mode": True, "diff": True},
        {"flotilla.nixos.flake_ledger": given},
        {"flotilla.nixos.flake_ledger": {**given, "ended": 3000}},
        {"flotilla.nixos.flake_ledger": {"groups": groups, "state": "settled"}},
        {"flotilla.nixos.flake_ledger_info": {"groups": groups}},
        {"flotilla.nixos.flake_ledger": {"groups": groups}},
        {"flotilla.nixos.flake_ledger": {**given, "rollouts": [{**rollout, "soak": "soon"}]}},
        {"flotilla.nixos.flake_ledger": {**given, "rollouts": [{**rollout, "group": "servers"}]}},
        {"flotilla.nixos.flake_ledger": unknown},
    ]
    results, printed = run_tasks(tmp_path, venv, tasks)
    foretold, done, again, settled, read_again, *refused, warned = results
    assert foretold["changed"]
    assert f"+{head}" in printed
    assert [result["groups"]["sbcs"]["recorded"] for result in (foretold, done, again)] == [True, True, False]
    assert [result["changed"] for result in (done, again, settled)] == [True, False, False]
    assert refs(repo)[known_good_ref(SBCS)] == head
    found = read_again["groups"]["sbcs"]
    assert found["known_good_ref"] == found["known_good"]["commit"] == foretold["groups"]["sbcs"]["known_good"]["commit"] == head
    assert found["known_good"]["since"] == "1970-01-01T00:34:20Z"
    assert [(late["host"], late["since"]) for late in found["deferred"]] == [("pi-2", "1970-01-01T00:16:40Z")]
    assert [(line["id"], line["outcome"], line["ended"]) for line in found["rollouts"]] == [
        ("one", "complete", "1970-01-01T00:33:20Z")
    ]
    assert found["rollouts"][0]["by"]["controller"] == os.uname().nodename
    assert [result["msg"] for result in refused] == [
        "state is recorded but all of the following are missing: rollouts, id",
        "sbcs: flotilla_soak is no length of time: 'soon'. Give seconds, or a number with s, m, h, d or w, such as 2d.",
        "servers: its rollout is to be recorded, but the group is not in `groups`. Name it there, too.",
    ]
    assert not warned.get("failed")
    assert "has no commit ffff" in warned["groups"]["sbcs"]["msg"]
    assert "The ledger was not written." in printed.replace("\n", " ")
