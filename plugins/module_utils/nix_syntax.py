# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: where the bindings of a flake.nix are in its text. Only as much of nix's syntax as that takes.

Nix itself has no command that says so. What is cut out here is proven by evaluation afterwards.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

#: As nix's own lexer has them; the order matters: `a/b` is a path, and `x:y` a URL.
_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*|/\*.*?\*/)
    |(?P<indented>'')
    |(?P<string>")
    |(?P<url>[a-zA-Z][a-zA-Z0-9+.-]*:[a-zA-Z0-9%/?:@&=+$,_.!~*'-]+)
    |(?P<path>[a-zA-Z0-9._+-]*(?:/[a-zA-Z0-9._+-]+)+/?|~(?:/[a-zA-Z0-9._+-]+)+|<[a-zA-Z0-9._+-]+(?:/[a-zA-Z0-9._+-]+)*>)
    |(?P<word>[a-zA-Z_][a-zA-Z0-9_'-]*)
    |(?P<open>\$\{|[{(\[])
    |(?P<close>[})\]])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_STRING = re.compile(r'\\.|\$\{|"|[^\\$"]+|.', re.DOTALL)
_IN_INDENTED = re.compile(r"''(?:'|\$|\\.)|\$\$|\$\{|''|[^'$]+|.", re.DOTALL)


class SyntaxUnknown(ValueError):
    """The text is not what this reader knows."""


@dataclass(frozen=True, slots=True)
class Binding:
    """`NAME = VALUE;` at the top of a flake.nix. start, end: of the value in the text, without blanks around it."""

    name: str
    start: int
    end: int
    whole: tuple[int, int]


def bindings(text: str) -> list[Binding]:
    """The bindings of the attribute set that the text is; SyntaxUnknown if it is none."""
    tokens = list(_tokens(text))
    solid = [token for token in tokens if token[0] != "blank"]
    if not solid or text[solid[0][1] : solid[0][2]] != "{":
        raise SyntaxUnknown
    found, at = [], 1
    while at < len(solid) and text[solid[at][1] : solid[at][2]] != "}":
        binding, at = _binding(text, solid, at)
        if binding:
            found.append(binding)
    return found


_Token = tuple[str, int, int]


def _binding(text: str, tokens: list[_Token], at: int) -> tuple[Binding | None, int]:
    """The binding at a token, None for `inherit …;`, and the token after its semicolon."""
    begin = at
    equals = next((i for i in range(at, len(tokens)) if text[tokens[i][1] : tokens[i][2]] in ("=", ";")), None)
    if equals is None:
        raise SyntaxUnknown
    if text[tokens[equals][1] : tokens[equals][2]] == ";":
        return None, equals + 1
    end = _value_end(text, tokens, equals + 1)
    name = text[tokens[begin][1] : tokens[equals - 1][2]]
    value = Binding(name, tokens[equals + 1][1], tokens[end - 1][2], (tokens[begin][1], tokens[end][2]))
    return value, end + 1


def _value_end(text: str, tokens: list[_Token], at: int) -> int:
    """The semicolon that ends a value: not one of `let`, `with` or `assert`, or of a set within it."""
    stack: list[str] = []
    for number in range(at, len(tokens)):
        kind, start, stop = tokens[number]
        word = text[start:stop]
        if kind == "open" or word in ("let", "with", "assert"):
            stack.append(word)
        elif kind == "close":
            while stack and stack[-1] in ("let", "with", "assert"):
                stack.pop()
            if not stack:
                raise SyntaxUnknown
            stack.pop()
        elif (word == "in" and stack and stack[-1] == "let") or (word == ";" and stack and stack[-1] in ("with", "assert")):
            stack.pop()
        elif word == ";" and not stack:
            return number
    raise SyntaxUnknown


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        kind = found.lastgroup if found else None
        if found is None or kind is None:
            raise SyntaxUnknown
        stop = found.end()
        if kind in ("string", "indented"):
            stop = _string_end(text, stop, _IN_STRING if kind == "string" else _IN_INDENTED, found.group())
        yield kind, at, stop
        at = stop


def _string_end(text: str, at: int, parts: re.Pattern[str], quote: str) -> int:
    while at < len(text):
        found = parts.match(text, at)
        if found is None:
            raise SyntaxUnknown
        at = found.end()
        if found.group() == quote:
            return at
        if found.group() == "${":
            at = _interpolation_end(text, at)
    raise SyntaxUnknown


def _interpolation_end(text: str, at: int) -> int:
    depth = 1
    while depth:
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise SyntaxUnknown
        kind, at = found.lastgroup, found.end()
        if kind in ("string", "indented"):
            at = _string_end(text, at, _IN_STRING if kind == "string" else _IN_INDENTED, found.group())
        depth += {"open": 1, "close": -1}.get(kind, 0)
    return at


def by_itself(text: str, binding: Binding) -> str:
    """A binding's value as a file of its own, moved to the left where that changes no string."""
    value = text[binding.start : binding.end]
    spans_lines = any(kind == "string" and "\n" in value[start:stop] for kind, start, stop in _tokens(value))
    if spans_lines:
        return f"{value}\n"
    first, newline, rest = value.partition("\n")
    return f"{first}{newline}{textwrap.dedent(rest)}\n"
