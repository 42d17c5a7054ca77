# SPDX-License-Identifier: GPL-3.0-or-later
"""How a rollout behaves as an Ansible run, on each ansible-core that we have: batches, gate, losses, tags, exit status.

The real playbook, role, filters, gate and callback; the builder's and the targets' actions are stand-ins (fakes/action.py).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FAKES = Path(__file__).parent / "fakes"
VENVS = [venv for venv in (".venv", ".venv-newest") if (ROOT / venv / "bin/ansible-playbook").exists()]
FAKED = (
    *("flake_lock", "flake_build", "closure_copy", "system_info"),
    *("system_activate", "system_confirm", "system_rollback", "system_reboot"),
)

INVENTORY = """
[servers]
web1
web2
[sbcs]
pi-1
pi-2
pi-3
pi-4
[servers:vars]
flotilla_update_group=servers
[sbcs:vars]
flotilla_update_group=sbcs
[all:vars]
ansible_connection=local
flotilla_repo=/srv/fleet
"""


@dataclass
class Run:
    """A finished ansible-playbook."""

    status: int
    output: str
    calls: list[tuple[str, str, dict[str, Any]]]
    summary: dict[str, Any] = field(default_factory=dict)

    def called(self, action: str) -> list[str]:
        """The hosts that an action was called for, in order."""
        return [host for name, host, _arguments in self.calls if name == action]

    def states(self) -> list[tuple[str, list[str]]]:
        """The calls of flake_lock: state and groups."""
        return [(a["state"], [g["name"] for g in a["groups"]]) for name, _host, a in self.calls if name == "flake_lock"]

    def outcome(self, host: str) -> str:
        """The outcome in the printed table."""
        lines = [line.split() for line in self.output.splitlines()]
        start = next(i for i, words in enumerate(lines) if words[:3] == ["host", "group", "outcome"])
        row = next(words for words in lines[start + 1 :] if words[:1] == [host])
        return " ".join(row[2:4]) if row[2] == "rolled" else row[2]


@dataclass
class Fleet:
    """A place to run the playbook in."""

    path: Path
    venv: str

    def run(self, *arguments: str, scenario: dict[str, Any] | None = None, playbook: str = "flotilla.nixos.rollout") -> Run:
        """Run the playbook with these arguments, over a scenario for the stand-ins."""
        state = self.path / "scenario.json"
        state.write_text(json.dumps(scenario or {}))
        journal = Path(f"{state}.log")
        journal.unlink(missing_ok=True)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTHONPATH"))},
            "ANSIBLE_COLLECTIONS_PATH": str(self.path),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_HOME": str(self.path / "home"),
            "ANSIBLE_ACTION_PLUGINS": str(self.path / "action_plugins"),
            "ANSIBLE_FORKS": "4",
            "FLOTILLA_FAKE": str(state),
        }
        argv = [str(ROOT / self.venv / "bin/ansible-playbook"), "-i", str(self.path / "inventory"), playbook, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=self.path, timeout=60, check=False)
        calls = [tuple(json.loads(line)) for line in journal.read_text().splitlines()] if journal.exists() else []
        return Run(done.returncode, done.stdout + done.stderr, calls)


@pytest.fixture(params=VENVS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Fleet:
    """A collection whose actions on builder and targets are stand-ins, beside an inventory."""
    collection = tmp_path / "ansible_collections/flotilla/nixos"
    (collection / "plugins/action").mkdir(parents=True)
    for name in ("galaxy.yml", "meta", "roles", "playbooks"):
        (collection / name).symlink_to(ROOT / name)
    for name in ("filter", "callback", "module_utils", "plugin_utils", "modules", "doc_fragments"):
        (collection / "plugins" / name).symlink_to(ROOT / "plugins" / name)
    for real in (ROOT / "plugins/action").glob("rollout_*.py"):
        (collection / "plugins/action" / real.name).symlink_to(real)
    for name in FAKED:
        (collection / f"plugins/action/{name}.py").write_text((FAKES / "action.py").read_text())
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins/system_fake.py").write_text((FAKES / "action.py").read_text())
    (tmp_path / "inventory").write_text(INVENTORY)
    return Fleet(tmp_path, request.param)


def test_without_a_limit_nothing_is_started(fleet: Fleet) -> None:
    run = fleet.run()
    assert run.status == 2
    assert "Name the hosts or groups with -l, or set flotilla_all=true." in run.output
    assert run.calls == []


def test_everything_goes_well(fleet: Fleet) -> None:
    run = fleet.run("-e", "flotilla_all=true", "-e", "flotilla_update=true")
    assert run.status == 0, run.output
    assert run.called("system_activate")[:2] == ["web1", "pi-1"]
    assert sorted(run.called("system_confirm")) == ["pi-1", "pi-2", "pi-3", "pi-4", "web1", "web2"]
    assert run.states() == [("updated", ["servers", "sbcs"]), ("accepted", ["servers", "sbcs"])]
