# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run of Ansible acts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from ansible_collections.flotilla.nixos.plugins.plugin_utils import controller_run
from ansible_collections.flotilla.nixos.plugins.plugin_utils.controller_run import (
    is_left_behind,
    is_over,
    mark_of,
    may_inherit,
    owner_of,
    this_run,
)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def token_of(process: subprocess.Popen[bytes]) -> str:
    place = this_run().partition("-")[0]
    return f"{place}-{process.pid}-{controller_run._began(process.pid)}"


def test_workers_are_of_the_same_run() -> None:
    queue = multiprocessing.get_context("fork").SimpleQueue()
    worker = multiprocessing.get_context("fork").Process(target=lambda: queue.put(this_run()))
    worker.start()
    assert queue.get() == this_run()
    worker.join()


def test_a_run_is_over_when_its_process_is(other: subprocess.Popen[bytes]) -> None:
    token = token_of(other)
    assert not is_over(token)
    assert not is_over(this_run())
    os.kill(other.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    # Dead, but nobody has asked for its status yet.
    assert is_over(token)
    other.wait()
    assert is_over(token)


def test_what_cannot_be_known_is_not_over(other: subprocess.Popen[bytes]) -> None:
    token = token_of(other)
    place, pid, began = token.split("-")
    assert is_over(f"{place}-{pid}-{int(began) - 1}")
    elsewhere = "0" * 8 if place != "0" * 8 else "1" * 8
    for unknown in (f"{elsewhere}-{pid}-{int(began) - 1}", f"{place}-{pid}-0", "", "7", f"{token}x"):
        assert not is_over(unknown)


def test_only_the_same_persons_run_that_is_over_is_taken_up(other: subprocess.Popen[bytes]) -> None:
    mine = owner_of("anna@desk")
    token = token_of(other)
    assert not may_inherit(mine, f"anna@desk (run {token})")
    other.kill()
    other.wait()
    assert may_inherit(mine, f"anna@desk (run {token})")
    for former in (f"ben@desk (run {token})", "anna@desk", "anna@awx job 7", ""):
        assert not may_inherit(mine, former)
    assert not may_inherit("anna@desk", f"anna@desk (run {token})")


def test_a_copy_of_a_run_that_goes_on_is_not_left_behind(other: subprocess.Popen[bytes]) -> None:
    mine = mark_of("web 1")
    assert " " not in mine
    theirs = f"{mine.rpartition('_')[0]}_{token_of(other)}"
    assert not is_left_behind(theirs, mine)
    other.kill()
    other.wait()
    assert is_left_behind(theirs, mine)
    assert not is_left_behind(f"x{theirs}", mine)
    assert not is_left_behind(mine, mine)
