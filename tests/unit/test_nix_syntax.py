# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting a flake.nix into its bindings."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.nix_syntax import SyntaxUnknown, bindings, by_itself

VALUES = [
    "inputs: { }",
    "{ self, nixpkgs }: { nixosConfigurations = { a = 1; }; }",
    "inputs: let a = 1; b = let c = 2; in c; in { inherit a; }",
    "{ self, ... }@inputs: with inputs.nixpkgs.lib; { x = with self; y; }",
    "inputs: assert inputs ? a; { }",
    'inputs: { x = "a;}${"b;}" + "${c}"}\\"\\${"; }',
    "inputs: { x = ''a;} ''${ ''' ''\\n ${\"}\" + ''b''} $${ ''; }",
    "inputs: import ./in/let.nix inputs",
    "inputs: [ ./let/x <in/let> ~/with/x https://x.org/a;y=1 ] ",
    "# a ; comment\n inputs: /* } ; */ { }",
    "inputs: { a.${x}.b = c: d: (e ++ [ f ]); }",
    "inputs: a // b && !c -> d",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_ends_at_its_own_semicolon(value: str) -> None:
    text = f'# SPDX\n{{\n  inputs.a.url = "x"; inherit q;\n  outputs =\n    {value};\n  nixConfig = {{ }};\n}}\n'
    found = {b.name: text[b.start : b.end] for b in bindings(text)}
    assert list(found) == ["inputs.a.url", "outputs", "nixConfig"]
    assert found["outputs"] in (value.strip(), value.partition("\n")[2].strip())
    whole = next(b.whole for b in bindings(text) if b.name == "nixConfig")
    assert text[slice(*whole)] == "nixConfig = { };"


@pytest.mark.parametrize(
    "text", ["", "inputs: { }", "{ outputs = ", "{ outputs = x", '{ a = "', "{ a = ); }", "let a = 1; in { }"]
)
def test_what_is_no_flake_is_refused(text: str) -> None:
    with pytest.raises(SyntaxUnknown):
        bindings(text)


def test_a_value_is_moved_to_the_left_unless_a_string_would_change() -> None:
    text = "{\n  outputs =\n    { self }:\n    {\n      a = 1;\n    };\n}\n"
    assert by_itself(text, bindings(text)[0]) == "{ self }:\n{\n  a = 1;\n}\n"
    text = '{\n  outputs =\n    { self }:\n    {\n      a = "x\n      y";\n    };\n}\n'
    assert by_itself(text, bindings(text)[0]) == '{ self }:\n    {\n      a = "x\n      y";\n    }\n'


def test_the_flakes_of_this_repository_are_read() -> None:
    files = [*Path(__file__).parents[2].glob("examples/**/flake.nix"), *Path(__file__).parents[1].glob("testbed/**/flake.nix")]
    assert len(files) > 5
    for file in files:
        assert "outputs" in {b.name for b in bindings(file.read_text())}, file
