# SPDX-License-Identifier: GPL-3.0-or-later
"""An input that several groups follow in one lock: refused, or with their consent moved and built for all, with real nix and git.

The real playbooks; only what would be done to targets are stand-ins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from integration.repositories import UPSTREAM, Repo, new_repo, sh
from integration.test_rollout_semantics import VENVS, stand_ins

FLAKE = """{
  inputs.nixpkgs.url = "git+file://%(folder)s/stable?ref=main";
  inputs.nixpkgs-unstable.url = "git+file://%(folder)s/unstable?ref=main";
  outputs = { self, nixpkgs, nixpkgs-unstable }: {
    nixosConfigurations = {
      web1 = nixpkgs.lib.host { name = "web1"; };
      desk1 = nixpkgs-unstable.lib.host { name = "desk1"; };
      desk2 = nixpkgs-unstable.lib.host { name = "desk2"; };
      kiosk1 = nixpkgs-unstable.lib.host { name = "kiosk1"; };
    };
  };
}
"""

INVENTORY = """
[servers]
web1
[desktops]
desk1
desk2
[kiosks]
kiosk1
[routers]
router
[servers:vars]
flotilla_update_group=servers
flotilla_inputs=["nixpkgs"]
[desktops:vars]
flotilla_update_group=desktops
flotilla_inputs=["nixpkgs-unstable"]
[kiosks:vars]
flotilla_update_group=kiosks
flotilla_inputs=["nixpkgs-unstable"]
[all:vars]
ansible_connection=local
flotilla_strategy=channel_inputs
flotilla_repo=%s
"""

UPDATE = ("-e", "flotilla_update=true")
CONSENT = ("-e", "flotilla_allow_shared_inputs=true")


class Channels:
    """A repository whose groups follow two channels, and the controller over it."""

    def __init__(self, folder: Path, venv: str) -> None:
        self.folder = folder
        self.repo = new_repo(folder / "fleet")
        self.repo.git("config", "user.name", "Op Erator")
        self.repo.git("config", "user.email", "op@example.org")
        for name in ("stable", "unstable"):
            new_repo(folder / name)
            self.release(name, "1")
        self.repo.write("flake.nix", FLAKE % {"folder": folder})
        self.repo.git("add", ".")
        sh("nix", "flake", "lock", f"path:{self.repo.path}")
        self.repo.commit()
        self.controller = stand_ins(folder, venv, but=("flake_lock", "flake_build"))
        (folder / "inventory").write_text(INVENTORY % self.repo.path)

    def release(self, name: str, version: str, *, text: str = UPSTREAM) -> str:
        upstream = Repo(self.folder / name)
        upstream.write("flake.nix", text.replace("VERSION", f"{name} {version}"))
        return upstream.commit()

    def state(self) -> str:
        """All but the ledger."""
        return "\n".join(line for line in self.repo.state().splitlines() if "flotilla/ledger" not in line)


@pytest.fixture(params=VENVS)
def channels(request: pytest.FixtureRequest, tmp_path: Path, controller: Mapping[str, str]) -> Channels:  # noqa: ARG001 - nix
    return Channels(tmp_path, request.param)


@pytest.mark.parametrize("playbook", ["rollout", "update"])
def test_a_channel_that_others_follow_does_not_move_without_consent(channels: Channels, playbook: str) -> None:
    channels.release("unstable", "2")
    before = channels.state()
    run = channels.controller.run("-l", "desktops", *UPDATE, playbook=f"flotilla.nixos.{playbook}")
    assert run.status == 2
    assert "this would also move nixpkgs-unstable for kiosks, in the lock flake.lock that they share. If" in said(run)
    assert "-e flotilla_allow_shared_inputs=true" in said(run)
    assert channels.state() == before
    assert run.called("system_activate") == []


def said(run: Any) -> str:
    """The output in one line."""
    return " ".join(run.output.split())


def test_with_consent_the_others_are_built_and_named(channels: Channels) -> None:
    newest = channels.release("unstable", "2")
    run = channels.controller.run("-l", "desktops", *UPDATE, *CONSENT)
    assert run.status == 0, run.output
    note = "nixpkgs-unstable also moves for kiosks, whose hosts get it at their next rollout"
    assert run.output.count(note) >= 2
    assert newest in channels.repo.git("show", "main:flake.lock")
    assert sorted(run.called("system_activate")) == ["desk1", "desk2"]
    assert (channels.repo.path / ".git/flotilla/roots/desktops/kiosk1").is_symlink()
    again = channels.controller.run("-l", "desktops", *UPDATE)
    assert again.status == 0, again.output
    assert "also moves" not in again.output


def test_a_host_of_another_group_that_does_not_build_stops_the_update(channels: Channels) -> None:
    bad = UPSTREAM.replace('"mkdir $out; echo', '"[ ${name} != kiosk1 ] || exit 1; mkdir $out; echo')
    channels.release("unstable", "2", text=bad)
    before = channels.repo.git("rev-parse", "main")
    run = channels.controller.run("-l", "desktops", *UPDATE, *CONSENT)
    assert run.status == 2
    assert "kiosk1, outside the limit, would not build any more" in said(run)
    assert run.called("system_activate") == []
    assert channels.repo.git("rev-parse", "main") == before
    assert channels.controller.run("-l", "desktops", *UPDATE, *CONSENT, playbook="flotilla.nixos.update").status == 2
    assert channels.repo.git("rev-parse", "main") == before


def test_groups_of_one_run_need_no_consent_and_own_channels_none_either(channels: Channels) -> None:
    channels.release("stable", "2")
    newest = channels.release("unstable", "2")
    before = channels.repo.git("show", "main:flake.lock")
    run = channels.controller.run("-l", "servers", *UPDATE)
    assert run.status == 0, run.output
    assert newest not in channels.repo.git("show", "main:flake.lock") != before
    run = channels.controller.run("-l", "desktops,kiosks", *UPDATE)
    assert run.status == 0, run.output
    assert newest in channels.repo.git("show", "main:flake.lock")


def test_a_group_that_may_move_everything_moves_it_for_all(channels: Channels) -> None:
    channels.release("stable", "2")
    channels.release("unstable", "2")
    inventory = channels.folder / "inventory"
    inventory.write_text(inventory.read_text().replace('flotilla_inputs=["nixpkgs"]\n', ""))
    run = channels.controller.run("-l", "servers", *UPDATE)
    assert run.status == 2
    assert "this would also move nixpkgs-unstable for desktops and kiosks, in the lock flake.lock" in said(run)
    # And what another moves, moves for it.
    run = channels.controller.run("-l", "desktops,kiosks", *UPDATE)
    assert run.status == 2
    assert "this would also move nixpkgs-unstable for servers" in said(run)


def test_in_check_mode_it_is_refused_as_well(channels: Channels) -> None:
    channels.release("unstable", "2")
    before = channels.state()
    run = channels.controller.run("-l", "kiosks", *UPDATE, "--check")
    assert run.status == 2
    assert "nixpkgs-unstable for desktops" in said(run)
    assert channels.state() == before
