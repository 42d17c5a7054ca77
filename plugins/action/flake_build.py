# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind flotilla.nixos.flake_build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ansible.utils.display import Display
from ansible_collections.flotilla.nixos.plugins.module_utils import nix
from ansible_collections.flotilla.nixos.plugins.module_utils.group_build import (
    BuildSettings,
    GroupBuild,
    HostBuild,
    build_groups,
)
from ansible_collections.flotilla.nixos.plugins.plugin_utils.action_base import FlotillaAction
from ansible_collections.flotilla.nixos.plugins.plugin_utils.group_options import GROUPS, groups_from_options

_display = Display()


class ActionModule(FlotillaAction):
    """Builds the systems of update groups on the builder."""

    ARGUMENT_SPEC: ClassVar[dict[str, dict[str, Any]]] = {
        "groups": GROUPS,
        "allow_dirty": {"type": "bool", "default": False},
        "chunk": {"type": "int"},
        "continue_on_error": {"type": "bool", "default": False},
        "dry": {"type": "bool", "default": False},
        "keep": {"type": "path"},
        "timeout": {"type": "int", "default": int(nix.BUILD)},
    }

    def perform(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """Build, and say per group and host what came of it."""
        groups = groups_from_options(options["groups"])
        commits = [given["commit"] for given in options["groups"]]
        settings = BuildSettings(
            allow_dirty=options["allow_dirty"],
            keep=options["keep"],
            chunk=options["chunk"],
            dry=options["dry"],
            timeout=float(options["timeout"]),
        )
        self.phase = "build"
        builds = build_groups(self.builder(), list(zip(groups, commits, strict=True)), settings, self.progress)
        for warning in [*builds.warnings, *([] if settings.dry else _left_out(builds.groups.values()))]:
            _display.warning(warning)
        result: dict[str, Any] = {"changed": builds.changed}
        result["groups"] = {name: _group_result(group) for name, group in builds.groups.items()}
        broken = [group["msg"] for group in result["groups"].values() if group["failed"]]
        if broken and not options["continue_on_error"]:
            result |= {"failed": True, "msg": "\n".join(broken), "phase": self.phase}
        return result


def _left_out(groups: Iterable[GroupBuild]) -> list[str]:
    """Warnings about what the user may think is part of what was built; one for groups of which the same is true."""
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for group in groups:
        if group.uncommitted and not group.error:
            what = "the work tree (untracked files are not part of it)" if group.dirty else f"commit {group.commit[:12]}"
            alike.setdefault((what, group.uncommitted), []).append(group.group.name)
    return [
        f"{', '.join(names)}: this builds {what}, without: {_some(paths)}. Commit what belongs to it."
        for (what, paths), names in alike.items()
    ]


def _some(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def _group_result(group: GroupBuild) -> dict[str, Any]:
    failed = group.failed_hosts
    msg = group.error
    if not msg and failed:
        msg = f"{len(failed)} of {len(group.hosts)} hosts of {group.group.name} failed. " + "\n".join(h.error for h in failed)
    return {
        "failed": bool(group.error or failed),
        **({"msg": msg} if msg else {}),
        "commit": group.commit or None,
        "dirty": group.dirty,
        "uncommitted": list(group.uncommitted),
        "hosts": {host.name: _host_result(host) for host in group.hosts},
    }


def _host_result(host: HostBuild) -> dict[str, Any]:
    result = {
        "attribute": host.attribute,
        "failed": bool(host.error),
        "phase": host.phase,
        "drv": host.drv or None,
        "system": host.system or None,
        "platform": host.platform or None,
        "version": host.version or None,
        "closure_size": host.closure_size,
    }
    return result | ({"error": host.error, "log": list(host.log)} if host.error else {})
