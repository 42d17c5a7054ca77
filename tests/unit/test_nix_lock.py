# SPDX-License-Identifier: GPL-3.0-or-later
"""nix's command lines for locks, flake references at revisions, and what nix passes off as a success."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import nix_lock
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed, FlotillaError
from ansible_collections.flotilla.nixos.plugins.module_utils.lockfile import Node
from fakes import FakeRunner, Step

FLAKE = "git+file:///srv/fleet?dir=hosts/sbcs&rev=0"
NIX = ["nix", "--extra-experimental-features", "nix-command flakes", "--option", "warn-dirty", "false"]
DIRTY = ["--option", "allow-dirty", "true"]
REV = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("inputs", "reference", "words"),
    [
        (
            ["nixpkgs"],
            "/tmp/old",
            ["nixpkgs", "--flake", FLAKE, "--reference-lock-file", "/tmp/old", "--output-lock-file", "/tmp/new", *DIRTY],
        ),
        ([], None, ["--flake", FLAKE, "--output-lock-file", "/tmp/new", *DIRTY]),
    ],
)
def test_update(inputs: list[str], reference: str | None, words: list[str]) -> None:
    runner = FakeRunner([*NIX, "flake", "update", *words])
    nix_lock.update(runner, "sbcs", FLAKE, inputs, reference=reference, output="/tmp/new")
    runner.done()


def test_lock_with_overrides() -> None:
    files = ["--reference-lock-file", "/tmp/old", "--output-lock-file", "/tmp/new"]
    overrides = ["--override-input", "a", "github:o/r/1", "--override-input", "b/c", "github:o/r/2"]
    runner = FakeRunner([*NIX, "flake", "lock", FLAKE, *overrides, *files, *DIRTY])
    pinned = {"a": "github:o/r/1", "b/c": "github:o/r/2"}
    nix_lock.lock(runner, "sbcs", FLAKE, pinned, reference="/tmp/old", output="/tmp/new")
    runner.done()


def test_lock_without_asking_any_upstream() -> None:
    files = ["--reference-lock-file", "/tmp/old", "--output-lock-file", "/tmp/new"]
    runner = FakeRunner([*NIX, "flake", "lock", FLAKE, "--offline", *files, *DIRTY])
    nix_lock.lock(runner, "sbcs", FLAKE, {}, reference="/tmp/old", output="/tmp/new", offline=True)
    runner.done()


GUARD = [*NIX, "flake", "lock", FLAKE, "--no-update-lock-file", "--reference-lock-file", "/tmp/new", *DIRTY]
CHANGES = "error: flake 'x' requires lock file changes but they're not allowed due to '--no-update-lock-file'"


def test_the_guard() -> None:
    assert nix_lock.is_complete(FakeRunner(GUARD), "sbcs", FLAKE, "/tmp/new")
    offline = [*GUARD[: GUARD.index(FLAKE)], FLAKE, "--no-update-lock-file", "--offline", *GUARD[GUARD.index(FLAKE) + 2 :]]
    assert nix_lock.is_complete(FakeRunner(offline), "sbcs", FLAKE, "/tmp/new", offline=True)
    assert not nix_lock.is_complete(FakeRunner(Step(GUARD, stderr=CHANGES, status=1)), "sbcs", FLAKE, "/tmp/new")
    with pytest.raises(CommandFailed, match="checking the lock failed: syntax error"):
        nix_lock.is_complete(FakeRunner(Step(GUARD, stderr="error: syntax error", status=1)), "sbcs", FLAKE, "/tmp/new")


@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        ("warning: unable to download 'https://api.github.com/x': HTTP error 403; using cached version", "did not answer.*403"),
        ("warning: error: … ; retrying\nfatal: unable to connect to upstream", "did not answer.*unable to connect"),
        (
            "warning: could not update local clone of Git repository 'x'; continuing with the most recent version",
            "did not answer.*local clone",
        ),
        ("warning: Git tree '/x' has an unlocked input", "an input cannot be locked"),
    ],
)
def test_what_nix_takes_for_a_success_and_is_none(stderr: str, error: str) -> None:
    argv = [*NIX, "flake", "update", "--flake", FLAKE, "--output-lock-file", "/tmp/new", *DIRTY]
    with pytest.raises(FlotillaError, match=error):
        nix_lock.update(FakeRunner(Step(argv, stderr=stderr)), "sbcs", FLAKE, [], reference=None, output="/tmp/new")


@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        (
            "fatal: couldn't find remote ref refs/heads/nosuch\nerror:\n  … while fetching\n\n  error: program 'git' failed",
            "sbcs: locking the inputs failed: couldn't find remote ref refs/heads/nosuch. Can the builder reach",
        ),
        (
            "error: unable to download 'https://api.github.com/x': Could not resolve host",
            "sbcs: locking the inputs failed: unable to download 'https://api.github.com/x': Could not resolve host. Can",
        ),
        (
            "error: syntax error, unexpected end of file\n  at /nix/store/0v-source/hosts/sbcs/flake.nix:3:1:\n     2| x\n",
            "sbcs: locking the inputs failed at hosts/sbcs/flake.nix:3: syntax error, unexpected end of file.",
        ),
    ],
)
def test_failures_say_what_to_look_at(stderr: str, error: str) -> None:
    argv = [*NIX, "flake", "update", "--flake", FLAKE, "--output-lock-file", "/tmp/new", *DIRTY]
    with pytest.raises(CommandFailed) as caught:
        nix_lock.update(FakeRunner(Step(argv, stderr=stderr, status=1)), "sbcs", FLAKE, [], reference=None, output="/tmp/new")
    assert str(caught.value).startswith(error)


def github(**more: str) -> Node:
    original = {"type": "github", "owner": "NixOS", "repo": "nixpkgs", **more}
    return Node({}, {**original, "rev": "f" * 40, "narHash": "h", "lastModified": 1}, original)


def git(locked: dict[str, Any] | None = None, **more: Any) -> Node:
    original = {"type": "git", "url": "https://git.corp/x y.git", **more}
    return Node({}, {**original, "rev": "f" * 40, "narHash": "h", "revCount": 7, **(locked or {})}, original)


TARBALL = Node(
    {}, {"type": "tarball", "url": "https://x/nixexprs.tar.xz"}, {"type": "tarball", "url": "https://x/nixexprs.tar.xz"}
)


@pytest.mark.parametrize(
    ("node", "wanted", "reference"),
    [
        (github(ref="nixos-unstable"), REV, f"github:NixOS/nixpkgs/{REV}"),
        (github(ref="nixos-unstable"), "nixos-25.11", "github:NixOS/nixpkgs?ref=nixos-25.11"),
        (github(), "4f5e2c8", "github:NixOS/nixpkgs?ref=4f5e2c8"),
        (github(), "feature/x", "github:NixOS/nixpkgs?ref=feature/x"),
        (github(dir="lib", host="git.corp"), REV, f"github:NixOS/nixpkgs/{REV}?host=git.corp&dir=lib"),
        (Node({}, {}, {"type": "gitlab", "owner": "a%2Fb", "repo": "c"}), REV, f"gitlab:a%2Fb/c/{REV}"),
        (Node({}, {}, {"type": "gitlab", "owner": "a/b", "repo": "c"}), REV, f"gitlab:a%2Fb/c/{REV}"),
        (Node({}, {}, {"type": "sourcehut", "owner": "~u", "repo": "c"}), REV, f"sourcehut:~u/c/{REV}"),
        (git(ref="main"), REV, f"git+https://git.corp/x y.git?ref=main&rev={REV}"),
        (git({"ref": "refs/heads/trunk"}), REV, f"git+https://git.corp/x y.git?ref=refs/heads/trunk&rev={REV}"),
        (git(ref="main", submodules=True, dir="nix"), "v2", "git+https://git.corp/x y.git?ref=v2&dir=nix&submodules=1"),
        (TARBALL, "github:NixOS/nixpkgs", "github:NixOS/nixpkgs"),
        (Node({}, github().locked, {"type": "indirect", "id": "nixpkgs"}), REV, f"github:NixOS/nixpkgs/{REV}"),
    ],
)
def test_an_input_at_a_revision(node: Node, wanted: str, reference: str) -> None:
    assert nix_lock.pinned("sbcs", "nixpkgs", node, wanted) == reference


@pytest.mark.parametrize(
    ("node", "wanted", "error"),
    [
        (TARBALL, REV, "comes from a tarball, which has no revisions"),
        (git(), "4f5e2c8", "Give all 40 digits"),
        (github(), "", "is no revision"),
        (github(), "--impure", "is no revision"),
        (github(), "a b", "is no revision"),
        (github(), "a\nb", "is no revision"),
    ],
)
def test_revisions_that_cannot_be(node: Node, wanted: str, error: str) -> None:
    with pytest.raises(BadInput, match=error):
        nix_lock.pinned("sbcs", "nixpkgs", node, wanted)


@pytest.mark.parametrize(
    ("node", "reference"),
    [
        (github(ref="main"), f"github:NixOS/nixpkgs/{'f' * 40}"),
        (git(ref="main"), f"git+https://git.corp/x y.git?ref=main&rev={'f' * 40}"),
        (TARBALL, None),
        (Node({}, github().locked, {"type": "indirect", "id": "nixpkgs"}), None),
    ],
)
def test_answers_that_groups_can_share(node: Node, reference: str | None) -> None:
    assert nix_lock.shared_reference(node) == reference
