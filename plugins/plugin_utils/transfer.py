# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a closure's way from the builder to a target, over Ansible's connections and ssh options."""

from __future__ import annotations

import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible import constants

from ..module_utils import closure, nix
from ..module_utils.errors import CommandTimeout, ConnectionLost, FlotillaError
from ..module_utils.runner import Runner, RunResult
from ..module_utils.update_group import checked_name
from .controller_run import is_left_behind, mark_of
from .machines import connection_to, is_controller, over
from .probe import probe
from .runners import ConnectionRunner, LocalRunner
from .ssh_messages import ssh_failure
from .ssh_options import SshTarget, store_url

if TYPE_CHECKING:
    from .action_base import FlotillaAction

_SCRIPT = Path(__file__).parent / "target" / "closure.sh"
#: What nix itself says when its ssh is gone.
_GONE = re.compile(
    r"failed to start SSH connection|unexpected end-of-file|Broken pipe|unexpected EOF|connection reset", re.IGNORECASE
)
#: Names by which nix knows the two ends of a copy through the controller.
_FROM, _TO = "flotilla-builder", "flotilla-target"


class Transfer:
    """One run of closure_copy."""

    def __init__(self, action: FlotillaAction, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        self.action = action
        self.options = options
        self.host = action.host(task_vars)
        self.system: str = options["system"]
        self.root = checked_name("GC root", options["name"])
        self.target: Runner = action.target(task_vars)
        self.controller = LocalRunner()
        self.script = _SCRIPT.read_text(encoding="utf-8")
        #: The nix-daemon on the target that serves this copy, "" for none.
        self.unit = ""
        #: The builder's connection where it is neither the controller nor the target.
        self.source: Any = None
        self.builder: Runner = self._builder(str(options["builder"]), task_vars)

    def run(self) -> dict[str, Any]:
        """Survey, check the room, copy, root. Nothing missing: the survey alone, which has made the root."""
        whole = closure.closure_of(self.builder, self.host, self.system)
        found = self._survey(whole)
        facts = {"system": self.system, "paths": len(found.missing), "bytes": 0, "free": found.free, "seconds": 0.0}
        facts |= {"changed": bool(found.missing), "rooted": found.rooted, "retried": False}
        if not found.missing:
            return facts
        try:
            facts["bytes"] = size = nix.nar_size(self.builder, self.host, found.missing)
            closure.require_room(self.host, size, found.free, self.options["keep_free"])
            if self.action.check_mode:
                return facts | {"missing": list(found.missing)}
            if key := self.options["signing_key"]:
                key = os.path.expanduser(key) if self.builder is self.controller else key
                closure.sign(self.builder, self.host, self.system, key)
            result, retried = self._copy(whole, size)
        except ConnectionLost:
            raise  # What is left there ends with the next run, or by itself.
        except FlotillaError:
            self._finish("")
            raise
        self._finish(self.root)
        return facts | {"rooted": True, "seconds": round(result.seconds, 2), "retried": retried}

    def _survey(self, whole: closure.Closure) -> closure.Survey:
        found = closure.survey(self.target, self.script, self._request(whole))
        self.unit = found.unit
        if left := [mark for mark in found.copying if is_left_behind(mark, self.mark)]:
            closure.end(self.target, self.script, left)
        return found

    def _finish(self, root: str) -> None:
        """Root the system, unless root is "", and end the daemon of the copy."""
        if (root or self.unit) and not closure.finish(self.target, self.script, self.system, root, self.unit):
            raise FlotillaError(self.host, f"{self.system} is not valid there after the copy", "Run it again.")

    def _builder(self, name: str, task_vars: Mapping[str, Any]) -> Runner:
        if name == self.host:
            return self.target
        if is_controller(name, task_vars):
            return self.controller
        self.source = connection_to(self.action, name, task_vars)
        return ConnectionRunner(over(self.action, self.source), name, become=False)

    def _request(self, whole: closure.Closure) -> closure.Request:
        return closure.Request(
            closure=whole,
            root="" if self.action.check_mode else self.root,
            mark=self.mark,
            user=self._plain_user(),
            trusted=not self.options["check_signatures"],
            limit=2 * self.options["timeout"] + 600,
        )

    @property
    def mark(self) -> str:
        """Tells our copies to this host from those of other runs, which may be at it at this moment."""
        return mark_of(self.host)

    def _plain_user(self) -> str:
        """Who logs in there, where that is not root; "" for root, and where commands do not become another user."""
        connection = self.action._connection
        if connection.become is None or connection.transport != "ssh":
            return ""
        ssh = SshTarget.from_connection(connection, self.host)
        user = ssh.user or self._configured_user(ssh)
        return "" if user == "root" else user

    def _configured_user(self, ssh: SshTarget) -> str:
        lines = self.controller.run(ssh.config_argv()).stdout.splitlines()
        return next((line.split(" ", 1)[1] for line in lines if line.startswith("user ")), "root")

    def _copy(self, whole: closure.Closure, size: int) -> tuple[RunResult, bool]:
        """The copy, and whether it took a second attempt: one, over a connection of its own, after a stall."""
        try:
            return self._attempt(size, fresh=False), False
        except closure.Stalled as stall:
            self.action.progress(f"{stall} Trying once more, over a new connection.")
        self._reconnect()
        left = self._survey(whole).missing
        if not left:
            # The last byte had arrived, and only the answer had not.
            return RunResult((), 0, "", "", 0.0), True
        return self._attempt(nix.nar_size(self.builder, self.host, left), fresh=True), True

    def _reconnect(self) -> None:
        """Drop the shared connection, over which Ansible would wait too, and see whether a new one comes about."""
        target = SshTarget.from_connection(self.action._connection, self.host)
        with suppress(CommandTimeout):
            self.controller.run(target.control_argv("exit"), timeout=5)
        found = probe(target, None, target.timeout + 10, self.controller)
        if found.message is not None:
            raise ConnectionLost(self.host, "the copy got stuck, and no new connection comes about", found.message)

    def _attempt(self, size: int, *, fresh: bool) -> RunResult:
        target = SshTarget.from_connection(self.action._connection, self.host)
        store = target.store_url(self._program())
        if self.options["via"] == "builder" and self.source is not None:
            result = self._from_builder(target, store)
        elif self.source is not None:
            result = self._between(target, size, fresh=fresh)
        else:
            result = self._watched(self._argv(store), {"NIX_SSHOPTS": target.nix_sshopts(fresh=fresh)}, size)
        if result.status != 0:
            raise self._failure(target, result)
        return result

    def _program(self) -> list[str]:
        """What to run in place of nix-daemon: marked for a later run to find, and over a plain user's own daemon."""
        words = ["env", f"FLOTILLA_COPY={self.mark}"]
        words += [f"NIX_REMOTE=unix:///run/flotilla/{self.unit}/socket"] if self.unit else []
        return [*words, "nix-daemon"]

    def _argv(self, to: str, source: str | None = None) -> list[str]:
        signatures, substitute = self.options["check_signatures"], self.options["substitute"]
        return nix.copy_argv(self.system, to, source, check_signatures=signatures, substitute=substitute)

    def _watched(self, argv: list[str], env: Mapping[str, str], size: int) -> RunResult:
        meter = closure.Meter(self.host, size, self.options["stall_timeout"], self.action.progress)
        return closure.copy(self.controller, argv, env, meter, self.options["timeout"])

    def _from_builder(self, target: SshTarget, store: str) -> RunResult:
        env = {"NIX_SSHOPTS": target.elsewhere().nix_sshopts(fresh=True)}
        return self.builder.run(self._argv(store), env=env, timeout=self.options["timeout"])

    def _between(self, target: SshTarget, size: int, *, fresh: bool) -> RunResult:
        source = SshTarget.from_connection(self.source, self.builder.name)
        with _two_ends({_FROM: source, _TO: target}, fresh=fresh) as path:
            env = {"PATH": f"{path}:{os.environ.get('PATH', os.defpath)}", "NIX_SSHOPTS": ""}
            return self._watched(self._argv(store_url(_TO, self._program()), store_url(_FROM)), env, size)

    def _failure(self, target: SshTarget, result: RunResult) -> FlotillaError:
        """A connection that was not there or went away, or what nix says."""
        known = ssh_failure(result.stderr, target.address, target.user, target.port) if _GONE.search(result.stderr) else None
        if known is not None:
            return ConnectionLost(self.host, f"copying to it failed: {known.what}", known.hint, result=result)
        error = closure.explained(result, self.host)
        if _GONE.search(result.stderr) and error.hint == closure.UNKNOWN:
            return ConnectionLost(self.host, error.what, "Run it again: what has arrived is not sent anew.", result=result)
        return error


@contextmanager
def _two_ends(ends: Mapping[str, SshTarget], *, fresh: bool) -> Iterator[str]:
    """A folder for the PATH with an ssh that knows the names given, each with its own options: nix has one NIX_SSHOPTS."""
    # Not /tmp, where programs cannot be run on some machines.
    parent = constants.DEFAULT_LOCAL_TMP  # type: ignore[attr-defined]  # made at run time
    with tempfile.TemporaryDirectory(prefix="flotilla-", dir=parent) as folder:
        script = Path(folder) / "ssh"
        script.write_text(ssh_wrapper(ends, fresh=fresh), encoding="utf-8")
        script.chmod(stat.S_IRWXU)
        yield folder


def ssh_wrapper(ends: Mapping[str, SshTarget], *, fresh: bool) -> str:
    """The text of that ssh. nix says `ssh HOST OPTIONS… -- COMMAND`, and `ssh -O check HOST OPTIONS…`."""
    lines = ["#!/bin/sh", "PATH=${PATH#*:}", "name=", "for word do", "  shift"]
    lines += [f'  case "$name$word" in {"|".join(ends)}) name=$word ;; *) set -- "$@" "$word" ;; esac', "done"]
    lines.append('case "$name" in')
    for name, end in ends.items():
        words = shlex.join([*end.options(fresh=fresh), end.address])
        lines.append(f'{name}) exec {shlex.quote(end.executable)} {words} "$@" ;;')
    lines += ["esac", 'echo "ssh: this is for the two ends of a copy" >&2', "exit 255", ""]
    return "\n".join(lines)
