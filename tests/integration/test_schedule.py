# SPDX-License-Identifier: GPL-3.0-or-later
"""The schedule of examples/schedules/cron, as cron runs it: its lines, its environment, no terminal, nothing to type into.

One story in the order of the file: each test goes on from where the one before has left the fleet.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration import strategies
from integration.strategies import Site
from testbed import Fleet
from testbed.playbooks import Ansible

SCHEDULES = Path(__file__).parents[2] / "examples/schedules"
VARIABLE = re.compile(r"([A-Z]+)=(.*)")
ENTRY = re.compile(r"(?P<when>(?:\S+\s+){5})(?P<user>[a-z]+)\s+(?P<command>.+)")


@dataclass(frozen=True)
class Crontab:
    """The shipped file: its variables, and its commands by the name of the result that each writes."""

    variables: dict[str, str]
    commands: dict[str, str]


def crontab() -> Crontab:
    lines = [line for line in (SCHEDULES / "cron/flotilla").read_text().splitlines() if line and not line.startswith("#")]
    variables = dict(match.groups() for line in lines if (match := VARIABLE.fullmatch(line)))
    commands = [match["command"] for line in lines if (match := ENTRY.fullmatch(line))]
    assert len(variables) + len(commands) == len(lines), "a line is neither"
    return Crontab(variables, {re.findall(r"/([a-z-]+)\.json", command)[0]: command for command in commands})


@pytest.fixture(scope="module")
def site(fleet: Fleet, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    for each in strategies.site("group_flakes", fleet, ansible, folder):
        strategies.rolls_out_first(each)
        yield each


@dataclass(frozen=True)
class Cron:
    """Runs the file's commands for one site."""

    site: Site
    home: Path

    def run(self, name: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        """What the command left, and the result that it wrote."""
        table = crontab()
        ours = self.site.ansible.environment(self.home)
        # What an installation has in its own places is said by the environment here: nix, ssh's keys, the collection.
        needed = ("NIX_", "ANSIBLE_PRIVATE", "ANSIBLE_SSH", "ANSIBLE_HOME", "PYTHONPATH", "XDG_")
        places = {name: value for name, value in ours.items() if name.startswith(needed)}
        values = {"FLEET": str(self.site.layout.home.path), "STATE": str(self.home), "PATH": ours["PATH"]}
        # Nothing of it may need a home that is there.
        env = {**table.variables, **places, **values, "HOME": "/nonexistent", "LOGNAME": "flotilla"}
        (self.home / f"{name}.json").unlink(missing_ok=True)
        shell = table.variables["SHELL"]
        words = [shell, "-c", table.commands[name]]
        done = subprocess.run(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            start_new_session=True,
        )
        return done, json.loads((self.home / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def cron(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Cron:
    return Cron(site, tmp_path_factory.mktemp("cron"))


def test_the_night_says_whether_the_newest_builds(cron: Cron) -> None:
    cron.site.release("25.05.2")
    before = cron.site.snapshot()
    done, result = cron.run("canary-update")
    assert (result["status"], done.stdout, done.stderr) == ("ok", "", "")
    candidate = result["groups"]["canary"]["candidate"]
    assert cron.site.layout.home.git("rev-parse", "refs/flotilla/candidate/canary") == candidate
    after = cron.site.snapshot()
    assert (after.heads, after.tree, after.hosts) == (before.heads, before.tree, before.hosts)


def test_the_canary_gets_it(cron: Cron) -> None:
    before = cron.site.snapshot()
    done, result = cron.run("canary")
    assert (result["status"], done.stdout, done.stderr) == ("ok", "", "")
    assert result["hosts"]["canary1"]["outcome"] == "updated"
    assert set(cron.site.running("canary").values()) == {"25.05.2"}
    assert cron.site.snapshot().hosts["stable1"] == before.hosts["stable1"]


def test_stable_gets_what_the_canary_has_proven(cron: Cron) -> None:
    cron.site.fleet.fault("stable2", "link-down")
    done, result = cron.run("stable")
    assert (result["status"], done.stdout, done.stderr) == ("ok", "", "")
    assert {host: values["outcome"] for host, values in result["hosts"].items()} == {"stable1": "updated", "stable2": "deferred"}


def test_who_was_away_catches_up(cron: Cron) -> None:
    cron.site.fleet.fault("stable2", "link-up")
    done, result = cron.run("catchup")
    assert (result["status"], done.stdout, done.stderr) == ("ok", "", "")
    assert result["hosts"]["stable2"]["outcome"] == "updated"
    assert set(cron.site.running("stable").values()) == {"25.05.2"}
    # Half an hour later there is nobody left.
    done, result = cron.run("catchup")
    assert (result["status"], done.stdout, done.stderr) == ("ok", "", "")


def test_a_bad_release_is_mailed(cron: Cron) -> None:
    cron.site.release("bad-unit")
    done, result = cron.run("canary")
    assert result["status"] == "failed"
    assert result["hosts"]["canary1"]["outcome"] == "rolled_back"
    assert "canary1 rolled back: " in done.stdout
    assert set(cron.site.running("canary").values()) == {"25.05.2"}


def test_every_schedule_sets_variables_that_there_are(cron: Cron) -> None:
    """The other examples say the same playbooks and variables; awx.awx and NixOS are not to be had here."""
    books = {path.name for path in cron.site.layout.home.path.glob("*.yml")}
    specs = yaml.safe_load((SCHEDULES.parents[1] / "roles/rollout/meta/argument_specs.yml").read_text())["argument_specs"]
    known = {name for entry in specs.values() for name in entry["options"]}
    files = [file for file in sorted(SCHEDULES.rglob("*")) if file.is_file() and file.suffix != ".md"]
    assert len(files) == 5
    for file in files:
        text = file.read_text()
        assert set(re.findall(r"\bflotilla_[a-z_]+", text)) <= known, file
        assert set(re.findall(r"\b[a-z]+\.yml\b", text)) - {"setup.yml"} <= books, file
