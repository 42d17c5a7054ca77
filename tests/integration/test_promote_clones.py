# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays in front of a promotion and a restore in a clone that a third group shares: they guard its branch, too."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from testbed.playbooks import default_venv

ROOT = Path(__file__).parents[2]
NOBODY = {f"GIT_{who}_{what}": "op@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass(frozen=True)
class Controller:
    """A controller with an inventory of three groups, whose branches are those of one remote repository."""

    folder: Path

    def git(self, *words: str) -> str:
        command = ["git", "-C", str(self.folder / "remote.git"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | NOBODY).stdout.strip()

    def commit(self, branch: str, subject: str, *parents: str) -> None:
        above = [word for parent in parents for word in ("-p", parent)]
        commit = self.git("commit-tree", "4b825dc642cb6eb9a060e54bf8d69288fbee4904", *above, "-m", subject)
        self.git("update-ref", f"refs/heads/{branch}", commit)

    def play(self, book: str, *words: str) -> str:
        """What a playbook says that ends before it comes to any host."""
        venv = default_venv()
        extra = {"flotilla_result_file": str(self.folder / "result.json"), "flotilla_clones": str(self.folder / "clones")}
        command = [str(venv / "bin/ansible-playbook"), "-i", str(self.folder / "hosts.json"), str(ROOT / f"playbooks/{book}.yml")]
        env = {**os.environ, **NOBODY, "PYTHONPATH": str(ROOT / ".dev"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run([*command, "-e", json.dumps(extra), *words], env=env, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        return " ".join((done.stdout + done.stderr).split())

    @property
    def result(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "result.json").read_text())
        return found


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    found = Controller(tmp_path)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "remote.git")], check=True)
    groups = ("canary", "stable", "third")
    for group in ("main", *groups):
        found.commit(group, "Begin")
    common = {
        "flotilla_repo": f"file://{tmp_path}/remote.git",
        "flotilla_strategy": "group_branches",
        "flotilla_update_groups": groups,
        "ansible_connection": "local",
    }
    children = {group: {"hosts": {f"{group}1": {}}} for group in groups}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": common, "children": children}}))
    return found


@pytest.mark.parametrize(("book", "words"), [("restore", ["group=stable"]), ("promote", ["from=canary", "to=stable"])])
def test_a_third_groups_branch_that_was_forced_is_not_followed(controller: Controller, book: str, words: list[str]) -> None:
    chosen = [word for assignment in words for word in ("-e", assignment)]
    controller.play(book, *chosen)
    (clone,) = (controller.folder / "clones").glob("*.git")
    before = controller.git("rev-parse", "third")
    controller.commit("third", "Forced")
    said = controller.play(book, *chosen)
    head = subprocess.run(
        ["git", "-C", clone, "rev-parse", "refs/heads/third"], check=True, capture_output=True, text=True
    ).stdout
    assert head.strip() == before, said


@pytest.mark.parametrize(("book", "words"), [("restore", ["group=stable"]), ("promote", ["from=canary", "to=stable"])])
def test_what_goes_wrong_with_the_clone_is_written_down(controller: Controller, book: str, words: list[str]) -> None:
    (controller.folder / "remote.git").rename(controller.folder / "gone.git")
    said = controller.play(book, *[word for assignment in words for word in ("-e", assignment)])
    assert "cannot be fetched from" in said
    assert controller.result["status"] == "failed"
    assert "cannot be fetched from" in controller.result["reason"]


def test_a_restore_to_an_update_group_is_refused(controller: Controller) -> None:
    said = controller.play("restore", "-e", "group=stable", "-e", "to=canary")
    assert "canary is an update group, and a restore goes back to a commit" in said
    assert controller.result["status"] == "refused"
    assert not (controller.folder / "clones").exists()
