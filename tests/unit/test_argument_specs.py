# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module's documentation says of its options is what its action takes."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py") if path.stem != "__init__")
ACTIONS = sorted(path.stem for path in (PLUGINS / "action").glob("*.py") if path.stem != "__init__")


def constant(path: Path, name: str) -> str:
    """A string that a Python file assigns to a name, at the top or in a class."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return str(ast.literal_eval(node.value))
    raise AssertionError(f"{path} has no {name}")


def documentation(module: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load(constant(PLUGINS / "modules" / f"{module}.py", "DOCUMENTATION"))
    return found


def documented_options(module: str) -> dict[str, Any]:
    """The options in a module's documentation, with those of its fragments."""
    docs = documentation(module)
    options = dict(docs.get("options") or {})
    fragments = docs.get("extends_documentation_fragment") or []
    for fragment in [fragments] if isinstance(fragments, str) else fragments:
        _namespace, _collection, name, *part = fragment.split(".")
        fragment_of = importlib.import_module(
            f"ansible_collections.flotilla.nixos.plugins.doc_fragments.{name}"
        ).ModuleDocFragment
        text = getattr(fragment_of, part[0].upper() if part else "DOCUMENTATION")
        options |= yaml.safe_load(text).get("options") or {}
    return options


def essence(option: Mapping[str, Any], *, suboptions: str) -> dict[str, Any]:
    """What documentation and argument spec both say of an option."""
    default = option.get("default")
    return {
        "type": option.get("type", "str"),
        "elements": option.get("elements"),
        "required": bool(option.get("required", False)),
        "default": default,
        "choices": sorted(map(str, option["choices"])) if option.get("choices") else None,
        "aliases": sorted(option.get("aliases") or []),
        "no_log": bool(option.get("no_log")) if suboptions == "options" else None,
        "options": {name: essence(sub, suboptions=suboptions) for name, sub in (option.get(suboptions) or {}).items()},
    }


def without_no_log(options: Any) -> Any:
    """no_log is not documented."""
    if isinstance(options, dict):
        return {name: without_no_log(value) for name, value in options.items() if name != "no_log"}
    return options


@pytest.mark.parametrize("module", MODULES)
def test_documentation_and_argument_spec_agree(module: str) -> None:
    action = importlib.import_module(f"ansible_collections.flotilla.nixos.plugins.action.{module}").ActionModule
    documented = {name: essence(option, suboptions="suboptions") for name, option in documented_options(module).items()}
    taken = {name: essence(option, suboptions="options") for name, option in action.ARGUMENT_SPEC.items()}
    assert without_no_log(documented) == without_no_log(taken)


@pytest.mark.parametrize("module", MODULES)
def test_every_option_is_described(module: str) -> None:
    def undescribed(options: Mapping[str, Any], above: str = "") -> list[str]:
        bad = []
        for name, option in options.items():
            bad += [] if option.get("description") else [f"{above}{name}"]
            bad += undescribed(option.get("suboptions") or {}, f"{above}{name}.")
        return bad

    assert not undescribed(documented_options(module))


def test_every_action_is_a_documented_module_of_the_action_group() -> None:
    assert ACTIONS == MODULES
    runtime = yaml.safe_load((PLUGINS.parent / "meta/runtime.yml").read_text())
    assert sorted(runtime["action_groups"]["all"]) == MODULES
