# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock's changes in words."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.lock_message import subject_line, whole_message
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import Change, Pin

NOV_2, NOV_20 = 1793577600, 1795132800


def pin(rev: str | None, when: int | None = None) -> Pin:
    return Pin("github:NixOS/nixpkgs", rev and rev * 40, "stable", when, "sha256-x")


OLD, NEW = pin("a", NOV_2), pin("b", NOV_20)


def change(name: str = "nixpkgs", old: Pin | None = OLD, new: Pin | None = NEW) -> Change:
    return Change(name, old, new, None)


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ([change()], "sbcs: nixpkgs 2026-11-02 → 2026-11-20"),
        ([change(), change("hm/nixpkgs")], "sbcs: nixpkgs 2026-11-02 → 2026-11-20"),
        ([change("hm/nixpkgs")], "sbcs: hm/nixpkgs 2026-11-02 → 2026-11-20"),
        ([change(new=pin("b", NOV_2))], "sbcs: nixpkgs aaaaaaa → bbbbbbb"),
        ([change(old=pin("a", 1), new=pin("b", 1))], "sbcs: nixpkgs aaaaaaa → bbbbbbb"),
        ([change(old=pin(None), new=pin(None))], "sbcs: nixpkgs"),
        ([change(old=None), change("hm", new=None)], "sbcs: nixpkgs added, hm dropped"),
        ([change(), change("hm")], "sbcs: nixpkgs 2026-11-02 → 2026-11-20, hm 2026-11-02 → 2026-11-20"),
        ([change(name) for name in ("nixpkgs", "hm", "sops")], "sbcs: update nixpkgs, hm, sops"),
        ([change(f"input-number-{n}") for n in range(9)], "sbcs: update input-number-0 and 8 more inputs"),
        ([], "sbcs: lock what flake.nix says"),
    ],
)
def test_subjects(changes: list[Change], subject: str) -> None:
    assert subject_line("sbcs", changes) == subject


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ([change()], "stable: nixpkgs 2026-11-02 → 2026-11-20 (from canary)"),
        ([change(), change("hm")], "stable: move nixpkgs, hm (from canary)"),
        ([change(f"input-number-{n}") for n in range(9)], "stable: move input-number-0 and 8 more inputs (from canary)"),
    ],
)
def test_subjects_say_whose_pins_they_are(changes: list[Change], subject: str) -> None:
    assert subject_line("stable", changes, why="from canary") == subject
    assert whole_message("stable", changes, why="from canary", origin="The pins of canary.").endswith("\n\nThe pins of canary.\n")


def test_the_body_has_revisions_and_links() -> None:
    link = "https://github.com/NixOS/nixpkgs/compare/a...b"
    message = whole_message("sbcs", [Change("nixpkgs", pin("a", NOV_2), pin("b", NOV_20), link)])
    assert message == (
        "sbcs: nixpkgs 2026-11-02 → 2026-11-20\n\n"
        "nixpkgs:\n"
        f"  from github:NixOS/nixpkgs stable {'a' * 40} (2026-11-02)\n"
        f"  to   github:NixOS/nixpkgs stable {'b' * 40} (2026-11-20)\n"
        f"  {link}\n"
    )
