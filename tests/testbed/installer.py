# SPDX-License-Identifier: GPL-3.0-or-later
"""The installer system: what a fresh host runs, profile and boot entry included, as a layer over the base."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from . import controller_nix
from .base import Base, building
from .commands import dying_with_us, run
from .digests import digest
from .disks import overlay
from .errors import TestbedError
from .mounts import mount, unmount_below
from .places import HERE

_PROFILES = "nix/var/nix/profiles"


def ensure(base: Base, controller: Path, say: Callable[[str], None]) -> Path:
    """The layer's folder, built if need be. The caller holds the lock of everything."""
    upstream = _upstream()
    sources = [HERE / "nixpkgs", HERE / "upstream.py"] if upstream else []
    final = base.folder / f"installer-{digest(*sources, HERE / 'installer.py')}"
    if not final.exists():
        say("building the installer system" if upstream else "no stand-in nixpkgs: hosts boot a bare base")
        with building(final) as folder:
            _build(base, folder, upstream, controller_nix.environment(controller))
    return final / "layer"


def _upstream() -> ModuleType | None:
    if not (HERE / "upstream.py").exists():
        return None
    module = importlib.import_module(f"{__package__}.upstream")
    return module if hasattr(module, "build_installer") else None


def _build(base: Base, folder: Path, upstream: ModuleType | None, env: Mapping[str, str]) -> None:
    layer, disk, root, scratch = (folder / name for name in ("layer", "disk", "root", "scratch"))
    for path in (layer / "nix", layer / "boot", root, scratch):
        path.mkdir(parents=True)
    if upstream is None:
        return
    system = Path(upstream.build_installer(scratch, env))
    # In memory first: where the cache itself lies on an overlay (in a container, say), it cannot be an upper layer.
    mount("tmpfs", disk, size="1g", mode="0755")
    overlay(root, disk, [base.root])
    run(["nix", "copy", "--no-check-sigs", "--to", root, system], env=env, timeout=300)
    (root / _PROFILES).mkdir(parents=True, exist_ok=True)
    (root / _PROFILES / "system-1-link").symlink_to(system)
    (root / _PROFILES / "system").symlink_to("system-1-link")
    _install_boot_entry(root, system)
    run(["cp", "--archive", "--no-target-directory", disk / "upper", layer])
    unmount_below(folder)


def _install_boot_entry(root: Path, system: Path) -> None:
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--pipe",
        "--resolv-conf=off",
        "--timezone=off",
        f"--directory={root}",
    ]
    run(
        dying_with_us([*nspawn, "--setenv=NIXOS_INSTALL_BOOTLOADER=1", f"{system}/bin/switch-to-configuration", "boot"]),
        timeout=120,
    )
    if not (root / "boot/loader/loader.conf").exists():
        raise TestbedError("installer", f"{system}/bin/switch-to-configuration boot has written no /boot/loader/loader.conf")
