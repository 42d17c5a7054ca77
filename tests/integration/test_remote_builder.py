# SPDX-License-Identifier: GPL-3.0-or-later
"""The builder's modules on another machine than the controller, one without Python."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from integration.repositories import Fixture, fixture
from testbed import Host
from testbed.playbooks import Ansible, Played, inventory


@pytest.fixture
def builder(hosts: Callable[..., list[Host]]) -> Host:
    return hosts("builder")[0]


@pytest.fixture
def there(tmp_path: Path, controller: Mapping[str, str], builder: Host) -> Fixture:  # noqa: ARG001 - nix comes from it
    """A repository that only the builder has: made here, and moved there."""
    made = fixture(tmp_path / "home")
    own = time.time_ns()
    made.group(
        "sbcs",
        {
            "pi-1": f'lib.host {{ name = "pi-{own}"; needs = [ (lib.run "part" "echo {own}; mkdir $out") ]; }}',
            "breaks": 'lib.host { name = "breaks"; needs = [ (lib.run "part" "echo no such thing; exit 3") ]; }',
        },
    )
    packed = subprocess.run(["tar", "-cz", "-C", "/", str(tmp_path / "home").lstrip("/")], check=True, capture_output=True).stdout
    subprocess.run(builder.ssh_command(["tar", "-xz", "-C", "/", "--no-same-owner"]), input=packed, check=True)
    (tmp_path / "home").rename(tmp_path / "gone")
    return made


@pytest.fixture
def play(ansible: Ansible, builder: Host, there: Fixture, tmp_path: Path) -> Any:
    """Runs a module for the group sbcs, delegated to the builder."""

    def run(
        module: str, *hosts: str, variables: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[Played, Mapping[str, Any]]:
        (tmp_path / "inventory.json").write_text(inventory([builder], **(variables or {})))
        group = {"name": "sbcs", "repo": str(there.repo.path), "hosts": [{"name": host} for host in hosts]}
        task = {"name": "Do it", f"flotilla.nixos.{module}": {"groups": [group], **options}, "delegate_to": "builder"}
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]
        played = ansible.playbook(plays, inventory=tmp_path / "inventory.json", check=False)
        return played, played.of(module)[0].result

    return run


@pytest.mark.parametrize("variables", [{}, {"ansible_user": "deploy", "ansible_become": True}])
def test_building_there(play: Any, builder: Host, variables: Mapping[str, Any]) -> None:
    if variables:
        variables = {"ansible_become_method": "ansible.builtin.sudo", **variables}
    played, first = play("flake_build", "pi-1", "breaks", variables=variables, continue_on_error=True)
    assert played.ok, played.text
    assert first["changed"]
    hosts = first["groups"]["sbcs"]["hosts"]
    system = hosts["pi-1"]["system"]
    assert not Path(system).exists()
    assert builder.run(f"cat {system}/nixos-version").stdout.startswith("1 ")
    assert "/.git/flotilla/roots/sbcs/pi-1" in builder.run(f"nix-store --query --roots {system}").stdout
    assert hosts["breaks"]["log"] == ["no such thing"]
    _played, second = play("flake_build", "pi-1", variables=variables)
    assert not second["changed"]
    assert not builder.run("command -v python3", check=False).stdout


def test_looking_there(play: Any) -> None:
    played, result = play("flake_info", "pi-1", "breaks")
    assert played.ok, played.text
    assert result["groups"]["sbcs"]["hosts"] == ["breaks", "pi-1"]
    assert result["groups"]["sbcs"]["usable"]


def test_a_builder_that_is_not_there(play: Any) -> None:
    lost = {"ansible_port": 1, "ansible_ssh_timeout": 3}
    played, result = play("flake_build", "pi-1", variables=lost)
    assert not played.ok
    assert result["unreachable"]
    assert result["msg"].startswith("builder: ")
