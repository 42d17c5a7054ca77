# SPDX-License-Identifier: GPL-3.0-or-later
"""The tarball for Galaxy: the right files, and installable."""

from __future__ import annotations

import tarfile
from pathlib import Path

from clean_install import Install, version

GENERATED = {"MANIFEST.json", "FILES.json"}
SHIPPED = {
    *("CHANGELOG.rst", "LICENSE", "README.md"),
    *("changelogs", "docs", "examples", "inventory", "meta", "playbooks", "plugins", "roles"),
}


def test_tarball_holds_the_right_files_and_installs(install: Install, tree: Path) -> None:
    install.run("ansible-galaxy", "collection", "build", "--force", "--output-path", install.folder, tree)
    tarball = install.folder / f"flotilla-nixos-{version()}.tar.gz"
    with tarfile.open(tarball) as archive:
        names = [name.removeprefix("./") for name in archive.getnames()]
    assert {name.split("/")[0] for name in names if name not in ("", ".")} == SHIPPED | GENERATED
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    collections = install.folder / "collections"
    install.run("ansible-galaxy", "collection", "install", "--force", "--offline", "-p", collections, tarball)
    assert (collections / "ansible_collections/flotilla/nixos/plugins/plugin_utils/target/flotilla.sh").is_file()
