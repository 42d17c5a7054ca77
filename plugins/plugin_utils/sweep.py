# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: who of a fleet is there, and with which host key, before anything is changed.

One process asks all hosts at once: TCP, and ssh's key exchange without a log-in (paramiko). All that follows goes through
OpenSSH; what this finds is that a rollout need not begin. sshd (≥ 9.8) shuts out for some seconds whoever hangs up before the
log-in again and again, so once per rollout is right, and polling is not.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..module_utils.errors import FlotillaError
from ..module_utils.runner import Runner
from .known_hosts import KnownHosts, KnownKeys
from .ssh_messages import SshProblem, failure_of
from .ssh_options import SshTarget

_LOG = "flotilla.nixos.sweep"
#: How `ssh -G` (and its forerunners) spell StrictHostKeyChecking=no.
_CARELESS = ("no", "off", "false")
#: What a TCP connection of our own would not go by.
_BY_ANOTHER_WAY = ("proxyjump", "proxycommand", "bindaddress", "bindinterface")
#: known_hosts names the key's type, the key exchange the signature's.
_RSA = ("rsa-sha2-512", "rsa-sha2-256")

_NOBODY_THERE = (SshProblem.REFUSED, SshProblem.TIMEOUT, SshProblem.NO_ROUTE)


class Presence(StrEnum):
    """here: it answers with a host key that ssh will take. absent: no ssh there now. key_changed, key_unknown: ssh will
    refuse it. unknown: behind a jump host or a proxy command, not asked."""

    HERE = "here"
    ABSENT = "absent"
    KEY_CHANGED = "key_changed"
    KEY_UNKNOWN = "key_unknown"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SweepTarget:
    """A host as ssh will look for it.

    known_as: its name in known_hosts. strict: a key that known_hosts does not have is refused. careless: not even one that
    differs is refused (StrictHostKeyChecking=no). proxied: not reached directly, or by ways that ssh alone knows. timeout:
    seconds that ssh would wait for it.
    """

    name: str
    address: str
    port: int = 22
    known_as: str = ""
    known_hosts: tuple[str, ...] = ()
    strict: bool = True
    careless: bool = False
    proxied: bool = False
    timeout: float = 10.0

    @property
    def listed_as(self) -> str:
        """Its name in known_hosts, with the port where that is not 22."""
        if self.known_as:
            return self.known_as
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @classmethod
    def from_ssh(cls, target: SshTarget, runner: Runner) -> SweepTarget:
        """What ssh makes of Ansible's options together with its own configuration files (`ssh -G`, which contacts nobody)."""
        lines = runner.run(target.config_argv()).stdout.splitlines()
        said = {key.lower(): value for key, _space, value in (line.partition(" ") for line in lines)}
        checking = said.get("stricthostkeychecking", "ask")
        return cls(
            name=target.name,
            address=said.get("hostname", target.address),
            port=int(said.get("port", target.port or 22)),
            known_as=said.get("hostkeyalias", ""),
            known_hosts=(*said.get("userknownhostsfile", "").split(), *said.get("globalknownhostsfile", "").split()),
            strict=checking not in (*_CARELESS, "accept-new"),
            careless=checking in _CARELESS,
            proxied="hostname" not in said or any(said.get(key, "none") != "none" for key in _BY_ANOTHER_WAY),
            timeout=float(said["connecttimeout"]) if said.get("connecttimeout", "").isdigit() else float(target.timeout),
        )


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What was found of one host. fingerprint: SHA256:… of the key that it gave. message: None where all is well."""

    name: str
    presence: Presence
    fingerprint: str | None = None
    problem: SshProblem | None = None
    message: str | None = None
    seconds: float = 0.0

    @property
    def surely_away(self) -> bool:
        """True if ssh would not get through either: the network itself says no. Not so for what an sshd or a resolver says."""
        return self.presence is Presence.ABSENT and self.problem in _NOBODY_THERE


#: Gives the type and blob of the host key at an address and port, of these types if it can; raises OSError or SshSilence.
KeyGetter = Callable[[str, int, Sequence[str], float], tuple[str, bytes]]


class SshSilence(Exception):
    """Something listens there, but speaks no ssh that we know."""


def sweep_targets(targets: Sequence[SshTarget], runner: Runner, workers: int = 8) -> list[SweepTarget]:
    """The same for all of a fleet; runner: the controller's."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(lambda target: SweepTarget.from_ssh(target, runner), targets))


def sweep(
    hosts: Sequence[SweepTarget], timeout: float | None = 5.0, workers: int = 64, get_key: KeyGetter | None = None
) -> dict[str, SweepResult]:
    """Ask all hosts, so many at a time, each for at most so many seconds (None: as many as ssh would wait).

    Results are by name, in the order given.
    """
    key_of = get_key or _paramiko_key
    known = {files: KnownHosts.read(files) for files in {host.known_hosts for host in hosts}}
    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(hosts)))) as pool:
        results = pool.map(lambda host: _ask(host, known[host.known_hosts], timeout or host.timeout, key_of), hosts)
        return {result.name: result for result in results}


def _ask(host: SweepTarget, known_hosts: KnownHosts, timeout: float, get_key: KeyGetter) -> SweepResult:
    if host.proxied:
        return SweepResult(host.name, Presence.UNKNOWN)
    started = time.monotonic()
    known = known_hosts.of(host.listed_as)
    try:
        key = get_key(host.address, host.port, sorted({kind for kind, _key in known.keys}), timeout)
    except (OSError, SshSilence) as error:
        return _absent(host, error, time.monotonic() - started)
    seconds = time.monotonic() - started
    presence = _judge(key, known, host)
    if presence is Presence.HERE:
        return SweepResult(host.name, presence, _fingerprint(key[1]), seconds=seconds)
    problem = SshProblem.HOST_KEY_CHANGED if presence is Presence.KEY_CHANGED else SshProblem.HOST_KEY_UNKNOWN
    message = _message(host, problem, f"it gives {_fingerprint(key[1])}")
    return SweepResult(host.name, presence, _fingerprint(key[1]), problem, message, seconds)


def _judge(key: tuple[str, bytes], known: KnownKeys, host: SweepTarget) -> Presence:
    """What ssh will think of that key. One that an authority may vouch for counts as good: whether it does is ssh's to see."""
    if key in known.revoked:
        return Presence.KEY_CHANGED
    if key in known.keys or host.careless:
        return Presence.HERE
    if any(kind == key[0] for kind, _blob in known.keys):
        return Presence.KEY_CHANGED
    return Presence.HERE if known.authority or not host.strict else Presence.KEY_UNKNOWN


def _absent(host: SweepTarget, error: Exception, seconds: float) -> SweepResult:
    match error:
        case ConnectionRefusedError():
            problem = SshProblem.REFUSED
        case TimeoutError():
            problem = SshProblem.TIMEOUT
        case socket.gaierror():
            problem = SshProblem.NO_NAME
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EHOSTDOWN):
            problem = SshProblem.NO_ROUTE
        case _:
            problem = SshProblem.CLOSED
    detail = "" if isinstance(error, (ConnectionRefusedError, TimeoutError)) else str(error).rstrip(".")
    return SweepResult(host.name, Presence.ABSENT, None, problem, _message(host, problem, detail), seconds)


def _message(host: SweepTarget, problem: SshProblem, detail: str) -> str:
    known = failure_of(problem, host.known_as or host.address, None, None if host.known_as else host.port, detail)
    return f"{host.name}: {known.what}. {known.hint}"


def _fingerprint(blob: bytes) -> str:
    """As ssh-keygen -l shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _paramiko_key(address: str, port: int, kinds: Sequence[str], timeout: float) -> tuple[str, bytes]:
    """Connect, exchange keys, hang up."""
    try:
        from paramiko.ssh_exception import SSHException
        from paramiko.transport import Transport
    except ImportError as error:
        hint = "Install paramiko (pip install 'paramiko>=4') for the Python that runs Ansible."
        raise FlotillaError("sweep", "looking for hosts takes the Python library paramiko, which is not there", hint) from error
    # paramiko reports every hang-up as an error on its logger, which ends on the terminal where there is no handler.
    logging.getLogger(_LOG).addHandler(logging.NullHandler())
    logging.getLogger(_LOG).propagate = False
    connection = socket.create_connection((address, port), timeout)
    transport = Transport(connection)
    try:
        transport.set_log_channel(_LOG)
        transport.banner_timeout = max(1, round(timeout))
        _prefer(transport.get_security_options(), kinds)
        transport.start_client(timeout=timeout)
        key = transport.get_remote_server_key()
    except (SSHException, EOFError) as error:
        raise SshSilence(str(error) or "it hung up") from error
    finally:
        transport.close()
    return key.get_name(), key.asbytes()


def _prefer(options: Any, kinds: Sequence[str]) -> None:
    """Ask for the types of key that are known first, as ssh does: a host has several."""
    wanted = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,))]
    offered = list(options.key_types)
    options.key_types = [*(t for t in wanted if t in offered), *(t for t in offered if t not in wanted)]
