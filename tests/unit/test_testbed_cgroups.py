# SPDX-License-Identifier: GPL-3.0-or-later
"""Cgroups of the testbed's hosts; a plain directory stands in for the hierarchy."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from testbed import cgroups


def test_making_one_stands_another_fleet_that_goes_down(tmp_path: Path) -> None:
    """The shared parent comes and goes all the time meanwhile."""
    parent = tmp_path / "flotilla-testbed"
    stop = threading.Event()

    def go_down() -> None:
        while not stop.is_set():
            cgroups.remove(parent / "other/host")
            # Fleets go down one after the other, not without a pause: that could keep anybody out.
            time.sleep(0.0005)

    other = threading.Thread(target=go_down)
    other.start()
    try:
        for number in range(60):
            made = parent / f"fleet/host{number}"
            cgroups.make(made)
            assert made.is_dir()
            cgroups.remove(made)
    finally:
        stop.set()
        other.join()
