#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the virtual environments that the tests and the demo run in, and says which pairs of Python and ansible-core those are.

`.venv` is the floor: the oldest ansible-core that we support on the machine's own python3, with all development tools.
`.venv-newest` is the newest ansible-core that the newest Python found here takes. A virtual environment is made again
only when its Python or its requirements have changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
FLOOR_CORE = "ansible-core~=2.19.0"
NEWEST_CORE = "ansible-core>=2.19,<2.23"
#: The Pythons that ansible-core 2.19 runs on as a controller.
FLOOR_PYTHONS = ((3, 11), (3, 13))

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that can make virtual environments."""

    path: Path
    version: Version

    @property
    def label(self) -> str:
        return ".".join(map(str, self.version))


@dataclass(frozen=True, slots=True)
class Venv:
    """A virtual environment to be: its folder, its interpreter, and what pip installs into it."""

    folder: Path
    python: Python
    requirements: tuple[str, ...]

    def stamp(self) -> str:
        """A text that changes when the environment has to be made again."""
        parts = [str(self.python.path), self.python.label, *self.requirements]
        parts += [path.read_text() for path in sorted(TOP.glob("requirements-*.txt"))]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def ready(self) -> bool:
        stamp = self.folder / "flotilla-stamp"
        return stamp.exists() and stamp.read_text() == self.stamp()


def candidates() -> list[Path]:
    """Where interpreters are looked for: the machine's own first."""
    own = shutil.which("python3")
    homes = {Path.home(), Path("~" + os.environ.get("SUDO_USER", "")).expanduser()}
    found = [Path(own)] if own else []
    for folder in (Path("/usr/bin"), Path("/usr/local/bin"), *(home / ".local/bin" for home in homes)):
        found += sorted(path for path in folder.glob("python3.[0-9]*") if path.name.removeprefix("python3.").isdigit())
    for home in homes:
        found += sorted((home / ".pyenv/versions").glob("3.*/bin/python"))
    return found


def usable(path: Path) -> Python | None:
    """The interpreter behind that path, or None: a pre-release, too old, a shim without a Python, or without ensurepip."""
    code = "import ensurepip, sys; v = sys.version_info; assert v.releaselevel == 'final'; print(sys.executable, *v[:3])"
    answer = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    executable, *numbers = answer.stdout.rsplit(maxsplit=3)
    version = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
    return Python(Path(executable), version) if version >= (3, 11) else None


def pythons() -> list[Python]:
    """The interpreters of this machine, its own python3 first, each once."""
    found: dict[Path, Python] = {}
    for path in candidates():
        python = usable(path)
        if python:
            found.setdefault(python.path.resolve(), python)
    return list(found.values())


def floor_python(found: list[Python]) -> Python | None:
    low, high = FLOOR_PYTHONS
    return next((python for python in found if low <= python.version[:2] <= high), None)


def make(venv: Venv) -> None:
    """Make the environment anew, and stamp it once everything is in it."""
    if venv.ready():
        return
    print(f"{venv.folder.name}: Python {venv.python.label}, {venv.requirements[0]}: installing …", flush=True)
    shutil.rmtree(venv.folder, ignore_errors=True)
    subprocess.run([venv.python.path, "-m", "venv", venv.folder], check=True)
    pip = [str(venv.folder / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    arguments = [word for requirement in venv.requirements for word in requirement.split()]
    answer = subprocess.run([*pip, *arguments], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"{venv.folder.name}: pip could not install {', '.join(venv.requirements)}:\n{answer.stdout}")
    (venv.folder / "flotilla-stamp").write_text(venv.stamp())


def core_version(venv: Venv) -> str:
    code = "import ansible.release as r; print(r.__version__)"
    return subprocess.run([venv.folder / "bin/python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def wanted(found: list[Python], what: str) -> list[Venv]:
    """The environments for running (`run`: only the floor, without tools) or testing (`test`: both)."""
    floor = floor_python(found)
    if floor is None:
        raise SystemExit(
            "No Python from 3.11 to 3.13 that can make virtual environments was found. Run: apt-get install python3 python3-venv"
        )
    newest = max(found, key=lambda python: python.version)
    if what == "run":
        return [Venv(TOP / ".venv", floor, (FLOOR_CORE, "paramiko>=4"))]
    return [
        Venv(TOP / ".venv", floor, (FLOOR_CORE, "paramiko>=4", "-r requirements-dev.txt")),
        Venv(TOP / ".venv-newest", newest, (NEWEST_CORE, "paramiko>=4", "-r requirements-test.txt")),
    ]


def report(venvs: list[Venv]) -> None:
    """One line that says which pairs are tested; in CI a single pair is an error unless FLOTILLA_ONE_PAIR allows it."""
    pairs = {f"ansible-core {core_version(venv)} on Python {venv.python.label}": None for venv in venvs}
    print(f"Tested pairs: {'; '.join(pairs)}.", flush=True)
    if len(pairs) > 1:
        return
    print("No Python newer than the floor's was found here, so a newer ansible-core is NOT tested.", flush=True)
    if os.environ.get("CI") and not os.environ.get("FLOTILLA_ONE_PAIR"):
        raise SystemExit("That is an error in CI. Install Python 3.12 or newer, or set FLOTILLA_ONE_PAIR=1.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["run", "test"], help="run: what the demo needs; test: what the tests need")
    what = parser.parse_args().what
    floor = TOP / ".venv"
    venvs = wanted(pythons(), what)
    if what == "run" and any(venv.ready() for venv in wanted(pythons(), "test") if venv.folder == floor):
        return
    with (TOP / "requirements-dev.txt").open() as lock, ThreadPoolExecutor() as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        list(pool.map(make, venvs))
    if what == "test":
        report(venvs)


if __name__ == "__main__":
    main()
