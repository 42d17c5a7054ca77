# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that overlap, and what each leaves for a machine: real playbooks, a real repository, stand-ins for the rest."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.claims import Claim, Claims, holders
from ansible_collections.flotilla.nixos.plugins.plugin_utils.controller_run import this_run
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from integration.repositories import Repo
from integration.test_rollout_ledger import repo as repo
from integration.test_rollout_semantics import ALL, ROOT, UPDATE, VENVS, Fleet
from integration.test_rollout_semantics import fleet as fleet

pytestmark = pytest.mark.parametrize("fleet", VENVS[:1], indirect=True)

DEAD_RUN = """
import sys
sys.path[:0] = sys.argv[1:]
from ansible_collections.flotilla.nixos.plugins.plugin_utils.controller_run import this_run
print(this_run())
"""


def claims(token: str) -> Claims:
    now = int(time.time())
    return Claims(LocalRunner(), Claim(token, now, now + 3600, "anna@desk", "rollout"), lambda _run: False)


def places(repo: Repo, *groups: str) -> list[tuple[str, git.Repository]]:
    opened = git.open_repository(LocalRunner(), str(repo.path), "test")
    return [(group, opened) for group in groups]


def held(repo: Repo) -> list[str]:
    return list(holders(LocalRunner(), places(repo, "sbcs", "servers")))


def result(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_text())
    assert values["version"] == 1
    return values


def written(fleet: Fleet) -> tuple[str, str]:
    return "-e", f"flotilla_result_file={fleet.path}/result.json"


@pytest.mark.parametrize("playbook", ["rollout", "update"])
def test_a_second_run_is_refused_and_says_who_is_at_work(fleet: Fleet, repo: Repo, playbook: str) -> None:
    claims(this_run()).take(places(repo, "sbcs"))
    run = fleet.run(*ALL, *written(fleet), playbook=f"flotilla.nixos.{playbook}")
    assert run.status == 2
    assert "sbcs: anna@desk has been at work on it since " in run.output
    assert {name for name, _host, _arguments in run.calls} == set()
    found = result(fleet.path / "result.json")
    assert found["status"] == "refused"
    assert found["reason"].startswith("sbcs: anna@desk has been at work on it since ")
    # The other group goes on, and gives back what it had claimed.
    assert fleet.run("-l", "servers").status == 0
    assert held(repo) == ["sbcs"]
    # A check is no work.
    run = fleet.run(*ALL, "--check")
    assert run.status == 0
    assert "sbcs: anna@desk has been at work on it since " in " ".join(run.output.split())
    assert fleet.run(*ALL, "-e", "flotilla_take_over=true").status == 0
    assert held(repo) == []


def test_it_waits_if_it_is_told_to(fleet: Fleet, repo: Repo) -> None:
    mine = claims(this_run())
    mine.take(places(repo, "sbcs"))
    timer = threading.Timer(6, mine.give_back, [places(repo, "sbcs")])
    timer.start()
    run = fleet.run(*ALL, "-e", "flotilla_wait=50")
    timer.join()
    assert run.status == 0, run.output
    assert "waiting up to 50 s for it" in run.output
    assert len(run.called("system_activate")) == 6


def test_two_real_runs_at_once(fleet: Fleet, repo: Repo) -> None:
    slow = {"flake_build": {"*": {"sleep": 10}}}
    runs: dict[str, Any] = {}
    first = threading.Thread(target=lambda: runs.update(first=fleet.run(*ALL, scenario=slow)))
    first.start()
    deadline = time.monotonic() + 30
    while not held(repo):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    second = fleet.run("-l", "sbcs", *written(fleet), scenario=slow)
    first.join()
    assert runs["first"].status == 0, runs["first"].output
    assert second.status == 2
    assert "has been at work on it since" in result(fleet.path / "result.json")["reason"]
    assert held(repo) == []


def test_what_a_killed_run_left_is_taken_up(fleet: Fleet, repo: Repo) -> None:
    done = subprocess.run([sys.executable, "-c", DEAD_RUN, *sys.path], capture_output=True, text=True, check=True)
    claims(done.stdout.strip()).take(places(repo, "sbcs", "servers"))
    assert fleet.run(*ALL).status == 0
    assert held(repo) == []


def test_a_run_that_breaks_off_gives_back(fleet: Fleet, repo: Repo) -> None:
    run = fleet.run(*ALL, *written(fleet), scenario={"flake_build": {"*": {"failed": True, "msg": "the builder is full."}}})
    assert run.status == 2
    assert held(repo) == []
    found = result(fleet.path / "result.json")
    assert (found["status"], found["reason"]) == ("failed", "the builder is full.")


def test_the_result_of_a_rollout(fleet: Fleet, repo: Repo) -> None:
    bad = {"pi-1": {"failed": True, "outcome": "rolled_back", "msg": "pi-1: app.service fails."}}
    run = fleet.run(*UPDATE, *written(fleet), scenario={"system_activate": bad})
    assert run.status == 2
    found = result(fleet.path / "result.json")
    assert (found["status"], list(found["failed"])) == ("failed", ["pi-1", "pi-2", "pi-3", "pi-4"])
    assert found["ended"] >= found["started"]
    assert found["id"].startswith(found["started"])
    assert found["hosts"]["pi-1"]["outcome"] == "rolled_back"
    assert found["hosts"]["pi-1"]["reason"] == "app.service fails."
    assert found["hosts"]["pi-2"]["outcome"] == "held"
    assert found["hosts"]["web1"]["outcome"] == "updated"
    assert (found["groups"]["sbcs"]["halted"], found["groups"]["servers"]["halted"]) == (True, False)
    assert "pi-1 rolled back in batch 1" in found["groups"]["sbcs"]["reason"]
    assert fleet.run(*ALL, *written(fleet)).status == 0
    assert result(fleet.path / "result.json")["status"] == "ok"
    assert fleet.run(*written(fleet)).status == 2
    assert "there is no limit" in result(fleet.path / "result.json")["reason"]
    assert held(repo) == []


def test_the_result_of_an_update(fleet: Fleet, repo: Repo) -> None:
    assert fleet.run(*ALL, *written(fleet), playbook="flotilla.nixos.update").status == 0
    found = result(fleet.path / "result.json")
    assert found["status"] == "ok"
    assert found["groups"]["sbcs"]["candidate"].startswith("cccccccccccc")
    assert found["groups"]["sbcs"]["branch"] == "main"
    red = {"flake_build": {"*": {"override": {"sbcs": {"failed": True, "msg": "sbcs: pi-1 does not build."}}}}}
    assert fleet.run(*ALL, *written(fleet), scenario=red, playbook="flotilla.nixos.update").status == 2
    found = result(fleet.path / "result.json")
    assert (found["status"], found["reason"]) == (
        "failed",
        "sbcs: the candidate does not build, and was dropped. sbcs: pi-1 does not build.",
    )
    assert held(repo) == []


def test_a_result_that_cannot_be_written_is_said_before_anything_is_done(fleet: Fleet, repo: Repo) -> None:
    run = fleet.run(*ALL, "-e", "flotilla_result_file=/nowhere/result.json")
    assert run.status == 2
    assert "flotilla_result_file '/nowhere/result.json': it cannot be written" in run.output
    assert run.calls == []
    assert held(repo) == []


def test_what_the_other_run_landed_meanwhile_is_deployed(fleet: Fleet, repo: Repo) -> None:
    """A repository by URL is fetched after the wait, not before."""
    real = fleet.path / "ansible_collections/flotilla/nixos/plugins/action/flake_clone.py"
    real.symlink_to(ROOT / "plugins/action/flake_clone.py")
    inventory = fleet.path / "inventory"
    inventory.write_text(inventory.read_text().replace(f"={repo.path}", f"=file://{repo.path}"))
    clones = ("-e", f"flotilla_clones={fleet.path}/clones")
    assert fleet.run(*ALL, *clones).status == 0
    (clone,) = (fleet.path / "clones").glob("*.git")
    mine, place = claims(this_run()), places(Repo(clone), "sbcs")
    mine.take(place)
    landed: list[str] = []

    def land() -> None:
        landed.append(repo.commit())
        mine.give_back(place)

    timer = threading.Timer(6, land)
    timer.start()
    run = fleet.run(*ALL, *clones, "-e", "flotilla_wait=50")
    timer.join()
    assert run.status == 0, run.output
    (build,) = run.arguments("flake_build")
    assert {group["commit"] for group in build["groups"]} == set(landed)
