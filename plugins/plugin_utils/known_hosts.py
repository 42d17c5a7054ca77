# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: known_hosts files as ssh reads them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """What known_hosts says of a host: its keys, those revoked for it, and whether an authority may vouch for others.

    Keys are blobs by type, as in the file.
    """

    keys: frozenset[tuple[str, bytes]] = frozenset()
    revoked: frozenset[tuple[str, bytes]] = frozenset()
    authority: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    marker: str
    hosts: str
    key: tuple[str, bytes]


@dataclass(slots=True)
class KnownHosts:
    """The lines of some known_hosts files; plain names are looked up at once, hashes and patterns one by one."""

    _plain: dict[str, list[_Line]] = field(default_factory=dict)
    _others: list[_Line] = field(default_factory=list)

    @classmethod
    def read(cls, files: Iterable[str]) -> KnownHosts:
        """Those files; one that is not there or cannot be read counts as empty, as it does for ssh."""
        known = cls()
        for file in files:
            try:
                text = Path(file).expanduser().read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            known.add(text)
        return known

    def add(self, text: str) -> None:
        """Take a file's text. Lines that make no sense are left out, as ssh does."""
        for line in filter(None, map(_parsed, text.splitlines())):
            if line.hosts.startswith("|1|") or any(c in line.hosts for c in "*?!"):
                self._others.append(line)
                continue
            for name in line.hosts.split(","):
                self._plain.setdefault(name.lower(), []).append(line)

    def of(self, name: str) -> KnownKeys:
        """What is said of a host by its name there: `address`, or `[address]:port` where the port is not 22."""
        name = name.lower()
        lines = [*self._plain.get(name, ()), *(line for line in self._others if _matches(line.hosts, name))]
        by_marker: Mapping[str, set[tuple[str, bytes]]] = {
            marker: {line.key for line in lines if line.marker == marker} for marker in ("", "@revoked", "@cert-authority")
        }
        authority = bool(by_marker["@cert-authority"])
        return KnownKeys(frozenset(by_marker[""]), frozenset(by_marker["@revoked"]), authority)


def _parsed(text: str) -> _Line | None:
    words = text.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if len(words) < 3:
        return None
    try:
        return _Line(marker, words[0], (words[1], base64.b64decode(words[2], validate=True)))
    except binascii.Error:
        return None


def _matches(hosts: str, name: str) -> bool:
    if hosts.startswith("|1|"):
        return _hash_matches(hosts, name)
    patterns = hosts.lower().split(",")
    # Brackets stand for themselves here: `[web1]:2222`.
    glob = [p.removeprefix("!").replace("[", "[[]") for p in patterns]
    hits = [fnmatch.fnmatchcase(name, g) for g in glob]
    if any(hit and p.startswith("!") for hit, p in zip(hits, patterns, strict=True)):
        return False
    return any(hits)


def _hash_matches(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
