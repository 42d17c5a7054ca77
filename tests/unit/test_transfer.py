# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh for both ends of a copy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner
from ansible_collections.flotilla.nixos.plugins.plugin_utils.ssh_options import SshTarget
from ansible_collections.flotilla.nixos.plugins.plugin_utils.transfer import ssh_wrapper

ENDS = {
    "flotilla-builder": SshTarget("build1", "192.0.2.1", args=("-o", 'User="b b"', "-p", "2201")),
    "flotilla-target": SshTarget("pi-1", "fd00::2", args=("-o", "ProxyCommand=nc 'a b'")),
}


@pytest.fixture
def wrapped(tmp_path: Path) -> Path:
    """The wrapper, before an `ssh` that prints its arguments, one a line."""
    for name in ("wrapper", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "real/ssh").write_text('#!/bin/sh\nfor word do printf "%s\\n" "$word"; done\n')
    (tmp_path / "wrapper/ssh").write_text(ssh_wrapper(ENDS, fresh=True))
    for name in ("wrapper", "real"):
        (tmp_path / name / "ssh").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "end", "passed"),
    [
        (["flotilla-builder", "-x", "--", "nix-daemon --stdio"], "flotilla-builder", ["-x", "--", "nix-daemon --stdio"]),
        (["-O", "check", "flotilla-target"], "flotilla-target", ["-O", "check"]),
        (["flotilla-target", "-oX=y z", "flotilla-builder"], "flotilla-target", ["-oX=y z", "flotilla-builder"]),
    ],
)
def test_each_end_has_its_own_options(wrapped: Path, asked: Sequence[str], end: str, passed: list[str]) -> None:
    path = f"{wrapped}/wrapper:{wrapped}/real:/usr/bin:/bin"
    result = LocalRunner().run([f"{wrapped}/wrapper/ssh", *asked], env={"PATH": path})
    assert result.stdout.splitlines() == [*ENDS[end].options(fresh=True), ENDS[end].address, *passed], result.stderr


def test_no_other_machine_goes_through_it(wrapped: Path) -> None:
    result = LocalRunner().run([f"{wrapped}/wrapper/ssh", "elsewhere", "true"], env={"PATH": f"{wrapped}/wrapper:/usr/bin:/bin"})
    assert (result.status, result.stderr) == (255, "ssh: this is for the two ends of a copy\n")
