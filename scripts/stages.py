# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs named commands side by side, each into a log of its own, and says in one line each how they went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LOGS = TOP / ".cache/logs"
#: Whoever kills us does not mean to leave our stages running.
DYING_WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")


@dataclass(frozen=True, slots=True)
class Stage:
    """A command with a name. It starts when the stages named in `after` have ended, whatever became of them.

    live: its output goes to the terminal while it runs, beside the log.
    """

    name: str
    argv: Sequence[str | Path]
    after: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    live: bool = False

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"


@dataclass(frozen=True, slots=True)
class Outcome:
    stage: Stage
    status: int
    seconds: float

    def __str__(self) -> str:
        word = "ok    " if self.status == 0 else "FAILED"
        return f"{word} {self.stage.name:<24} {self.seconds:7.1f} s"


class Runs:
    """The processes that are under way, so that an interrupt can end them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, stage: Stage) -> Outcome:
        started = time.monotonic()
        status = self._run(stage) if not self._ended else 143
        return Outcome(stage, status, time.monotonic() - started)

    def _run(self, stage: Stage) -> int:
        with stage.log.open("wb") as log:
            process = subprocess.Popen(
                [*DYING_WITH_US, *(str(word) for word in stage.argv)],
                cwd=TOP,
                env={**os.environ, **stage.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            with self._lock:
                self._processes.add(process)
            assert process.stdout is not None
            for chunk in iter(lambda: os.read(process.stdout.fileno(), 65536), b""):  # type: ignore[union-attr]
                log.write(chunk)
                log.flush()
                if stage.live:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()
            status = process.wait()
            with self._lock:
                self._processes.discard(process)
            return status

    def end(self) -> None:
        """Ask every process group that is under way to end."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                os.killpg(process.pid, signal.SIGTERM)


def run(stages: Sequence[Stage], jobs: int) -> Iterator[Outcome]:
    """Run the stages, at most `jobs` at a time, in their order as far as `after` lets them; each outcome as it comes."""
    LOGS.mkdir(parents=True, exist_ok=True)
    names = {stage.name for stage in stages}
    waiting, runs = list(stages), Runs()
    done: set[str] = set()
    futures: dict[Future[Outcome], Stage] = {}

    def interrupted(number: int, _frame: object) -> None:
        runs.end()
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or futures:
            ready = [stage for stage in waiting if not (set(stage.after) & names) - done]
            for stage in ready[: jobs - len(futures)]:
                waiting.remove(stage)
                futures[pool.submit(runs.run, stage)] = stage
            if not futures:
                raise SystemExit(f"stages wait for each other: {', '.join(stage.name for stage in waiting)}")
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                done.add(futures.pop(future).name)
                yield future.result()


def report(outcome: Outcome) -> None:
    """One line; for a failure also what the command printed, unless it was live."""
    print(outcome, flush=True)
    if outcome.status and not outcome.stage.live:
        print(outcome.stage.log.read_text(errors="replace").rstrip(), flush=True)
        print(f"(that was {outcome.stage.name}; the log is {outcome.stage.log.relative_to(TOP)})", flush=True)
