# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a repository's layout in the shape of a result, and as files that a user may copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ..module_utils.errors import masked
from ..module_utils.layout import Layout, LayoutGroup
from ..module_utils.lint import Finding


def layout_result(layout: Layout, findings: Sequence[Finding] = ()) -> dict[str, Any]:
    """What was recognised."""
    return {
        "repo": layout.repo.path,
        "branch": layout.head.branch,
        "commit": layout.head.commit,
        "strategy": layout.strategy,
        "certainty": str(layout.certainty),
        "evidence": list(layout.evidence),
        "advice": layout.advice,
        "groups": [_group(group) for group in layout.groups],
        "flakes": {
            where: {"hosts": None if flake.hosts is None else list(flake.hosts), "outputs": list(flake.outputs)}
            for where, flake in layout.flakes.items()
        },
        "problems": [_finding(finding) for finding in findings],
        "snippet": snippet(layout),
    }


def _finding(finding: Finding) -> dict[str, str]:
    problem = finding.problem
    text = f"{finding.subject}: {problem.what}. {problem.fix}".rstrip()
    return {"level": "error" if problem.error else "warning", "msg": masked(text)}


def _group(group: LayoutGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "strategy": group.strategy,
        "certainty": str(group.certainty),
        "evidence": list(group.evidence),
        "hosts": None if group.hosts is None else list(group.hosts),
        "variables": group.variables(),
    }


def snippet(layout: Layout) -> str:
    """The variables as YAML files under one another, each after a comment with its name."""
    parts = [("inventory/hosts.yml", inventory(layout))] if layout.groups else []
    parts += [(f"inventory/group_vars/{group.name}.yml", group.variables()) for group in layout.groups]
    return "\n".join(f"# {path}\n{yaml.safe_dump(value, sort_keys=False)}" for path, value in parts)


def inventory(layout: Layout) -> dict[str, Any]:
    """An inventory of the groups with their hosts; a group whose hosts stand in no flake has none."""
    groups: dict[str, dict[str, dict[str, Any]]] = {
        group.name: {"hosts": {host: {} for host in group.hosts or ()}} for group in layout.groups
    }
    return {"all": {"children": groups}}
