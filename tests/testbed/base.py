# SPDX-License-Identifier: GPL-3.0-or-later
"""The base root that all hosts share read-only: a Debian with systemd, sshd and nix, and without python. Built once, cached."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .commands import dying_with_us, run
from .digests import digest
from .errors import TestbedError
from .mounts import unmount_below
from .places import CACHE, HERE

SUITE = "trixie"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "nix-bin", "sudo"),
    *("git", "iproute2", "procps", "zstd", "kmod", "less"),
)
#: For the testbed only: what `operator` types when sudo asks.
OPERATOR_PASSWORD = "operator-secret"

_NO_DOCS = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "info", "locale", "i18n", "lintian")]
_ENABLED = {
    "multi-user.target.wants": ("sshd.service", "systemd-networkd.service"),
    "sockets.target.wants": ("nix-daemon.socket",),
}
#: Not on NixOS, or only slow here.
_GONE = (
    *("ssh.service", "ssh.socket", "ssh@.service", "sshd-keygen.service", "apt-daily.timer", "apt-daily-upgrade.timer"),
    *("console-getty.service", "getty-static.service", "ldconfig.service", "systemd-firstboot.service"),
    *("systemd-journal-catalog-update.service", "systemd-update-done.service", "systemd-networkd-wait-online.service"),
)


@dataclass(frozen=True, slots=True)
class Base:
    """A finished base: `root` is the hosts' lowest layer, `folder` holds it and what belongs to it."""

    folder: Path

    @property
    def root(self) -> Path:
        """The Debian root."""
        return self.folder / "root"


def current(cache: Path = CACHE) -> Base:
    """The base that the testbed's files describe now, whether it is built or not."""
    inputs: tuple[str | Path, ...] = (SUITE, *PACKAGES, *_NO_DOCS, OPERATOR_PASSWORD, HERE / "tree")
    recipe = (str((_ENABLED, _GONE)), *(inspect.getsource(step) for step in (_build, _adapt, _set_units)))
    return Base(cache / f"base-{digest(*inputs, *recipe)}")


def ensure(say: Callable[[str], None], cache: Path = CACHE) -> Base:
    """The base, built if need be. The caller holds the lock of everything."""
    base = current(cache)
    if not base.folder.exists():
        say(f"building the base root with mmdebstrap ({SUITE}; once, about half a minute)")
        with building(base.folder) as folder:
            _build(folder / "root")
    return base


class building:  # noqa: N801  # reads as a verb: with building(folder) as temporary
    """Make a cached folder in a temporary place and rename it when it is whole; what a killed run left is removed first."""

    def __init__(self, final: Path) -> None:
        self.final = final

    def __enter__(self) -> Path:
        self.final.parent.mkdir(parents=True, exist_ok=True)
        for left in self.final.parent.glob(".building-*"):
            remove_folder(left)
        self.folder = Path(tempfile.mkdtemp(prefix=".building-", dir=self.final.parent))
        self.folder.chmod(0o755)
        return self.folder

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        unmount_below(self.folder)
        if kind is None:
            self.folder.rename(self.final)
        else:
            remove_folder(self.folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours, never anything that is mounted below it."""
    unmount_below(folder)
    run(["rm", "-rf", "--one-file-system", folder], timeout=300)


def _build(root: Path) -> None:
    command: list[str | Path] = [
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        *_NO_DOCS,
        f"--include={','.join(PACKAGES)}",
        SUITE,
        root,
    ]
    run(dying_with_us(command), timeout=900)
    _adapt(root)
    if pythons := list((root / "usr/bin").glob("python*")):
        raise TestbedError("base", f"{pythons[0].name} came with some package, and targets must do without", "Look at PACKAGES.")


def _adapt(root: Path) -> None:
    for pattern in (
        "etc/ssh/ssh_host_*",
        "etc/init.d/*",
        "etc/systemd/system/*",
        "etc/machine-id",
        "etc/hostname",
        "etc/resolv.conf",
        "var/log/journal",
    ):
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    # Without the owner of the work tree: sshd and sudo refuse files that are not root's.
    run(["cp", "-R", "--preserve=mode", "--no-target-directory", HERE / "tree", root])
    run(["chmod", "-R", "go-w", *(root / top.name for top in (HERE / "tree").iterdir())])
    _set_units(root / "usr/lib/systemd/system")
    for user in ("deploy", "operator"):
        run(["chroot", root, "useradd", "--create-home", "--gid", "users", "--shell", "/bin/bash", user])
    run(["chroot", root, "chpasswd"], stdin=f"operator:{OPERATOR_PASSWORD}\n")


def _set_units(units: Path) -> None:
    """Enable and remove units where they lie: /etc/systemd/system stays empty, as it is the configuration's."""
    for unit in _GONE:
        for path in (units / unit, *units.glob(f"*.wants/{unit}")):
            path.unlink(missing_ok=True)
    for target, names in _ENABLED.items():
        (units / target).mkdir(exist_ok=True)
        for unit in names:
            (units / target / unit).symlink_to(f"../{unit}")
