# SPDX-License-Identifier: GPL-3.0-or-later
"""nix for this machine, out of the base: Debian 12's own is too old."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .base import Base, building
from .commands import run
from .places import HERE

MINIMUM = (2, 26)
_NAMES = (
    "build",
    "channel",
    "collect-garbage",
    "copy-closure",
    "daemon",
    "env",
    "hash",
    "instantiate",
    "prefetch-url",
    "shell",
    "store",
)


def version(text: str) -> tuple[int, ...]:
    """The version in the output of `nix --version`; () if there is none."""
    found = re.search(r"\b(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else ()


def machine_has_it() -> bool:
    """True if the nix on PATH, one that is not ours, is new enough."""
    nix = shutil.which("nix")
    if nix is None or "flotilla-testbed" in str(Path(nix).resolve()):
        return False
    return version(run([nix, "--version"], check=False).stdout) >= MINIMUM


def ensure(base: Base) -> Path:
    """A folder with bin/ (nix, unless the machine has it) and etc/nix.conf, for PATH and NIX_CONF_DIR."""
    final = base.folder / "controller"
    if not final.exists():
        with building(final) as folder:
            (folder / "bin").mkdir()
            (folder / "etc").mkdir()
            if not machine_has_it():
                _adopt(base.root, folder / "bin")
            shutil.copy(HERE / "controller-nix.conf", folder / "etc/nix.conf")
    return final


def _adopt(root: Path, folder: Path) -> None:
    """Copy the base's nix and point it to the base's loader and libraries, whatever libc this machine has."""
    libraries = next(root.glob("usr/lib/*-linux-gnu*/libc.so.6")).parent
    loader = next(path for path in sorted(libraries.glob("ld-linux*.so.*")))
    nix = folder / "nix"
    shutil.copy(root / "usr/bin/nix", nix)
    run(["patchelf", "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, nix])
    for name in _NAMES:
        (folder / f"nix-{name}").symlink_to("nix")


def environment(folder: Path) -> dict[str, str]:
    """This process's environment with that nix and its configuration."""
    path = f"{folder}/bin:{os.environ.get('PATH', '/usr/bin:/bin')}"
    return {**os.environ, "PATH": path, "NIX_CONF_DIR": str(folder / "etc")}
