# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what ssh says when no connection comes about, for people: what, and how to mend it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..module_utils.errors import ConnectionLost, NotAdmitted


class SshProblem(StrEnum):
    """Why an ssh connection did not come about."""

    HOST_KEY_CHANGED = "host_key_changed"
    HOST_KEY_UNKNOWN = "host_key_unknown"
    DENIED = "denied"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    NO_ROUTE = "no_route"
    NO_NAME = "no_name"
    CLOSED = "closed"
    SHELL = "shell"
    OTHER = "other"


#: How Ansible begins.
_ANSIBLES = "Failed to connect to the host via ssh:"
_KEY_PROBLEMS = (SshProblem.HOST_KEY_CHANGED, SshProblem.HOST_KEY_UNKNOWN)
_NOT_ADMITTED = (*_KEY_PROBLEMS, SshProblem.DENIED)

#: What OpenSSH's client (9.2 to 10.2; it speaks English in every locale) says, the most telling first: what, and the hint.
_SAYINGS: tuple[tuple[str, SshProblem, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
        SshProblem.HOST_KEY_CHANGED,
        "its host key is not the one in known_hosts",
        "If the host was installed anew, check the new key's fingerprint there and forget the old one with "
        "`ssh-keygen -R '{known_as}'`; if not, somebody may be answering in its place.",
    ),
    (
        r"Host key verification failed|host key is known for|authenticity of host",
        SshProblem.HOST_KEY_UNKNOWN,
        "its host key is not in known_hosts",
        "Check its fingerprint on the host, then add it, for example with `ssh-keyscan {scan}`.",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication methods",
        SshProblem.DENIED,
        "it let nobody in as {user}",
        "Check ansible_user, its authorized_keys and login shell there, and the key (ansible_ssh_private_key_file).",
    ),
    (
        r"Connection refused",
        SshProblem.REFUSED,
        "nothing listens on its ssh port",
        "Check that sshd runs there, and ansible_port.",
    ),
    (
        r"timed out|Operation timed out",
        SshProblem.TIMEOUT,
        "it did not answer in time",
        "Check that it is on and reachable; ansible_ssh_timeout allows it longer.",
    ),
    (
        r"No route to host|Network is unreachable|Host is down",
        SshProblem.NO_ROUTE,
        "there is no way to it",
        "Check that it is on, and the network between.",
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        SshProblem.NO_NAME,
        "its address does not resolve",
        "Check ansible_host.",
    ),
    (
        r"Connection (closed|reset)|closed by remote host|Broken pipe|kex_exchange_identification|"
        r"Connection to \S+ closed|connection unexpectedly closed|not responding|client_loop|banner exchange",
        SshProblem.CLOSED,
        "the connection was closed",
        "Check the link, and sshd's log there.",
    ),
)


@dataclass(frozen=True, slots=True)
class SshFailure:
    """A failure as the parts of a FlotillaError."""

    problem: SshProblem
    what: str
    hint: str


def ssh_failure(text: str, address: str, user: str | None, port: int | None) -> SshFailure | None:
    """The failure that ssh's words name; None if they name none that is known."""
    for pattern, problem, _what, _hint in _SAYINGS:
        if said := re.search(rf".*(?:{pattern}).*", text, re.IGNORECASE):
            # Its own words name the machine: with a ProxyJump it may not be the target.
            detail = "" if problem in _KEY_PROBLEMS else said.group().removeprefix(_ANSIBLES).strip().rstrip(".")
            return failure_of(problem, address, user, port, detail)
    return None


def failure_of(problem: SshProblem, address: str, user: str | None, port: int | None, detail: str = "") -> SshFailure:
    """The words for a problem (one that has some); detail: what else is known of it."""
    what, hint = next((what, hint) for _pattern, known, what, hint in _SAYINGS if known is problem)
    words = {
        "user": user or "the user that ssh chose",
        "known_as": f"[{address}]:{port}" if port not in (None, 22) else address,
        "scan": f"-p {port} {address}" if port not in (None, 22) else address,
    }
    return SshFailure(problem, what.format(**words) + (f" ({detail})" if detail else ""), hint.format(**words))


def connection_lost(name: str, connection: Any, error: Exception) -> ConnectionLost:
    """The error for a failure of Ansible's own connection to a host."""
    known = None
    if connection.transport == "ssh":
        port = connection.get_option("port")
        address, user = str(connection.get_option("host")), connection.get_option("remote_user")
        known = ssh_failure(str(error), address, user, int(port) if port else None)
    if known is None:
        return ConnectionLost(name, f"the connection failed: {str(error).rstrip('.')}")
    kind = NotAdmitted if known.problem in _NOT_ADMITTED else ConnectionLost
    return kind(name, f"the connection failed: {known.what}", known.hint)
