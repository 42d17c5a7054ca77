# SPDX-License-Identifier: GPL-3.0-or-later
"""Clean virtual environments with the collection installed from a copy of the tree."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clean_install import TOP, Install, copy_tree
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

PAIRS = {"floor": TOP / ".venv", "newest": TOP / ".venv-newest"}


class EachPairOnOneWorker(LoadScopeScheduling):
    """Installs of the same pair are shared."""

    def _split_scope(self, nodeid: str) -> str:
        return next((pair for pair in PAIRS if f"[{pair}" in nodeid), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return EachPairOnOneWorker(config, log)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree") / "checkout")


@pytest.fixture(scope="session", params=list(PAIRS))
def install(request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    """`pip install .` in a clean environment, as a user would do it, on each tested Python."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([PAIRS[request.param] / "bin/python", "-m", "venv", folder / "venv"], check=True)
    made = Install(folder)
    cache = subprocess.run([PAIRS[request.param] / "bin/pip", "cache", "dir"], capture_output=True, text=True, check=True)
    made.run("pip", "install", "--quiet", "--cache-dir", cache.stdout.strip(), tree)
    yield made
    shutil.rmtree(folder)
