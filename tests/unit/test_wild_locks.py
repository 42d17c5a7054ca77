# SPDX-License-Identifier: GPL-3.0-or-later
"""Every file of a sample of 144 from public repositories that is called a lock: read and written back, or refused in a sentence.

The archive's INDEX.tsv says where each is from.
"""

from __future__ import annotations

import re

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.graft import graft, unlocked
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import (
    Lock,
    difference,
    followed,
    parse_lock,
    pins,
    reachable,
    root_inputs,
)
from wild_locks import wild_texts

TEXTS = wild_texts()
INDEX = TEXTS.pop("INDEX.tsv")

CONFLICT = r"has a merge conflict in it\. .* The conflict begins at line \d+"
ENCRYPTED = r"is encrypted by git-crypt, and nix cannot read it"
EMPTY = r"is empty\. Bring the last good one back"
OLD = r"has version [1-4], and only 5 to 7 can be read\. Write it again with a current nix"
OTHER_TEXT = r"is not JSON: .* \(it begins with '(# Adapted from https:|SPDX-FileCopyrightText:)"
#: What is said of those that are no lock.
BAD = {
    "Cjen1__nixos-config__flake@83d4bb8f.lock": CONFLICT,
    "ModestMeowth__dotfiles__flake@5291821f.lock": CONFLICT,
    "NiXium-org__NiXium__flake@ce64e5f4.lock": CONFLICT,
    "NixOS__infra__delft__flake@6fa368e5.lock": OLD,
    "NixOS__nix__flake@092ee246.lock": OLD,
    "NixOS__nix__flake@2bc55aba.lock": OLD,
    "NixOS__nix__flake@455aa8d9.lock": OLD,
    "NixOS__nix__flake@54ca4b4e.lock": OLD,
    "NixOS__nix__flake@6636808e.lock": OLD,
    "NixOS__nix__flake@671f16ae.lock": OLD,
    "NixOS__nix__flake@78284529.lock": r"is not JSON: Expecting ',' delimiter: line 125 column 9",
    "NixOS__nix__flake@d749f513.lock": OLD,
    "NixOS__nix__flake@ebc4dae5.lock": OLD,
    "NobbZ__nixos-config__flake@b59abda1.lock": CONFLICT,
    "NobbZ__nixos-config__flake@e4997acc.lock": CONFLICT,
    "NotAShelf__nyx__flake@0dde9685.lock": CONFLICT,
    "RingOfStorms__dotfiles__hosts__h002__flake@4aea29f8.lock": CONFLICT,
    "Vagahbond__nix-config__flake.lock.old@91ccc9af.lock": CONFLICT,
    "bqv__rc__flake@5d50879d.lock": OLD,
    "bqv__rc__flake@9dd9e082.lock": OLD,
    "bqv__rc__flake@cef548d2.lock": OLD,
    "bqv__rc__flake@e6fe07e6.lock": OLD,
    "cachix__devenv__devenv@66c161c7.lock": CONFLICT,
    "cachix__devenv__flake@66c161c7.lock": CONFLICT,
    "divnix__digga__flake@a8a34959.lock": CONFLICT,
    "divnix__digga__flake@c9005375.lock": OLD,
    "divnix__digga__ufr-polyfills__flake.lock.nix@7608f958.lock": OTHER_TEXT,
    "divnix__digga__ufr-polyfills__flake.lock.nix@8a77ad79.lock": OTHER_TEXT,
    "fidgetingbits__nix-config__locks__moth.lock": ENCRYPTED,
    "fidgetingbits__nix-config__locks__moth@f3d14bbf.lock": ENCRYPTED,
    "fidgetingbits__nix-config__locks__oedo.lock": ENCRYPTED,
    "fidgetingbits__nix-config__locks__okra.lock": ENCRYPTED,
    "fidgetingbits__nix-config__locks__okra@3118d586.lock": ENCRYPTED,
    "fidgetingbits__nix-config__locks__onyx@a0a6b3f9.lock": ENCRYPTED,
    "fidgetingbits__nix-config__locks__ossa.lock": ENCRYPTED,
    "haitranviet96__my-server__infra__flake@8b3c9fbe.lock": EMPTY,
    "kradalby__dotfiles__flake@09f57ec0.lock": CONFLICT,
    "nikita-sh__nixos-config__flake.lock": r"is not JSON: Expecting property name enclosed in double quotes: line 505 column 9",
    "nix-community__NUR__flake@b33db10e.lock": OLD,
    "nix-community__nixos-anywhere__tests__terraform__flake.lock.nix@7192209f.lock": OTHER_TEXT,
    "nixos-cuda__infra__lon@fd7f31c4.lock": r"is another program's, as it has version '1' and sources, version",
    "olafkfreund__nixos_config__flake@a7a36842.lock": CONFLICT,
    "pinpox__nixos__flake@0f95f359.lock": CONFLICT,
    "pinpox__nixos__flake@439e9041.lock": CONFLICT,
    "pinpox__nixos__flake@da6f511c.lock": CONFLICT,
    "pinpox__nixos__flake@eebe7f45.lock": CONFLICT,
    "sabaruto__nixos__flake@fa1d986c.lock": CONFLICT,
    "schoderer__nix__flake@481327e5.lock": EMPTY,
    "serokell__deploy-rs__examples__simple__flake.lock.license@997d1151.lock": OTHER_TEXT,
    "tiiuae__ghaf-infra__flake.lock.license@61f6765d.lock": OTHER_TEXT,
    "tiiuae__ghaf__flake.lock.license@d2d5e3bd.lock": OTHER_TEXT,
}
#: Those that nix did not write, or that somebody has edited.
NOT_CANONICAL = {"cachix__devenv__docs__gen__devenv@57cfde86.lock"}
GOOD = sorted(TEXTS.keys() - BAD.keys())


def lock(name: str) -> Lock:
    return parse_lock(TEXTS[name], "sbcs", name)


def test_the_sample_is_whole() -> None:
    assert {line.split("\t")[0] for line in INDEX.splitlines()[1:]} == TEXTS.keys()
    assert (len(GOOD), len(BAD)) == (93, 51)


@pytest.mark.parametrize("name", GOOD)
def test_a_lock_is_read_and_written_back_to_the_byte(name: str) -> None:
    found = lock(name)
    written, text = found.to_text(), TEXTS[name]
    if name in NOT_CANONICAL:
        written, text = written.rstrip("\n"), text.rstrip("\n")
    assert written == text
    assert pins(found).keys() == set(root_inputs(found))
    assert reachable(found, None) <= found.nodes.keys() - {found.root}


@pytest.mark.parametrize(("name", "error"), BAD.items())
def test_what_is_wrong_with_it_is_said(name: str, error: str) -> None:
    with pytest.raises(BadInput) as caught:
        lock(name)
    assert re.search(error, str(caught.value))
    assert str(caught.value).startswith(f"sbcs: the lock {name} ")


@pytest.mark.parametrize("name", GOOD)
def test_a_promotion_of_everything_gives_the_same_lock(name: str) -> None:
    """The graph of every lock there is survives being taken apart and put together."""
    found = lock(name)
    own = [(input_name,) for input_name in root_inputs(found) if followed(found, (input_name,)) is None]
    assert not difference(found, graft(found, found, {path: path for path in own}, ("stable", "canary")).lock).touched


def test_locks_that_nix_refuses_to_start_from() -> None:
    """Nix 2.26 says of these, and of no other, that they have an unlocked input."""
    assert {name.partition("__")[0] for name in GOOD if unlocked(lock(name))} == {
        *("BurNiinTRee", "NiXium-org", "PaulGrandperrin", "colemickens", "isabelroses", "kleinbem", "oddlama", "xopclabs"),
    }
    assert sum(bool(unlocked(lock(name))) for name in GOOD) == 9
