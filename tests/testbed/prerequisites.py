# SPDX-License-Identifier: GPL-3.0-or-later
"""What the testbed needs on this machine, and how to get it: apt on Debian 12 and 13."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from . import cgroups
from .commands import run, search_path
from .errors import TestbedError

#: Command → Debian package.
COMMANDS: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "patchelf": "patchelf",
    "ip": "iproute2",
    "tc": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "git": "git",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "flock": "util-linux",
    "mount": "mount",
}
#: File → Debian package.
FILES: Mapping[str, str] = {"/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"}

#: Each host's systemd takes several; with the kernel's default the 13th host does not come up.
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_ENOUGH = 8192


def missing() -> list[str]:
    """Debian packages that are not there yet, in order."""
    packages = {package for command, package in COMMANDS.items() if not shutil.which(command, path=search_path())}
    packages |= {package for file, package in FILES.items() if not Path(file).exists()}
    return sorted(packages)


def install() -> list[str]:
    """Install what is missing, and only that; return the packages."""
    packages = missing()
    if not packages:
        return []
    if not shutil.which("apt-get"):
        raise TestbedError(
            "this machine", f"it lacks {', '.join(packages)}", "It is no Debian: install what these packages hold yourself."
        )
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "--quiet"], env=env, timeout=300)
    run(["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *packages], env=env, timeout=900)
    return packages


def check() -> None:
    """Raise TestbedError in one line if hosts cannot run here."""
    if os.geteuid() != 0:
        raise TestbedError("this user", "the testbed needs root", "Run it with sudo.")
    if packages := missing():
        raise TestbedError("this machine", f"it lacks {', '.join(packages)}", "Run: tests/testbed/testbed install")
    if not os.access(cgroups.root(), os.W_OK):
        raise TestbedError("this machine", f"{cgroups.root()} is read-only, as in an unprivileged container", "Use a machine.")
    _allow_inotify()


def _allow_inotify() -> None:
    if int(_INOTIFY.read_text()) >= _INOTIFY_ENOUGH:
        return
    try:
        _INOTIFY.write_text(str(_INOTIFY_ENOUGH))
    except OSError as error:
        raise TestbedError("this machine", f"{_INOTIFY} cannot be raised to {_INOTIFY_ENOUGH}: {error.strerror}") from error
