#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs all linters side by side: scripts/lint.py [NAME…]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stages import TOP, Stage, report, run

BIN = Path(".venv/bin")
PYTHON = ("plugins", "scripts", "tests")
TYPED = ("plugins", "scripts", "tests/testbed")


def tracked(*patterns: str) -> list[str]:
    """The files of those patterns that git knows, or would if they were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in sorted(set(names)) if name and (TOP / name).is_file()]


def shell_scripts() -> list[str]:
    """Every shell script: by its ending, or by its first line."""

    def is_shell(name: str) -> bool:
        with (TOP / name).open("rb") as file:
            first = file.readline(80).rstrip()
        return name.endswith(".sh") or first in (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash", b"#!/usr/bin/env sh")

    return [name for name in tracked() if is_shell(name)]


def stages() -> list[Stage]:
    return [
        Stage("sanity", ["scripts/sanity"]),
        Stage("mypy", [BIN / "mypy", *TYPED]),
        Stage("ruff-check", [BIN / "ruff", "check", "--quiet", *PYTHON]),
        Stage("ruff-format", [BIN / "ruff", "format", "--check", "--quiet", "--diff", *PYTHON]),
        Stage("shellcheck", ["shellcheck", "--external-sources", *shell_scripts()]),
        Stage("yamllint", [BIN / "yamllint", "--strict", *tracked("*.yml", "*.yaml")]),
        Stage("ansible-lint", ["scripts/with-collection", BIN / "ansible-lint", "--offline", "--strict", "-q"]),
        Stage(
            "antsibull-docs", ["scripts/with-collection", BIN / "antsibull-docs", "lint-collection-docs", "--plugin-docs", "."]
        ),
        Stage("antsibull-changelog", [BIN / "antsibull-changelog", "lint"]),
    ]


def main() -> int:
    wanted = sys.argv[1:]
    chosen = [stage for stage in stages() if not wanted or stage.name in wanted]
    failed = []
    for outcome in run(chosen, jobs=2):
        report(outcome)
        if outcome.status:
            failed.append(outcome.stage.name)
    if failed:
        print(f"lint: {', '.join(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
