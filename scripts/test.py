#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs kinds of tests, side by side where they do not disturb each other, and closes with what was counted.

scripts/test.py KIND…    (lint, unit, packaging, molecule, integration)

In CI a skipped test is a failure: what cannot run there has to be made to run, or taken out on purpose.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from lint import stages as lint_stages
from stages import LOGS, TOP, Outcome, Stage, report, run

PAIRS = {"floor": Path(".venv/bin"), "newest": Path(".venv-newest/bin")}
RESULTS = TOP / ".cache/results"
#: The testbed's hosts are containers, with bridges and mounts.
AS_ROOT = () if os.geteuid() == 0 else ("sudo", "--preserve-env=CI,PATH,PYTHONDONTWRITEBYTECODE,FLOTILLA_TEST_VENV")
#: Tests mostly wait for hosts, and each worker has a fleet of its own.
SPREAD = ("-v", "-n", "4")
#: Real hosts meet real deadlines while four workers share the processors. A second try is named at the end, not hidden.
AGAIN = ("--reruns", "1", "-rR")
#: What an ansible-core can change on real hosts: the whole job, and the ssh options that are read from its plugins.
NEWEST = ("tests/integration/test_rollout.py", "tests/integration/test_ssh.py")


def pytest(name: str, pair: str, *arguments: str, **options: object) -> Stage:
    """A stage that runs pytest in one of the environments and leaves its counts behind."""
    words = ["-m", "pytest", "--color=no", "-p", "no:cacheprovider", f"--junit-xml={RESULTS / name}.xml", *arguments]
    argv = [*(AS_ROOT if name.startswith("integration") else ()), PAIRS[pair] / "python", *words]
    return Stage(name, argv, **options)  # type: ignore[arg-type]


def stages() -> dict[str, list[Stage]]:
    """The stages of each kind. What measures time, or would disturb what does, comes `after` the rest."""
    lint = lint_stages()
    quick = (*(stage.name for stage in lint), "unit-floor", "unit-newest", "packaging", "testbed-base")
    base = Stage("testbed-base", [*AS_ROOT, "tests/testbed/testbed", "prepare"])
    return {
        "lint": lint,
        "unit": [pytest(f"unit-{pair}", pair, "-q", "tests/unit") for pair in PAIRS],
        "packaging": [pytest("packaging", "floor", "-q", "-n", "2", "tests/packages")],
        "molecule": [base, Stage("molecule", [*AS_ROOT, "scripts/molecule", "test"], after=quick)],
        "integration": [
            base,
            pytest("integration", "floor", "tests/integration", *SPREAD, *AGAIN, after=quick, live=True),
            pytest(
                "integration-newest",
                "newest",
                *NEWEST,
                "-v",
                "-n",
                "2",
                *AGAIN,
                after=quick,
                env={"FLOTILLA_TEST_VENV": ".venv-newest"},
            ),
        ],
    }


def counts(stage: Stage) -> Counter[str]:
    """What the stage's pytest counted; a stage without one counts nothing."""
    path = RESULTS / f"{stage.name}.xml"
    if not path.exists():
        return Counter()
    found: Counter[str] = Counter()
    for suite in ElementTree.parse(path).iter("testsuite"):
        number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        found["failed"] += number["failures"] + number["errors"]
        found["skipped"] += number["skipped"]
        found["passed"] += number["tests"] - number["failures"] - number["errors"] - number["skipped"]
    return found


def close(outcomes: list[Outcome], seconds: float) -> int:
    """Print the closing lines; give the exit status."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total += counts(outcome.stage)
    red = [outcome.stage.name for outcome in outcomes if outcome.status]
    skipped_in_ci = bool(total["skipped"] and os.environ.get("CI"))
    print(f"\n{len(outcomes)} stages in {seconds:.0f} s" + (f"; failed: {', '.join(red)}" if red else ""))
    if skipped_in_ci:
        print("Tests were skipped, which counts as a failure in CI; their reasons stand above.")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped", flush=True)
    return 1 if red or skipped_in_ci else 0


def show_skips(outcome: Outcome) -> None:
    if not outcome.stage.live and counts(outcome.stage)["skipped"]:
        print(*(line for line in outcome.stage.log.read_text().splitlines() if line.startswith("SKIPPED")), sep="\n")


def main() -> int:
    kinds = stages()
    unknown = [kind for kind in sys.argv[1:] if kind not in kinds]
    if unknown or not sys.argv[1:]:
        print(f"usage: scripts/test.py KIND…   (of {', '.join(kinds)})", file=sys.stderr)
        return 64
    by_name = {stage.name: stage for kind in sys.argv[1:] for stage in kinds[kind]}
    # The base comes first: it downloads while the linters compute.
    chosen = sorted(by_name.values(), key=lambda stage: stage.name != "testbed-base")
    subprocess.run(["rm", "-rf", str(RESULTS)], check=True)
    RESULTS.mkdir(parents=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    started = time.monotonic()
    outcomes = []
    for outcome in run(chosen, jobs=2):
        report(outcome)
        show_skips(outcome)
        outcomes.append(outcome)
    return close(outcomes, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
