# SPDX-License-Identifier: GPL-3.0-or-later
"""What a target lacks, whether it has room, and how a copy is watched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import closure, nix
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed, FlotillaError, NixTooOld
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult

TOP, LIB, DATA = (f"/nix/store/{c * 32}-{name}" for c, name in (("a", "nixos-system-web1"), ("b", "lib"), ("c", "data+x_1.0")))
CLOSURE = closure.Closure(TOP, (LIB, DATA, TOP))
REQUEST = closure.Request(CLOSURE, root="system", mark="ctl_web1", user="", trusted=True, limit=60)


class Scripted:
    """A runner with one answer, which keeps what it was asked."""

    def __init__(
        self, stdout: str = "", stderr: str = "", status: int = 0, lines: Sequence[str] = (), name: str = "web1"
    ) -> None:
        self.name = name
        self.answer = (status, stdout, stderr)
        self.lines = lines
        self.calls: list[tuple[list[str], str | None, dict[str, str]]] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        on_tick: Callable[[], None] | None = None,
        **_kwargs: Any,
    ) -> RunResult:
        self.calls.append((list(argv), stdin, dict(env or {})))
        for line in self.lines:
            if on_line:
                on_line(line)
        if on_tick:
            on_tick()
        return RunResult(tuple(argv), *self.answer, 1.5)


@pytest.mark.parametrize("path", ["/nix/store", "/etc", "", f"{TOP}/bin", f"{TOP}; rm", "/nix/store/short-x", f"-{TOP}"])
def test_only_store_paths_are_systems(path: str) -> None:
    assert closure.checked_system("web1", TOP) == TOP
    with pytest.raises(BadInput, match=r"^web1: .* is not a store path"):
        closure.checked_system("web1", path)


def test_the_builder_names_the_paths_and_then_the_size_of_those_that_are_missing() -> None:
    builder = Scripted(f"{LIB}\n{DATA}\n{TOP}\n", name="build1")
    assert closure.closure_of(builder, "web1", TOP) == CLOSURE
    assert builder.calls == [(["nix-store", "--query", "--requisites", TOP], None, {})]
    with pytest.raises(CommandFailed, match=r"^web1: build1 cannot say what .* needs: error: path is not valid\. Build it there"):
        closure.closure_of(Scripted(stderr="error: path is not valid", status=1, name="build1"), "web1", TOP)

    builder = Scripted("1000\n30\n", name="build1")
    assert nix.nar_size(builder, "web1", [LIB, TOP]) == 1030
    assert builder.calls == [(["xargs", "nix-store", "--query", "--size"], f"{LIB}\n{TOP}\n", {})]


@pytest.mark.parametrize(
    ("said", "survey"),
    [
        ("rooted yes\n", closure.Survey((), 5000, True, "")),
        (f"missing {DATA}\nmissing {TOP}\n", closure.Survey((DATA, TOP), 5000, False, "")),
        (f"missing {TOP}\nunit flotilla-copy-7\n", closure.Survey((TOP,), 5000, False, "flotilla-copy-7")),
        (f"missing {TOP}\ncopying ctl_web1_2\ncopying x\n", closure.Survey((TOP,), 5000, False, "", ("ctl_web1_2", "x"))),
        (f"missing {TOP}\nmissing /etc/passwd\n", closure.Survey((TOP,), 5000, False, "")),
    ],
)
def test_a_survey_is_one_round_trip(said: str, survey: closure.Survey) -> None:
    target = Scripted(f"uid 0\nnix nix-store (Nix) 2.26.3\nfree 5000\n{said}")
    assert closure.survey(target, "SCRIPT", REQUEST) == survey
    ((argv, stdin, _env),) = target.calls
    assert argv == ["sh", "-c", "SCRIPT", "closure.sh", "survey", TOP, "system", "ctl_web1", "", "yes", "60"]
    assert stdin == f"{LIB}\n{DATA}\n{TOP}\n"


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("uid 1000\n", BadInput, "web1: commands do not run as root there, which copying a system takes. Set ansible_become"),
        ("uid 0\nnix none\n", NixTooOld, "web1: there is no nix on it. A target must run NixOS"),
        (
            "uid 0\nnix nix-store (Nix) 2.3.16\n",
            NixTooOld,
            "web1: its nix is too old: it says 'nix-store (Nix) 2.3.16'. Update it",
        ),
    ],
)
def test_a_target_that_will_not_do_is_named(said: str, kind: type[FlotillaError], message: str) -> None:
    with pytest.raises(kind) as caught:
        closure.survey(Scripted(said), "SCRIPT", REQUEST)
    assert str(caught.value).startswith(message)


def test_a_failed_script_is_not_printed() -> None:
    with pytest.raises(CommandFailed) as caught:
        closure.survey(Scripted(stderr="df: no such file", status=1), "SCRIPT", REQUEST)
    assert str(caught.value) == "web1: asking for its store's paths failed: df: no such file."
    assert caught.value.result is not None
    assert caught.value.result.command.startswith("closure.sh survey /nix/store/")


def test_what_other_copies_left_is_ended_by_their_marks() -> None:
    target = Scripted()
    closure.end(target, "SCRIPT", ["ctl_web1_2", "x"])
    assert target.calls[0][0] == ["sh", "-c", "SCRIPT", "closure.sh", "end", "ctl_web1_2", "x"]


@pytest.mark.parametrize(
    ("root", "said", "good"), [("system", "rooted yes\n", True), ("system", "rooted no\n", False), ("", "", True)]
)
def test_finishing_says_whether_the_system_is_there(root: str, said: str, good: bool) -> None:
    target = Scripted(said)
    assert closure.finish(target, "SCRIPT", TOP, root, "unit-1") is good
    assert target.calls[0][0] == ["sh", "-c", "SCRIPT", "closure.sh", "finish", TOP, root, "unit-1"]


@pytest.mark.parametrize(
    ("needed", "free", "keep", "fits"), [(1000, 1050, 0, True), (1000, 1049, 0, False), (1000, 2000, 951, False), (0, 0, 0, True)]
)
def test_room_is_for_the_paths_a_twentieth_more_and_what_is_to_stay_free(needed: int, free: int, keep: int, fits: bool) -> None:
    if fits:
        closure.require_room("web1", needed, free, keep)
        return
    with pytest.raises(CommandFailed, match=r"^web1: its /nix/store has .* nothing was sent\. Make room there"):
        closure.require_room("web1", needed, free, keep)


def test_the_sentence_for_no_room_has_the_numbers() -> None:
    with pytest.raises(CommandFailed) as caught:
        closure.require_room("web1", 100 << 20, 90 << 20, 32 << 20)
    assert "has 90.0 MiB free, and 137.0 MiB are needed for this system: 100.0 MiB to copy, 37.0 MiB to keep free" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("source", "options", "flags"),
    [
        (None, {"check_signatures": False, "substitute": False}, ["--no-check-sigs"]),
        (None, {"check_signatures": True, "substitute": False}, []),
        (
            "ssh-ng://b",
            {"check_signatures": False, "substitute": True},
            ["--from", "ssh-ng://b", "--no-check-sigs", "--substitute-on-destination"],
        ),
    ],
)
def test_nix_copy(source: str | None, options: dict[str, bool], flags: list[str]) -> None:
    argv = nix.copy_argv(TOP, "ssh-ng://w", source, **options)
    assert argv[argv.index("copy") :] == ["copy", "--log-format", "internal-json", "--to", "ssh-ng://w", *flags, TOP]


def test_signing_names_the_key_when_it_fails() -> None:
    builder = Scripted()
    closure.sign(builder, "web1", TOP, "/k")
    argv = builder.calls[0][0]
    assert argv[argv.index("store") :] == ["store", "sign", "--recursive", "--key-file", "/k", TOP]
    with pytest.raises(CommandFailed, match=r"^web1: signing with /k on build1 failed: no such file\. Make one with"):
        closure.sign(Scripted(stderr="error: no such file", status=1, name="build1"), "web1", TOP, "/k")


# -- watching ---------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watched() -> tuple[closure.Meter, Clock, list[str]]:
    clock, said = Clock(), []
    return closure.Meter("web1", 4 << 20, 60, said.append, clock), clock, said


def event(**fields: Any) -> str:
    return f"@nix {json.dumps(fields)}"


def start(activity: int, kind: int = 100) -> str:
    return event(
        action="start", id=activity, type=kind, level=3, parent=0, text="copying path", fields=[LIB, "local", "ssh-ng://"]
    )


def progress(activity: int, done: int) -> str:
    return event(action="result", id=activity, type=105, fields=[done, 4 << 20, 0, 0])


def test_bytes_of_all_paths_are_counted_and_counts_of_paths_are_not(watched: tuple[closure.Meter, Clock, list[str]]) -> None:
    meter, _clock, _said = watched
    for line in (
        start(1, 103),
        progress(1, 7),
        start(2),
        progress(2, 100),
        start(3),
        progress(3, 50),
        progress(2, 300),
        "@nix {",
    ):
        meter.line(line)
    assert meter.sent == 350


def test_it_says_how_far_it_is_every_ten_seconds(watched: tuple[closure.Meter, Clock, list[str]]) -> None:
    meter, clock, said = watched
    meter.line(start(2))
    for second in range(25):
        clock.now = 100.0 + second
        meter.line(progress(2, (second + 1) << 17))
        meter.tick()
    assert said == ["web1: copied 1.4 MiB of 4.0 MiB (140.8 KiB/s)", "web1: copied 2.6 MiB of 4.0 MiB (134.4 KiB/s)"]


def test_it_is_stuck_when_no_byte_came_for_too_long(watched: tuple[closure.Meter, Clock, list[str]]) -> None:
    meter, clock, _said = watched
    meter.line(start(2))
    clock.now = 150.0
    meter.line(progress(2, 2048))
    clock.now = 209.0
    meter.tick()
    clock.now = 211.0
    with pytest.raises(closure.Stalled, match=r"^web1: the copy did not get on for 60 s, after 2\.0 KiB\.$"):
        meter.tick()


def test_a_controller_without_nix_is_told_so(watched: tuple[closure.Meter, Clock, list[str]]) -> None:
    with pytest.raises(NixTooOld, match=r"^localhost: there is no nix on its PATH, .* or set flotilla_copy_via to builder\.$"):
        closure.copy(Scripted(status=127, name="localhost"), ["nix", "copy"], {}, watched[0], 60)


def test_a_copy_keeps_nixs_messages_without_colours_and_noise(watched: tuple[closure.Meter, Clock, list[str]]) -> None:
    lines = [
        "ssh: connect to host x: refused",
        event(action="msg", level=0, msg="\x1b[31;1merror:\x1b[0m no room"),
        event(action="msg", level=0, msg="error (ignored): broken pipe"),
    ]
    controller = Scripted(status=1, lines=lines)
    result = closure.copy(controller, ["nix", "copy"], {"NIX_SSHOPTS": "-4"}, watched[0], 60)
    assert (result.status, result.stderr) == (1, "ssh: connect to host x: refused\nerror: no room")
    assert controller.calls == [(["nix", "copy"], None, {"NIX_SSHOPTS": "-4"})]


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (f"error: cannot add path '{TOP}' because it lacks a signature by a trusted key", "it takes only paths that are signed"),
        ("error: writing to file: No space left on device", "its disk became full"),
        ("bash: line 1: nix-daemon: command not found\nerror: unexpected end-of-file", "the nix-daemon is not on the PATH"),
        ("waiting for lock on '/nix/store/x'...", "another process there holds the lock"),
        ("error: opening lock file '/nix/var/nix/db/big-lock': Permission denied", "nix refused it there"),
        ("error:\n       … while copying\n       error: what is this", "what is this"),
    ],
)
def test_failures_are_told_apart(stderr: str, message: str) -> None:
    error = closure.explained(RunResult(("nix",), 1, "", stderr, 1.0), "web1")
    assert str(error).startswith(f"web1: copying to it failed: {message}")
    assert error.hint


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 42, "12.0 TiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert closure.human(size) == text


def test_the_script_is_posix_sh_with_values_as_arguments() -> None:
    script = Path(__file__).parents[2] / "plugins/plugin_utils/target/closure.sh"
    from ansible_collections.flotilla.nixos.plugins.plugin_utils.runners import LocalRunner

    assert LocalRunner().run(["sh", "-n", str(script)]).status == 0
    assert LocalRunner().run(["sh", "-c", script.read_text(), "closure.sh", "nonsense"]).status == 64
