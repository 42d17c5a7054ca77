# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: files on the builder: a place for temporary ones, and a lock that one run holds at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import BadInput, CommandFailed
from .runner import Runner, checked


@contextmanager
def scratch_dir(runner: Runner, subject: str) -> Iterator[str]:
    """A new directory on the builder, gone afterwards."""
    made = runner.run(["mktemp", "-d", "-t", "flotilla.XXXXXXXX"])
    path = checked(made, subject, f"there is no place for temporary files on {runner.name}").stdout.strip()
    try:
        yield path
    finally:
        runner.run(["rm", "-rf", "--", path])


def write_file(runner: Runner, subject: str, path: str, text: str) -> None:
    """Write a text file on the builder."""
    checked(runner.run(["sh", "-euc", 'cat >"$1"', "sh", path], stdin=text), subject, f"writing {path} failed")


def read_file(runner: Runner, subject: str, path: str) -> str:
    """The text of a file on the builder."""
    return checked(runner.run(["cat", "--", path]), subject, "nix wrote no lock").stdout


#: Seconds to wait for another run, and the age at which a lock is taken for one that a dead run left.
_PATIENCE = 60
_STALE = 7200

#: A symbolic link is made and read in one step each, so it cannot be seen without its owner: `HOST PID TIME USER`.
_TAKE = r"""
link=$1 owner=$2 patience=$3 stale=$4
mkdir -p -- "${link%/*}"
deadline=$(($(date +%s) + patience))
alive() {
  [ "$1" = "$(uname -n)" ] || return 0
  kill -0 "$2" 2>/dev/null || { LC_ALL=C kill -0 "$2" 2>&1 | grep -q permitted; }
}
until ln -s -- "$owner" "$link" 2>/dev/null; do
  held=$(readlink -- "$link" || true)
  now=$(date +%s)
  if [ -n "$held" ]; then
    set -- $held
    if ! alive "$1" "$2" || [ "$((now - $3))" -gt "$stale" ]; then
      # Of all who see it stale, one takes it away; to the others it is another's by then.
      ( flock 9; [ "$(readlink -- "$link")" != "$held" ] || rm -f -- "$link" ) 9<"${link%/*}"
      continue
    fi
  fi
  [ "$now" -lt "$deadline" ] || { printf '%s\n' "$held"; exit 75; }
  sleep 0.2
done
"""


@contextmanager
def held(runner: Runner, subject: str, link: str, owner: str, *, patience: int = _PATIENCE) -> Iterator[None]:
    """Hold the lock `link` (a path on the builder) while the context lasts. Waits `patience` seconds for who has it.

    owner: host, process id, Unix time and user of this run, with blanks between.
    """
    words = ["sh", "-euc", _TAKE, "sh", link, owner, str(patience), str(_STALE)]
    result = runner.run(words, timeout=patience + 60.0)
    if result.status == 75:
        raise _busy(subject, link, result.stdout.strip())
    checked(result, subject, f"taking the lock {link} failed")
    try:
        yield
    finally:
        runner.run(["sh", "-euc", '[ "$(readlink -- "$1")" != "$2" ] || rm -f -- "$1"', "sh", link, owner])


def _busy(subject: str, link: str, owner: str) -> Exception:
    if not owner:
        return CommandFailed(subject, f"the lock {link} cannot be made on the builder", "May this user write there?")
    host, pid, _since, user = [*owner.split(), "", "", "", ""][:4]
    return BadInput(
        subject,
        f"another run is at work on the same lock: process {pid} of {user} on {host}",
        f"Wait for it. If it is dead, remove {link}.",
    )
