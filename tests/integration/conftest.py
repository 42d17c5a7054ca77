# SPDX-License-Identifier: GPL-3.0-or-later
"""What integration tests share: a fleet on this machine, and an Ansible that runs it.

Nothing is skipped: where the testbed cannot run, the tests fail with the one line that says why. FLOTILLA_TESTBED begins the
name of the fleet, FLOTILLA_TEST_VENV is the venv with the Ansible under test, FLOTILLA_TESTBED_KEEP=1 leaves the fleet up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from ansible.plugins.loader import init_plugin_loader
from testbed import Fleet, Host, TestbedError, prerequisites
from testbed.locks import first_free
from testbed.playbooks import Ansible, default_venv
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Before any test imports the collection by itself: Ansible has to be the one that finds it.
init_plugin_loader()

#: Files whose tests share nothing with each other: they go to whichever worker is free. Other files stay with one worker.
SCATTERED = ("test_activation.py", "test_bad_layouts.py", "test_closure_copy.py", "test_ssh.py")


class Spread(LoadScopeScheduling):
    """pytest-xdist 3.8's own loadgroup does nothing under pytest 9.2, and says nothing of it."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file.endswith(SCATTERED) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return Spread(config, log)


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """A fleet of this test session's (or xdist worker's) own, without hosts at first; it goes down at the end.

    Its name is the first free one of pytest-1, pytest-2, …: sessions do not meet, and what a killed one left is replaced.
    """
    try:
        prerequisites.check()
    except TestbedError as error:
        pytest.fail(f"the testbed cannot run here: {error}", pytrace=False)
    with first_free(os.environ.get("FLOTILLA_TESTBED", "pytest")) as name:
        fleet = Fleet(name)
        fleet.down()
        yield fleet.up()
        if not os.environ.get("FLOTILLA_TESTBED_KEEP"):
            fleet.down()


@pytest.fixture
def fresh_hosts(fleet: Fleet) -> Callable[..., list[Host]]:
    """`fresh_hosts("web1", "web2")`: these hosts as new, whatever tests before have done to them (about 3 s)."""

    def fresh(*names: str) -> list[Host]:
        fleet.reset(*names)
        return [fleet.host(name) for name in names]

    return fresh


@pytest.fixture
def hosts(fleet: Fleet) -> Callable[..., list[Host]]:
    """`hosts("web1", "web2")`: these hosts, up, as other tests have left them: for tests that only look."""

    def up(*names: str) -> list[Host]:
        fleet.up(names)
        return [fleet.host(name) for name in names]

    return up


@pytest.fixture
def host(fresh_hosts: Callable[..., list[Host]]) -> Host:
    """One host as new."""
    return fresh_hosts("target")[0]


@pytest.fixture(scope="session")
def ansible(fleet: Fleet) -> Ansible:
    """The Ansible under test, as this fleet's controller."""
    return Ansible(fleet, default_venv())


@pytest.fixture
def controller(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process with the controller's environment (nix on PATH, its configuration): for tests that call our code directly."""
    env = fleet.env()
    for name, value in fleet.exports().items():
        monkeypatch.setenv(name, value)
    return env
