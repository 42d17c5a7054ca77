# SPDX-License-Identifier: GPL-3.0-or-later
"""The example fleet's repository, made and evaluated with real nix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from testbed import Fleet, example, upstream
from testbed.example import ATTRIBUTES, GROUPS, HOSTS, Example
from testbed.playbooks import Ansible


def drv(made: Example, host: str) -> str:
    """The derivation of a host's system at the checked-out commit."""
    group = next(group for group, hosts in GROUPS.items() if host in hosts)
    flake = f"git+file://{made.path}?dir=hosts/{group}&rev={made.head()}"
    attribute = ATTRIBUTES.get(host, host)
    wanted = f'{flake}#nixosConfigurations."{attribute}".config.system.build.toplevel.drvPath'
    return made.run("nix", "eval", "--raw", "--no-update-lock-file", wanted).stdout


@pytest.fixture
def made(fleet: Fleet, tmp_path: Path) -> Example:
    source = upstream.create(tmp_path / "nixpkgs.git")
    return example.create(tmp_path / "fleet", source, env=fleet.env(), addresses={"web1": "10.0.0.1"})


def test_it_is_committed_and_locked_to_the_branch(made: Example) -> None:
    assert made.git("status", "--porcelain") == ""
    assert made.git("rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert {made.locked(group) for group in GROUPS} == {made.upstream.revision("refs/tags/25.05.1")}
    made.upstream.release("25.05.2")
    made.lock("sbcs")
    assert made.locked("sbcs") == made.upstream.revision("refs/tags/25.05.2")
    assert made.git("diff", "--name-only") == "hosts/sbcs/flake.lock"


def test_every_host_evaluates(made: Example) -> None:
    for host in HOSTS:
        assert drv(made, host).endswith(f"-nixos-system-{host}-25.05.1.drv")


def test_systems_depend_on_the_commit_only_when_asked_to(fleet: Fleet, tmp_path: Path, made: Example) -> None:
    for fleet_of, same in ((made, True), (_with_revision(fleet, tmp_path), False)):
        before = drv(fleet_of, "pi-1")
        fleet_of.write("notes.md", "Nothing that a system needs.\n")
        fleet_of.commit("Take a note")
        assert (drv(fleet_of, "pi-1") == before) is same


def _with_revision(fleet: Fleet, tmp_path: Path) -> Example:
    source = upstream.Upstream(tmp_path / "nixpkgs.git")
    return example.create(tmp_path / "revision", source, env=fleet.env(), revision=True)


def test_both_inventories_have_the_same_hosts(made: Example, ansible: Ansible) -> None:
    static, flakes = (listed(ansible, made.path / "inventory" / name) for name in ("hosts.yml", "fleet.flotilla.yml"))
    for group, hosts in GROUPS.items():
        assert sorted(static[group]["hosts"]) == sorted(flakes[group]["hosts"]) == sorted(hosts)
    for host in HOSTS:
        for variable in ("ansible_host", "ansible_user", "flotilla_update_group", "flotilla_update_groups"):
            assert static["_meta"]["hostvars"][host][variable] == flakes["_meta"]["hostvars"][host][variable]
        assert flakes["_meta"]["hostvars"][host]["flotilla_attribute"] == ATTRIBUTES.get(host, host)
    assert static["_meta"]["hostvars"]["web1"]["ansible_host"] == "10.0.0.1"


def listed(ansible: Ansible, file: Path) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    done = ansible.run(["ansible-inventory", "-i", str(file), "--list"], cwd=file.parent.parent)
    assert done.ok, done.stderr
    # Values that nix gave are marked as not to be templated.
    found: dict[str, dict[str, dict[str, dict[str, object]]]] = json.loads(
        done.stdout, object_hook=lambda value: value.get("__ansible_unsafe", value)
    )
    return found


def test_the_command_line_makes_it_too(
    tmp_path: Path, controller: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert controller
    monkeypatch.delenv("FLOTILLA_TESTBED")
    path = tmp_path / "by-hand"
    assert example.main([str(path), "--address", "pi-2=10.0.0.7"]) == 0
    assert "10.0.0.7" in (path / "inventory/hosts.yml").read_text()
    assert (path / "hosts/sbcs/flake.lock").exists()
    assert example.main([str(path)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert example.main([str(path), "--fresh"]) == 0
