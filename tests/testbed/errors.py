# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with the testbed, said in one line."""

from __future__ import annotations


class TestbedError(Exception):
    """An expected failure: on what, what, and what to do about it."""

    __test__ = False  # not a test class, whatever its name says

    def __init__(self, subject: str, what: str, hint: str = "") -> None:
        self.subject = subject
        super().__init__(f"{subject}: {what}." + (f" {hint}" if hint else ""))
