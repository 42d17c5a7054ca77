# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's ssh key, and what ssh needs to know of the hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .commands import run

USERS = ("root", "deploy", "operator")


def ensure_key(file: Path, comment: str) -> str:
    """Have an ed25519 key pair in file and file.pub; return the public key. One half alone, left by a killed run, is replaced."""
    public = file.with_name(file.name + ".pub")
    if not (file.exists() and public.exists()):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file])
    return public.read_text().strip()


def known_hosts(keys: Mapping[str, tuple[str, str]]) -> str:
    """The text of a known_hosts file; keys: host name → (address, public key)."""
    return "".join(f"{name},{address} {' '.join(key.split()[:2])}\n" for name, (address, key) in keys.items())


def ssh_config(folder: Path, addresses: Mapping[str, str]) -> str:
    """The text of an ssh_config in which the hosts go by their names."""
    blocks = [f"Host {name}\n    HostName {address}\n" for name, address in addresses.items()]
    everyone = f"""Host {" ".join([*addresses, *addresses.values()])}
    User root
    IdentityFile {folder}/key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    ConnectTimeout 10
"""
    return "\n".join([*blocks, everyone])
