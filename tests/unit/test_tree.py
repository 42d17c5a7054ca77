# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for the tree as a whole: headers, versions, the action group, the examples."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
HEADER = "SPDX-License-Identifier: GPL-3.0-or-later"
#: Files that cannot carry a comment, or that are the licence.
BARE = {"LICENSE"}
BARE_SUFFIXES = {".json", ".lock", ".png", ".svg", ".j2", ".patch"}
RECORDED = (
    "tests/sanity/ignore-",
    "tests/unit/data/",
    "tests/unit/fixtures/",
    "tests/integration/data/",
    "changelogs/changelog.yaml",
)


def tracked() -> list[str]:
    command = ["git", "-C", str(TOP), "ls-files", "-z"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.fail(f"git ls-files: {answer.stderr}")
    return [name for name in answer.stdout.split("\0") if name]


def test_every_file_carries_the_licence_header() -> None:
    def bare(name: str) -> bool:
        path = TOP / name
        return (
            name in BARE or path.suffix in BARE_SUFFIXES or name.startswith(RECORDED) or path.is_symlink() or not path.is_file()
        )

    missing = [
        name for name in tracked() if not bare(name) and HEADER not in "\n".join((TOP / name).read_text().splitlines()[:5])
    ]
    assert not missing


def modules() -> list[str]:
    return sorted(path.stem for path in (TOP / "plugins/modules").glob("*.py") if path.stem != "__init__")


def test_every_module_is_in_the_action_group() -> None:
    runtime = yaml.safe_load((TOP / "meta/runtime.yml").read_text())
    assert sorted(runtime["action_groups"]["all"]) == modules()


def test_every_module_is_an_action_plugin_and_the_other_way_round() -> None:
    actions = sorted(path.stem for path in (TOP / "plugins/action").glob("*.py") if path.stem != "__init__")
    assert actions == modules()


def documentation(path: Path) -> dict[str, str]:
    return dict(re.findall(r'^(DOCUMENTATION|EXAMPLES|RETURN) = r?"""\n?(.*?)"""', path.read_text(), re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("name", modules())
def test_module_is_documented(name: str) -> None:
    parts = documentation(TOP / f"plugins/modules/{name}.py")
    assert set(parts) == {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    assert yaml.safe_load(parts["DOCUMENTATION"])["module"] == name
    tasks = yaml.safe_load(parts["EXAMPLES"])
    assert any(f"flotilla.nixos.{name}" in task for task in tasks)
    assert yaml.safe_load(parts["RETURN"])


def test_tested_core_versions_are_the_supported_ones() -> None:
    runtime = yaml.safe_load((TOP / "meta/runtime.yml").read_text())
    pyproject = (TOP / "pyproject.toml").read_text()
    venvs = (TOP / "scripts/venvs.py").read_text()
    assert runtime["requires_ansible"] == ">=2.19.0"
    assert '"ansible-core>=2.19,<2.23"' in pyproject
    assert '"ansible-core>=2.19,<2.23"' in venvs
