# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped schedules: a run that meets another one waits for it, rather than fail."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

SCHEDULES = Path(__file__).parents[2] / "examples/schedules"


def test_every_run_of_the_crontab_waits() -> None:
    commands = re.findall(r"ansible-playbook (\S+) (.*)", (SCHEDULES / "cron/flotilla").read_text())
    assert {playbook for playbook, _ in commands} >= {"rollout.yml", "promote.yml", "catchup.yml"}
    assert [playbook for playbook, options in commands if not re.search(r"-e flotilla_wait=[1-9]", options)] == []


def test_catching_up_waits_for_less_than_until_its_next_run() -> None:
    line = next(line for line in (SCHEDULES / "cron/flotilla").read_text().splitlines() if line.startswith("*/30"))
    found = re.search(r"flotilla_wait=(\d+)", line)
    assert found is not None
    assert int(found[1]) < 30 * 60


def test_every_job_of_awx_waits_and_shares_the_ledger() -> None:
    [play] = yaml.safe_load((SCHEDULES / "awx/setup.yml").read_text())
    given = {job["playbook"]: job["extra_vars"] for job in play["vars"]["schedules"]}
    assert {book for book, values in given.items() if values.get("flotilla_wait", 0) > 0 and values.get("flotilla_push")} == set(
        given
    )


def test_the_units_wait() -> None:
    for name in ("nixos/flotilla-schedules.nix", "systemd/flotilla-rollout@.service"):
        assert re.search(r"-e flotilla_wait=[1-9]", (SCHEDULES / name).read_text()), name
