# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's disks: tmpfs of this machine, so that they are bounded, fast, outlive reboots, and go with `down`.

root/ is the overlay that the host sees: / on disk/, /nix on store/, /boot on boot/. Full is a size, not a big file: a disk
is filled by shrinking it to what is on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .commands import run
from .errors import TestbedError
from .mounts import below, bind, mount, mounts, unmount_below

MIB = 1 << 20
#: Path in the host → (folder of the disk, size in MiB).
DISKS = {"/": ("disk", 1024), "/nix": ("store", 2048), "/boot": ("boot", 64)}


def attach(folder: Path, layers: Sequence[Path]) -> None:
    """Mount fresh disks over the layers (uppermost first)."""
    root = folder / "root"
    for name, size in DISKS.values():
        mount("tmpfs", folder / name, size=f"{size}m", mode="0755")
    overlay(root, folder / "disk", layers)
    overlay(root / "nix", folder / "store", [layer / "nix" for layer in layers if (layer / "nix").is_dir()])
    for layer in layers[:1]:
        shutil.copytree(layer / "boot", folder / "boot", dirs_exist_ok=True, symlinks=True)
    bind(folder / "boot", root / "boot")


def overlay(where: Path, disk: Path, layers: Sequence[Path]) -> None:
    """Mount an overlay of the layers (uppermost first) that writes to the disk."""
    upper, work = disk / "upper", disk / "work"
    upper.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    lower = ":".join(str(layer) for layer in layers)
    # redirect_dir: a folder that came with the base can be renamed, as on any disk.
    mount("overlay", where, lowerdir=lower, upperdir=str(upper), workdir=str(work), redirect_dir="on")


def detach(folder: Path) -> None:
    """Unmount the disks; what was on them is gone."""
    unmount_below(folder)


def attached(folder: Path) -> bool:
    """True if all of it is mounted."""
    wanted = {folder / "root", folder / "root/nix", folder / "root/boot", *(folder / name for name, _ in DISKS.values())}
    return wanted <= {Path(where) for where in below(folder, mounts())}


def fill(folder: Path, path: str, leave: int = 0) -> str:
    """Shrink the disk at that path of the host until only leave KiB are free; say how it stands."""
    disk = folder / _disk(path)[0]
    usage = os.statvfs(disk)
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    run(["mount", "-o", f"remount,size={max(4096, used + leave * 1024)}", disk])
    return f"{path} is full: {used // 1024} KiB on it, {leave} KiB free"


def free(folder: Path, path: str) -> str:
    """Give the disk its size back."""
    name, size = _disk(path)
    run(["mount", "-o", f"remount,size={size}m", folder / name])
    return f"{path} has {size} MiB again"


def _disk(path: str) -> tuple[str, int]:
    if path not in DISKS:
        raise TestbedError(f"disk {path!r}", "no host has it", f"Choose one of {', '.join(DISKS)}.")
    return DISKS[path]
