# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that the target's script runs by itself, with programs of our own in place of the host's."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.target_state import Facts, parse_facts
from ansible_collections.flotilla.nixos.plugins.plugin_utils.system_target import _SCRIPT

#: A switch-to-configuration that makes itself the running system, and does before what the test wants.
_SWITCH = """#!/bin/sh
echo "$1 by {system}"
. {system}/trouble
[ "$1" != test ] || ln -sfn {system} {run}/current-system
"""
#: Only what the script needs of it; the profile's generations are links beside it.
_NIX_ENV = """#!/bin/sh
. {root}/nix-env.trouble
profile=$2
case $3 in
    --set)
        last=0
        for link in "$profile"-*-link; do
            number=${{link##*system-}}
            number=${{number%-link}}
            if [ -L "$link" ] && [ "$number" -gt "$last" ]; then last=$number; fi
        done
        if [ "$(readlink "$profile-$last-link")" != "$4" ]; then
            last=$((last + 1))
            ln -s "$4" "$profile-$last-link"
        fi
        ln -sfn "system-$last-link" "$profile"
        ;;
    --switch-generation) ln -sfn "system-$4-link" "$profile" ;;
    --delete-generations) rm "$profile-$4-link" ;;
esac
"""


@dataclass
class Machine:
    """A machine made of folders, and a transaction on it."""

    root: Path

    def __post_init__(self) -> None:
        for folder in ("run/flotilla/tx.t1", "profiles", "state", "bin", "roots"):
            (self.root / folder).mkdir(parents=True)
        self.program("nix-env", _NIX_ENV.format(root=self.root))
        self.program("timeout", '#!/bin/sh\necho "$3" >>' + f'{self.root}/limits\nshift 3\nexec /usr/bin/timeout -k 1 1 "$@"\n')
        self.program("sleep", "#!/bin/sh\nexec /bin/sleep 0.01\n")
        self.program("systemctl", "#!/bin/sh\nexit 0\n")
        for program in ("logger", "sync", "journalctl"):
            self.program(program, "#!/bin/sh\nexit 0\n")
        (self.root / "nix-env.trouble").touch()
        self.old, self.new = self.system("old"), self.system("new")
        (self.root / "profiles/system-1-link").symlink_to(self.old)
        (self.root / "profiles/system").symlink_to("system-1-link")
        (self.root / "run/current-system").symlink_to(self.new)

    def program(self, name: str, text: str) -> None:
        file = self.root / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    def system(self, name: str) -> Path:
        system = self.root / name
        (system / "bin").mkdir(parents=True)
        (system / "trouble").touch()
        switch = system / "bin/switch-to-configuration"
        switch.write_text(_SWITCH.format(system=system, run=self.root / "run"))
        switch.chmod(0o755)
        return system

    def transaction(self, **values: str) -> None:
        common = {"kind": "activate", "goal": "switch", "phase": "tested", "activation": "600", "confirmation": "60"}
        common |= {"old": str(self.old), "old_profile": str(self.old), "old_generation": "1", "old_boot": "unknown unknown"}
        common |= {"new": str(self.new), "deadline": "99999999999", "tested_at": "0", "last_resort": "stay"}
        for file in (self.root / "run/flotilla/tx.t1").iterdir():
            file.unlink()
        for key, value in (common | values).items():
            (self.root / "run/flotilla/tx.t1" / key).write_text(f"{value}\n")
        (self.root / "run/flotilla/tx.t1/baseline").touch()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        text = _SCRIPT.read_text()
        for name, place in (
            ("DIR=/run/flotilla", f"DIR={self.root}/run/flotilla"),
            ("PROFILE=/nix/var/nix/profiles/system", f"PROFILE={self.root}/profiles/system"),
            ("ROOTS=/nix/var/nix/gcroots/auto/flotilla", f"ROOTS={self.root}/roots/flotilla"),
            ("STATE=/nix/var/nix/flotilla", f"STATE={self.root}/state"),
        ):
            text = text.replace(f"\n{name}\n", f"\n{place}\n")
        text = text.replace("/run/current-system)", f"{self.root}/run/current-system)")
        env = {**os.environ, "PATH": f"{self.root}/bin:/usr/bin:/bin"}
        return subprocess.run(
            ["sh", "-s", "--", *words], input=text, env=env, capture_output=True, text=True, timeout=30, check=False
        )

    def value(self, key: str) -> str:
        file = self.root / "run/flotilla/tx.t1" / key
        return file.read_text().strip() if file.exists() else ""

    def running(self) -> Path:
        return (self.root / "run/current-system").resolve()

    def profile(self) -> str:
        return os.readlink(self.root / "profiles/system")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that runs `new`, and whose profile is `old`."""
    return Machine(tmp_path)


def test_a_confirmation_sets_the_profile(machine: Machine) -> None:
    machine.transaction()
    done = machine.run("_confirm", "t1")
    assert machine.value("phase") == "confirmed", done.stderr
    assert (machine.running(), machine.profile()) == (machine.new, "system-2-link")


@pytest.mark.parametrize("verb", ["_confirm", "_stage"])
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("new/trouble", "the boot loader could not be set (exit status 124): it was not done after 600 s"),
        ("nix-env.trouble", "the profile could not be set: it was not done after 600 s"),
    ],
)
def test_a_step_that_hangs_ends_in_going_back(machine: Machine, verb: str, where: str, said: str) -> None:
    machine.transaction(kind="stage" if verb == "_stage" else "activate")
    # What goes back is not hindered: only the first call hangs.
    (machine.root / where).write_text(f"if mkdir {machine.root}/hung 2>/dev/null; then /bin/sleep 60; fi\n")
    done = machine.run(verb, "t1")
    assert machine.value("phase") == ("failed" if verb == "_stage" else "rolled_back"), done.stderr
    assert machine.value("reason") == said
    assert machine.profile() == "system-1-link"
    if verb == "_confirm":
        assert machine.running() == machine.old


@pytest.mark.parametrize(
    ("answers", "phase"),
    [
        # PID 1 restarts, or the bus is busy: no answer is no word of an end.
        (["", "", "inactive", "inactive", "", "active"], "tested"),
        (["inactive", "inactive", "inactive"], "rolled_back"),
        (["failed", "", "failed", "unknown"], "rolled_back"),
    ],
)
def test_a_live_confirmation_is_left_alone(machine: Machine, answers: list[str], phase: str) -> None:
    machine.transaction()
    (machine.root / "run/flotilla/tx.t1/claim").symlink_to("confirm")
    (machine.root / "answers").write_text("".join(f"{answer}\n" for answer in answers))
    # After the last answer the confirmation has succeeded, unless the guard went back.
    machine.program(
        "systemctl",
        f"""#!/bin/sh
[ "$1" = is-active ] || exit 0
head -n 1 {machine.root}/answers
sed -i 1d {machine.root}/answers
if ! [ -s {machine.root}/answers ] && [ {phase} = tested ]; then echo confirmed >{machine.root}/run/flotilla/tx.t1/phase; fi
""",
    )
    done = machine.run("_guard", "t1")
    assert machine.value("phase") == ("confirmed" if phase == "tested" else phase), done.stderr
    assert machine.running() == (machine.new if phase == "tested" else machine.old)


def test_going_back_needs_no_note(machine: Machine) -> None:
    machine.transaction(deadline="0")
    folder = machine.root / "run/flotilla/tx.t1"
    for name in ("reason.new", "phase.new", "back_status.new", "ended.new", "back_log", "failed_after"):
        (folder / name).mkdir()
    done = machine.run("_guard", "t1")
    assert machine.running() == machine.old, done.stderr


def test_a_log_has_a_size_and_does_not_hinder(machine: Machine) -> None:
    machine.transaction(phase="testing")
    trouble = "head -c 3000000 /dev/zero | tr '\\0' x\necho the end\n/bin/sleep 3 &\n"
    (machine.new / "trouble").write_text(trouble)
    done = machine.run("_test", "t1")
    assert (machine.value("phase"), machine.value("status")) == ("tested", "0"), done.stderr
    size = (machine.root / "run/flotilla/tx.t1/log").stat().st_size
    assert 500_000 < size < 700_000


def facts_of(done: subprocess.CompletedProcess[str]) -> Facts:
    return parse_facts(done.stdout)


def previous(machine: Machine) -> tuple[str, str, str]:
    found = facts_of(machine.run("generation", "previous"))
    return Path(found.one("system")).name, found.one("generation"), Path(found.one("left")).name


def confirmed(machine: Machine, name: str, rollback: str = "") -> str:
    """The profile after a confirmation of a system, that of a rollback or not."""
    system = machine.root / name
    if not system.exists():
        machine.system(name)
    (machine.root / "run/current-system").unlink()
    (machine.root / "run/current-system").symlink_to(system)
    before, profile = (machine.root / "profiles/system").resolve(), machine.profile()
    generation = profile.removeprefix("system-").removesuffix("-link")
    machine.transaction(new=str(system), old=str(before), old_profile=str(before), old_generation=generation, rollback=rollback)
    done = machine.run("_confirm", "t1")
    assert machine.value("phase") == "confirmed", done.stderr
    return machine.profile()


def test_going_back_goes_back_once(machine: Machine) -> None:
    assert confirmed(machine, "bad") == "system-2-link"
    assert previous(machine) == ("old", "1", "")
    assert confirmed(machine, "old", rollback="1") == "system-1-link"
    # Twice, thrice: the system that it went back to.
    for _ in range(2):
        assert previous(machine) == ("old", "1", "bad")
        assert confirmed(machine, "old", rollback="1") == "system-1-link"
    assert confirmed(machine, "next") == "system-3-link"
    assert previous(machine) == ("old", "1", "")
    # By its path, though its generation is still there; and then it is good again.
    assert confirmed(machine, "bad", rollback="any") == "system-2-link"
    assert previous(machine) == ("bad", "2", "next")
    assert confirmed(machine, "last") == "system-4-link"
    assert previous(machine) == ("bad", "2", "")


def test_a_generation_that_was_there_before_is_not_removed(machine: Machine) -> None:
    confirmed(machine, "bad")
    confirmed(machine, "old", rollback="1")
    (machine.root / "bad/trouble").write_text("[ $1 != boot ] || exit 1\n")
    (machine.root / "run/current-system").unlink()
    (machine.root / "run/current-system").symlink_to(machine.root / "bad")
    machine.transaction(new=str(machine.root / "bad"), rollback="")
    machine.run("_confirm", "t1")
    assert (machine.value("phase"), machine.profile()) == ("rolled_back", "system-1-link")
    assert (machine.root / "profiles/system-2-link").is_symlink()
