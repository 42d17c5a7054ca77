# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages: their form, and that they give no password away."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import FlotillaError, masked
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fatal: https://oauth2:glpat-x@git.corp/a.git: 403", "fatal: https://***@git.corp/a.git: 403"),
        ("'git+https://u:p@h/x?ref=main' and https://:t@h/y", "'git+https://***@h/x?ref=main' and https://***@h/y"),
        ("ssh://git@github.com/a/b", "ssh://git@github.com/a/b"),
        ("https://h:443/x", "https://h:443/x"),
        ("https://h/x: y@z", "https://h/x: y@z"),
    ],
)
def test_passwords_in_urls_are_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert str(FlotillaError("sbcs", text)) == f"sbcs: {shown}."
    assert shown in RunResult(("git", text), 0, "", "", 0.0).command.replace("'\"'\"'", "'")


def test_a_hint_is_a_sentence_of_its_own() -> None:
    assert str(FlotillaError("sbcs", "it broke", "Mend it.")) == "sbcs: it broke. Mend it."
