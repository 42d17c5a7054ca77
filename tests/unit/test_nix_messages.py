# SPDX-License-Identifier: GPL-3.0-or-later
"""What nix says when it fails: recordings (nix 2.26.3), and the wordings of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed, FlotillaError, NixTooOld
from ansible_collections.flotilla.nixos.plugins.module_utils.nix_messages import LockIncomplete, explained, parsed
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult

DATA = Path(__file__).parent / "data/nix"
SOURCE = "/nix/store/fwr3qckhmslgd7qa6g6jycrgi0z6y8n3-source"


@pytest.mark.parametrize(
    ("recording", "source", "text", "place"),
    [
        ("eval-pi-5.log", SOURCE, "attribute 'nope' missing", "hosts/sbcs/flake.nix:12"),
        ("eval-pi-5.log", "/nix/store/a7af0ncz1m3gv56s589bbbbqh68zshh9-source", "attribute 'nope' missing", "flake.nix:7"),
        ("eval-pi-5.log", None, "attribute 'nope' missing", "hosts/sbcs/flake.nix:12"),
        ("eval-pi-4.log", SOURCE, "Failed assertions: - no fs", ""),
        ("eval-syntax.log", None, "syntax error, unexpected ID, expecting '.' or '='", "hosts/sbcs/flake.nix:3"),
        (
            "eval-other-owner.log",
            None,
            "opening Git repository \"/srv/fleet\": repository path '/srv/fleet' is not owned by current user",
            "",
        ),
    ],
)
def test_recordings(recording: str, source: str | None, text: str, place: str) -> None:
    message = parsed((DATA / recording).read_text())
    assert message.text == text
    assert message.place(source, "hosts/sbcs") == place


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        ("", "nix said nothing"),
        ("warning: a\nsomething odd\n", "something odd"),
        ("error (ignored): SQLite database is busy\nerror: real\n", "real"),
        ("\x1b[31;1merror:\x1b[0m coloured\n", "coloured"),
        ("error:\n       … while x\n\n       error: deep\n       note: trace\n", "deep"),
    ],
)
def test_texts(stderr: str, text: str) -> None:
    assert parsed(stderr).text == text


@pytest.mark.parametrize(
    ("stderr", "kind", "said"),
    [
        ("eval-unlocked.log", LockIncomplete, "the lock is not complete"),
        ("eval-other-owner.log", BadInput, "git config --global --add safe.directory"),
        ("no-features.log", NixTooOld, "experimental-features = nix-command flakes"),
        ("eval-no-flake.log", CommandFailed, "does not exist"),
        ("error: flake 'x' does not provide attribute 'packages.x.nixosConfigurations' or …", BadInput, "no nixosConfigurations"),
        ("error: opening lock file '/nix/var/nix/db/big-lock': Permission denied", CommandFailed, "start nix-daemon"),
        ("error: cannot connect to socket at '/nix/var/nix/daemon-socket/socket'", CommandFailed, "start nix-daemon"),
        ("error: creating directory '/root/.cache/nix': Read-only file system", CommandFailed, "XDG_CACHE_HOME"),
        ("error: writing to file: No space left on device", CommandFailed, "nix-collect-garbage"),
    ],
)
def test_known_causes_come_with_their_fix(stderr: str, kind: type[FlotillaError], said: str) -> None:
    text = (DATA / stderr).read_text() if stderr.endswith(".log") else stderr
    error = explained(RunResult(("nix",), 1, "", text, 0.0), "sbcs", "evaluation failed")
    assert type(error) is kind
    assert str(error).startswith("sbcs: evaluation failed: ")
    assert said in str(error)


def test_a_killed_evaluator() -> None:
    error = explained(RunResult(("nix",), -9, "", "", 0.0), "sbcs", "evaluation failed")
    assert str(error).startswith(
        "sbcs: evaluation failed: nix was killed, most likely because memory ran out. Give it more, or lower chunk"
    )
