# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the tree as git knows it, and commands in an environment away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]


def version() -> str:
    """The collection's version, from where Ansible reads it."""
    return str(yaml.safe_load((TOP / "galaxy.yml").read_text())["version"])


@dataclass(frozen=True, slots=True)
class Install:
    """A virtual environment and a home of its own, away from the checkout."""

    folder: Path

    def run(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment; a failure shows everything that it printed."""
        bin_folder = self.folder / "venv/bin"
        keep = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "LANG", "LC_", "http"))}
        env = {**keep, "PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(self.folder), "ANSIBLE_NOCOLOR": "1"}
        command = [str(bin_folder / argv[0]), *map(str, argv[1:])]
        answer = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, check=False)
        if check and answer.returncode:
            pytest.fail(f"{' '.join(command)}: status {answer.returncode}\n{answer.stdout}\n{answer.stderr}", pytrace=False)
        return answer


def copy_tree(destination: Path) -> Path:
    """The files that git knows, or would if they were added, as they are now."""
    command = ["git", "-C", str(TOP), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if not os.path.lexists(TOP / name):
            continue
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TOP / name, destination / name, follow_symlinks=False)
    return destination
