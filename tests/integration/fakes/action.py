# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for an action plugin of the builder or of a target: answers from a scenario, and writes down that it was called.

Scenario (JSON, path in FLOTILLA_FAKE): {"ACTION": {"HOST or *": RESULT}}; merged over the defaults below. In a result,
"raise": "unreachable" makes Ansible itself think that the host is unreachable; "sleep" is how many seconds it takes.
Journal: FLOTILLA_FAKE + ".log".
"""

from __future__ import annotations

import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.flotilla.nixos.plugins.plugin_utils.values import plain

NAME = Path(__file__).stem


class ActionModule(ActionBase):
    """The stand-in."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer from the scenario."""
        super().run(tmp, task_vars)
        scenario = Path(os.environ["FLOTILLA_FAKE"])
        host = str((task_vars or {})["inventory_hostname"])
        if NAME.startswith("system_"):
            host = str(self._task.delegate_to or host)
        arguments = plain(self._task.args)
        with open(f"{scenario}.log", "a", encoding="utf-8") as journal:
            journal.write(json.dumps([NAME, host, arguments]) + "\n")
        wanted = json.loads(scenario.read_text()).get(NAME, {})
        answer = {"changed": False, "failed": False, **_default(host, arguments), **wanted.get("*", {}), **wanted.get(host, {})}
        time.sleep(answer.pop("sleep", 0))
        if answer.pop("raise", None) == "unreachable":
            raise AnsibleConnectionFailure("fake: no route to host")
        if answer.pop("lost_at", None) == arguments.get("state", ""):
            return {"failed": True, "unreachable": True, "msg": f"{host}: the connection to the builder failed.", "phase": "lock"}
        if NAME in ("flake_lock", "flake_build"):
            for name, group in answer["groups"].items():
                group.update(answer.get("override", {}).get(name, {}))
                group["failed"] = group["failed"] or group.get("failed_at") == arguments.get("state", "updated")
                for member, values in answer.get("members", {}).items():
                    if member in group.get("hosts", {}):
                        group["hosts"][member].update(values)
        activated = answer.get("outcome") == "activated" and not answer["failed"]
        if NAME == "system_activate" and arguments.get("confirm") and activated:
            return answer | _confirmed(host, arguments, scenario)
        return answer


def _confirmed(host: str, arguments: dict[str, Any], scenario: Path) -> dict[str, Any]:
    """What system_confirm would answer: an activation that confirms does both."""
    with open(f"{scenario}.log", "a", encoding="utf-8") as journal:
        journal.write(json.dumps(["system_confirm", host, arguments]) + "\n")
    wanted = json.loads(scenario.read_text()).get("system_confirm", {})
    answer = {"failed": False, "outcome": "confirmed", "guard": None, **wanted.get("*", {}), **wanted.get(host, {})}
    if answer.pop("raise", None) == "unreachable":
        raise AnsibleConnectionFailure("fake: no route to host")
    return answer


def _default(host: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if NAME == "flake_lock":
        return {"changed": True, "groups": {group["name"]: _locked(group["name"], arguments) for group in arguments["groups"]}}
    if NAME == "flake_build":
        return {"changed": True, "groups": {group["name"]: _built(group) for group in arguments["groups"]}}
    if NAME in ("flake_ledger", "flake_ledger_info"):
        return {"groups": {}}
    return _target(host, arguments)


def _locked(group: str, arguments: dict[str, Any]) -> dict[str, Any]:
    commit = "c" * 12 + sha256(group.encode()).hexdigest()[:28]
    pins = {"old": {"rev": "a" * 40, "lastModified": 1762041600}, "new": {"rev": "b" * 40, "lastModified": 1763596800}}
    return {
        "changed": True,
        "failed": False,
        "commit": commit,
        "base": "d" * 40,
        "candidate": commit if arguments.get("state", "updated") == "updated" else None,
        "branch": "main",
        "changes": [{"input": "nixpkgs", "compare": None, **pins}],
    }


def _built(group: dict[str, Any]) -> dict[str, Any]:
    hosts = {
        host["name"]: {
            "attribute": host["attribute"],
            "failed": False,
            "phase": "done",
            "system": f"/nix/store/{'n' * 32}-nixos-system-{host['name']}",
            "platform": "x86_64-linux",
            "closure_size": 1000,
        }
        for host in group["hosts"]
    }
    return {"failed": False, "commit": group.get("commit") or "d" * 40, "hosts": hosts}


def _target(host: str, arguments: dict[str, Any]) -> dict[str, Any]:
    old = f"/nix/store/{'o' * 32}-nixos-system-{host}"
    if NAME == "system_info":
        systems = dict.fromkeys(("running", "booted", "profile", "boot_default"), old)
        return {"reachable": True, "platform": "x86_64-linux", "guard": None, **systems}
    outcome = {
        "closure_copy": {"paths": 1, "bytes": 1, "seconds": 0.1},
        "system_activate": {"outcome": "activated", "previous": old, "guard": "g1", "reboot_needed": False},
        "system_confirm": {"outcome": "confirmed"},
        "system_rollback": {"outcome": "rolled_back"},
        "system_reboot": {"outcome": "rebooted"},
    }[NAME]
    return {"changed": True, "system": arguments.get("system"), **outcome}
