# SPDX-License-Identifier: GPL-3.0-or-later
"""A name that the ledger knows as an update group's is not taken for a branch, whatever hosts the inventory has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import git
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger import Ending, Rollout, Source
from ansible_collections.flotilla.nixos.plugins.module_utils.ledger_record import record
from ansible_collections.flotilla.nixos.plugins.module_utils.proving import Proven, require_proven
from ansible_collections.flotilla.nixos.plugins.module_utils.recorded_groups import group_without_hosts
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> git.Repository:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "commit", "-q", "--allow-empty", "-m", "Begin"], check=True)
    return git.open_repository(LocalRunner(), str(tmp_path), "test")


def test_a_branch_that_was_never_a_group(repo: git.Repository) -> None:
    assert group_without_hosts(repo, "main") == ()
    assert group_without_hosts(repo, "feature/x") == ()


def test_a_group_with_a_known_good_commit(repo: git.Repository) -> None:
    subprocess.run(["git", "-C", repo.path, "update-ref", "refs/flotilla/known-good/canary", "main"], check=True)
    against = group_without_hosts(repo, "canary")
    assert against
    found = Proven("c" * 40, against, "Use the inventory that has its hosts.")
    with pytest.raises(BadInput, match=r"canary: .*ledger.*knows.*no host of this inventory.*inventory that has.*flotilla_force"):
        require_proven("canary", found, "")
    assert require_proven("canary", found, "urgent").startswith("urgent (although it is an update group")


def test_a_group_that_has_proven_nothing_but_was_rolled_out(repo: git.Repository) -> None:
    commit = git.branch_head(repo, "main")
    line = Rollout("1", "canary", commit, Source.HEAD, "switch", Ending.HALTED, 1, 2, {}, reason="c1 failed")
    assert record(repo, [line], "token")
    assert group_without_hosts(repo, "canary")
    assert group_without_hosts(repo, "main") == ()
