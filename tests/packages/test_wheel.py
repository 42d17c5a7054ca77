# SPDX-License-Identifier: GPL-3.0-or-later
"""What `pip install .` gives: ansible-core, paramiko and the collection, with nothing else to configure."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from clean_install import TOP, Install, version

ROOT = "ansible_collections/flotilla/nixos/"
SHIPPED = {"galaxy.yml", "meta", "plugins", "roles", "playbooks", "README.md", "LICENSE"}


def plugins(kind: str) -> list[str]:
    return [f"flotilla.nixos.{path.stem}" for path in sorted((TOP / "plugins" / kind).glob("*.py")) if path.stem != "__init__"]


def playbooks() -> list[str]:
    return [f"flotilla.nixos.{path.stem}" for path in sorted((TOP / "playbooks").glob("*.yml"))]


def test_wheel_holds_the_collection_and_nothing_else(install: Install, tree: Path) -> None:
    install.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", install.folder / "wheel", tree)
    (wheel,) = (install.folder / "wheel").iterdir()
    assert wheel.name == f"flotilla_nixos-{version()}-py3-none-any.whl"
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert all(name.startswith(ROOT) for name in names)
    assert {name.removeprefix(ROOT).split("/")[0] for name in names} == SHIPPED
    assert any(name.endswith("plugin_utils/target/flotilla.sh") for name in names)


def test_ansible_finds_the_collection(install: Install) -> None:
    listing = install.run("ansible-galaxy", "collection", "list", "flotilla.nixos").stdout
    assert listing.split()[-2:] == ["flotilla.nixos", version()]


@pytest.mark.parametrize("kind", ["module", "inventory", "callback"])
def test_ansible_doc_knows_every_plugin(install: Install, kind: str) -> None:
    names = plugins("modules" if kind == "module" else kind)
    assert names
    shown = json.loads(install.run("ansible-doc", "--json", "-t", kind, *names).stdout)
    assert sorted(shown) == sorted(names)
    assert all(entry["doc"]["short_description"] for entry in shown.values())


def test_ansible_doc_knows_the_role(install: Install) -> None:
    assert "flotilla_max_fail_percentage" in install.run("ansible-doc", "-t", "role", "flotilla.nixos.rollout").stdout


@pytest.mark.parametrize("name", playbooks())
def test_playbooks_are_found_by_their_full_name(install: Install, name: str) -> None:
    said = install.run("ansible-playbook", "--syntax-check", "-i", "localhost,", name).stdout
    assert said.strip().endswith(f"/flotilla/nixos/playbooks/{name.rpartition('.')[2]}.yml")


def test_development_set_up_links_the_checkout(install: Install, tree: Path) -> None:
    """Last in this file: it replaces the installed copy."""
    install.run("pip", "install", "--quiet", "--no-deps", "--editable", tree)
    module = tree / "plugins/modules/flake_lock.py"
    module.write_text(module.read_text().replace("short_description: ", "short_description: Linked! ", 1))
    assert "Linked!" in install.run("ansible-doc", "--list", "-t", "module", "flotilla.nixos").stdout
    module.write_text(module.read_text().replace("Linked! ", "", 1))
