# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the two kinds of runner. No other file starts a process."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ..module_utils.errors import CommandTimeout, ConnectionLost
from ..module_utils.runner import QUICK, RunResult
from .ssh_messages import connection_lost

#: GIT_* of the caller (a hook, say) would redirect git and nix to another repository.
_DROPPED_ENV_PREFIX = "GIT_"
_KEPT_GIT_ENV = re.compile(
    r"GIT_(SSH|SSH_COMMAND|ASKPASS|SSL_\w+|(AUTHOR|COMMITTER)_(NAME|EMAIL)|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM))"
)
#: Seconds between SIGTERM and SIGKILL.
_GRACE = 3.0
#: Seconds between two calls of on_tick.
_TICK = 1.0
#: Bytes of stderr that are kept of a command that is watched: a large copy's log would fill the memory.
_TAIL = 65536


class LocalRunner:
    """Runs commands as processes of this machine, in a process group of their own that never outlives the call."""

    def __init__(self, name: str = "localhost") -> None:
        self.name = name

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = QUICK,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_line: Callable[[str], None] | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> RunResult:
        """Run argv and wait for it; see module_utils.runner.Runner.

        on_tick: called about once a second while it runs; what it raises ends the command. Then stderr goes to on_line
        line by line, and only its end is kept.
        """
        started = time.monotonic()
        environment = _environment(env)
        try:
            process = subprocess.Popen(
                [*_dying_with_us(argv[0], environment.get("PATH")), *argv],
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            # What a shell says for a command that is not there or cannot be run; so does every remote runner.
            status, what = (127, "not found") if isinstance(error, FileNotFoundError) else (126, "cannot be run")
            return RunResult(tuple(argv), status, "", f"{error.filename}: {what}", time.monotonic() - started)
        try:
            stdout, stderr = _pump(process, stdin, started + timeout, on_line, on_tick)
        except TimeoutError:
            raise CommandTimeout(
                self.name, f"`{shlex.join(argv)}` was still running after {timeout:.0f} s and was ended"
            ) from None
        finally:
            _end_group(process)
        return RunResult(tuple(argv), process.returncode, stdout, stderr, time.monotonic() - started)


def _dying_with_us(program: str, path: str | None) -> tuple[str, ...]:
    """Words before a command that have it end when this process does, however that ends (Linux). path: the command's PATH.

    Ansible ends its workers without a chance to tidy up when somebody presses Ctrl-C. Not for a program that is not there,
    which is to fail as itself.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or shutil.which(program, path=path) is None:
        return ()
    return (setpriv, "--pdeathsig", "TERM", "--")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED_ENV_PREFIX) or _KEPT_GIT_ENV.fullmatch(k)}
    return {**kept, **(extra or {})}


def _pump(
    process: subprocess.Popen[bytes],
    stdin: str | None,
    deadline: float,
    on_line: Callable[[str], None] | None,
    on_tick: Callable[[], None] | None,
) -> tuple[str, str]:
    """Feed stdin and collect both outputs until the process closes them; TimeoutError at the deadline.

    A child left behind that holds them open (an ssh master, say) is waited for no longer than a tick after the process.
    """
    if process.stdout is None or process.stderr is None:
        raise AssertionError
    out, err, partial = bytearray(), bytearray(), bytearray()
    pending = memoryview((stdin or "").encode("utf-8", "surrogateescape"))
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        if process.stdin:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        ticked = time.monotonic()
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = selector.select(min(left, _TICK))
            if not ready and process.poll() is not None:
                break
            if on_tick and time.monotonic() - ticked >= _TICK:
                ticked = time.monotonic()
                on_tick()
            for key, _events in ready:
                stream: IO[bytes] = key.fileobj  # type: ignore[assignment]  # registered above, always a pipe
                if stream is process.stdin:
                    pending = _feed(stream, pending)
                    if not pending:
                        selector.unregister(stream)
                        with contextlib.suppress(BrokenPipeError):
                            stream.close()
                    continue
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    selector.unregister(stream)
                elif stream is process.stdout:
                    out += chunk
                else:
                    err += chunk
                    if on_tick:
                        del err[:-_TAIL]
                    partial = _emit_lines(partial + chunk, on_line)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")


def _feed(stream: IO[bytes], pending: memoryview) -> memoryview:
    try:
        return pending[os.write(stream.fileno(), pending[:65536]) :]
    except BrokenPipeError:
        return memoryview(b"")


def _emit_lines(buffer: bytearray, on_line: Callable[[str], None] | None) -> bytearray:
    *lines, rest = bytes(buffer).split(b"\n")
    if on_line:
        for line in lines:
            on_line(line.decode("utf-8", "replace"))
    return bytearray(rest)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of the process group, and reap the leader."""
    for sent, wait in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        if process.poll() is not None and sent is signal.SIGTERM:
            # The leader is gone; children that it left behind are not worth a grace period.
            sent = signal.SIGKILL
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            break
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


class ConnectionRunner:
    """Runs commands over the connection that Ansible has for a task's host: its ssh options, its become.

    Needs nothing there but a POSIX shell. Output does not stream.
    """

    def __init__(self, action: ActionBase, name: str, *, become: bool = True) -> None:
        self.name = name
        self._action = action
        self._become = become

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = QUICK,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> RunResult:
        """Run argv there and wait for it; see module_utils.runner.Runner."""
        started = time.monotonic()
        command = _remote_command(argv, timeout, env, cwd)
        watch = _Watch(timeout + _ANSWER)
        try:
            # Without in_data Ansible's ssh asks for a terminal, which mixes stdout with stderr; empty counts as without.
            answer = self._action._low_level_execute_command(
                command, sudoable=self._become, in_data=(stdin or "\n").encode("utf-8", "surrogateescape")
            )
        except AnsibleConnectionFailure as error:
            if watch.bit:
                raise ConnectionLost(self.name, watch.silence) from error
            raise connection_lost(self.name, self._action._connection, error) from error
        finally:
            watch.over()
        if watch.bit:
            # To Ansible a killed ssh is a command that ended with -9.
            raise ConnectionLost(self.name, watch.silence)
        seconds = time.monotonic() - started
        result = RunResult(tuple(argv), int(answer["rc"]), answer["stdout"], answer["stderr"], seconds)
        if on_line:
            for line in result.stderr.splitlines():
                on_line(line)
        if result.status == _TIMED_OUT and seconds >= timeout:
            raise CommandTimeout(self.name, f"`{result.command}` was still running after {timeout:.0f} s and was ended")
        return result


#: Seconds that an answer may take beyond the command's own time limit: connecting, becoming root, the way back.
_ANSWER = 20.0


class _Watch:
    """Ends the connection's own processes when no answer comes in time.

    ssh waits for ever on a link that was cut, and so does Ansible (2.19 to 2.21) on ssh. The
    master of a shared connection is nobody's child, so it is not hit.
    """

    def __init__(self, seconds: float) -> None:
        self.bit = False
        self.silence = f"no answer within {seconds:.0f} s"
        self._before = _children()
        self._timer = threading.Timer(seconds, self._bite)
        self._timer.daemon = True
        self._timer.start()

    def over(self) -> None:
        self._timer.cancel()

    def _bite(self) -> None:
        self.bit = True
        for pid in _children() - self._before:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _children() -> set[int]:
    """Process ids of this process's children; ps where there is no Linux /proc."""
    tasks = Path("/proc/self/task")
    try:
        return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}
    except OSError:
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        return {int(pid) for pid, parent in (line.split() for line in listing.splitlines()) if int(parent) == os.getpid()}


#: coreutils timeout(1) says 124 when it ended the command.
_TIMED_OUT = 124


def _remote_command(argv: Sequence[str], timeout: float, env: Mapping[str, str] | None, cwd: str | None) -> str:
    words = [*(["env", *(f"{k}={v}" for k, v in env.items())] if env else []), *argv]
    limited = shlex.join(["timeout", "-k", f"{_GRACE:.0f}", f"{timeout:.0f}", *words])
    return f"cd {shlex.quote(cwd)} && {limited}" if cwd else limited
