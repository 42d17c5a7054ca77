# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what Ansible's ssh connection tells ssh, for programs that start ssh themselves."""

from __future__ import annotations

import os
import shlex
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..module_utils.errors import BadInput

#: ssh takes the first value that it is given for an option, so these stand before all others.
_BATCH = ("-o", "BatchMode=yes")
_SHARED = ("-o", "ControlMaster=no")
_FRESH = ("-o", "ControlMaster=no", "-o", "ControlPath=none")
#: And these after all others: a dead link is noticed within a minute unless the user says otherwise.
_ALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")


@dataclass(frozen=True, slots=True)
class SshTarget:
    """How Ansible's ssh connection reaches a host.

    name: the host in the inventory, for messages. address: what ssh is told to connect to. user, port: None where ssh's own
    configuration decides. timeout: seconds to connect in. args: all options in Ansible's order, as argument words.
    """

    name: str
    address: str
    user: str | None = None
    port: int | None = None
    timeout: int = 10
    args: tuple[str, ...] = ()
    executable: str = "ssh"

    @classmethod
    def from_connection(cls, connection: Any, name: str) -> SshTarget:
        """The same for the host of an Ansible connection; BadInput if it is not ssh or logs in with a password."""
        transport = str(connection.transport)
        if transport != "ssh":
            raise BadInput(
                name,
                f"its connection is {transport!r}, and nix copies to other machines over ssh alone",
                "Set `ansible_connection: ssh` for it.",
            )
        if connection.get_option("password") or connection._play_context.password:
            raise BadInput(
                name,
                "it logs in with a password, which nix copy and the confirming probe cannot give to the connections of their own",
                "Let ansible_user log in with a key (ansible_ssh_private_key_file, ansible_ssh_private_key or an agent).",
            )
        port = connection.get_option("port")
        user = connection.get_option("remote_user")
        return cls(
            name=name,
            address=_checked_address(name, str(connection.get_option("host"))),
            user=str(user) if user else None,
            port=int(port) if port is not None else None,
            timeout=int(connection.get_option("timeout")),
            args=tuple(_ansible_args(connection)),
            executable=str(connection.get_option("ssh_executable")),
        )

    def options(self, *, fresh: bool = False) -> tuple[str, ...]:
        """ssh's option words: never a question on a terminal, never the master of a shared connection.

        fresh: a new TCP connection with its own log-in, whatever shared one there is.
        """
        if fresh:
            return (*_BATCH, *_FRESH, *_without_sharing(self.args), *_ALIVE)
        # nix would wait for ever for a master that it started to close its stderr (nix issues 3017, 8480).
        return (*_BATCH, *_SHARED, *self.args, *_ALIVE)

    def ssh_argv(self, command: str, *, fresh: bool = False) -> list[str]:
        """The command line that runs a shell command on the host."""
        return [self.executable, *self.options(fresh=fresh), self.address, command]

    def control_argv(self, verb: str) -> list[str]:
        """The command line that tells the master of Ansible's shared connection something (`exit`: end it, and all over it)."""
        return [self.executable, *self.args, "-O", verb, self.address]

    def config_argv(self) -> list[str]:
        """The command line that prints what ssh makes of all this together with its own configuration files."""
        return [self.executable, "-G", *self.args, self.address]

    def nix_sshopts(self, *, fresh: bool = False) -> str:
        """The same options as the value of NIX_SSHOPTS, which nix ≥ 2.26 splits as a shell would."""
        return shlex.join(self.options(fresh=fresh))

    def elsewhere(self) -> SshTarget:
        """For another machine than the controller, whose keys, jump hosts and known hosts are its own."""
        words = [f"Port={self.port}"] if self.port is not None else []
        words += [f'User="{self.user}"'] if self.user else []
        args = tuple(part for word in (*words, f"ConnectTimeout={self.timeout}") for part in ("-o", word))
        return replace(self, args=args, executable="ssh")

    def store_url(self, program: Sequence[str] = ()) -> str:
        """The host's store for `nix copy`; program: what to run there in place of nix-daemon (words without spaces)."""
        return store_url(self.address, program)


def store_url(address: str, program: Sequence[str] = ()) -> str:
    """An ssh-ng store. Never ssh://, which is many times slower where the round trip is long."""
    host = f"[{address}]" if ":" in address else address
    query = f"?remote-program={urllib.parse.quote(' '.join(program), safe='/=:')}" if program else ""
    return f"ssh-ng://{host}{query}"


def _checked_address(name: str, address: str) -> str:
    if not address or address.startswith("-") or any(c.isspace() or c in "/?#@'\"\\%" for c in address.partition("%")[0]):
        raise BadInput(name, f"{address!r} is not an address that ssh can be given", "Correct ansible_host.")
    return address


def _ansible_args(connection: Any) -> Iterator[str]:
    """The words that ansible-core 2.19 to 2.21 builds in ssh.Connection._build_command, in its order."""
    yield from _split(connection.get_option("ssh_args"))
    if connection.get_option("host_key_checking") is False:
        yield from ("-o", "StrictHostKeyChecking=no")
    if (port := connection.get_option("port")) is not None:
        yield from ("-o", f"Port={port}")
    if connection.get_option("private_key"):
        # Puts the key into Ansible's agent and gives the path of its public half.
        yield from ("-o", "IdentitiesOnly=yes", "-o", f'IdentityFile="{connection._populate_agent()}"')
    elif key := connection.get_option("private_key_file"):
        yield from ("-o", f'IdentityFile="{os.path.expanduser(key)}"')
    yield from ("-o", "KbdInteractiveAuthentication=no")
    yield from ("-o", "PreferredAuthentications=gssapi-with-mic,gssapi-keyex,hostbased,publickey")
    yield from ("-o", "PasswordAuthentication=no")
    if user := connection.get_option("remote_user"):
        yield from ("-o", f'User="{user}"')
    yield from ("-o", f"ConnectTimeout={connection.get_option('timeout')}")
    yield from _split(connection.get_option("ssh_common_args"))
    yield from _split(connection.get_option("ssh_extra_args"))
    if path := _control_path(connection):
        yield from ("-o", f'ControlPath="{path}"')
    if connection.get_option("password_mechanism") == "ssh_askpass":
        yield from ("-o", "NumberOfPasswordPrompts=1")


def _split(words: str | None) -> list[str]:
    return [word.strip() for word in shlex.split(words or "") if word.strip()]


def _control_path(connection: Any) -> str | None:
    """The socket that Ansible adds: only where the arguments ask for ControlPersist and name no ControlPath."""
    given = " ".join(str(connection.get_option(o) or "") for o in ("ssh_args", "ssh_common_args", "ssh_extra_args")).lower()
    if "controlpersist" not in given or "controlpath" in given:
        return None
    folder = os.path.realpath(os.path.expanduser(os.path.expandvars(str(connection.get_option("control_path_dir")))))
    options = (connection.get_option("host"), connection.get_option("port"), connection.get_option("remote_user"))
    path = connection.get_option("control_path") or connection._create_control_path(*options)
    return str(path) % {"directory": folder}


def _without_sharing(args: Sequence[str]) -> Iterator[str]:
    """Without -M and -S, which ssh obeys even after the options that stand before them."""
    words = iter(args)
    for word in words:
        if word == "-S":
            next(words, None)
        elif word.strip("M") != "-" and not word.startswith("-S"):
            yield word
