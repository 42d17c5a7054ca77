# SPDX-License-Identifier: GPL-3.0-or-later
"""nix's internal-json log, from recordings of real builds (nix 2.26.3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.build_events import (
    BuildLog,
    BuildStarted,
    CountOpened,
    ErrorMessage,
    Event,
    LogLine,
    PathCopied,
    Progress,
    Stopped,
    name_of,
    parse_line,
)

DATA = Path(__file__).parent / "data/nix"
BROKEN = "/nix/store/ip8c8qisllyak2qp0q7r10f3ik2cihvx-broken-1.drv"
SLOW = "/nix/store/p4zr2d141h4k4j9qa73154fpyv4fz60w-slow-1.drv"
PI_1 = "/nix/store/y89sss2r2ys2vxjmb9998cjh5ck4762m-nixos-system-pi-1.drv"
PI_2 = "/nix/store/qgdba2zsr9kmq956lyfh6lvnkxyh39yr-nixos-system-pi2.drv"
PI_3 = "/nix/store/gv9727j7ahlc1jzzvs1vqg9l4pl0gxg2-nixos-system-pi-3.drv"
PI_6 = "/nix/store/vncbya5lzns2zs8i1lsximd3zzq68516-nixos-system-pi-6.drv"


def read(name: str) -> BuildLog:
    log = BuildLog()
    for line in (DATA / name).read_text().splitlines():
        log.feed(line)
    return log


def test_recording_of_a_build_in_which_one_fails() -> None:
    log = read("build-one-fails.log")
    assert list(log.started) == [BROKEN, SLOW, PI_1, PI_2]
    assert list(log.started[BROKEN]) == ["compiling", "foo.c:1: error: no"]
    assert list(log.started[SLOW]) == ["start slow", "half"]
    assert log.count("builds") == (3, 3)
    assert log.running == ()
    assert log.blamed() == {BROKEN, PI_3}
    assert log.error_about(BROKEN) == f"builder for '{BROKEN}' failed with exit code 3"
    assert log.error_about(SLOW) == ""


def test_recording_of_a_build_for_a_platform_that_the_builder_is_not() -> None:
    log = read("build-other-platform.log")
    assert log.started == {}
    assert log.blamed() == {PI_6}
    assert log.error_about(PI_6).startswith("a 'aarch64-linux' with features {} is required to build")


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            '@nix {"action":"start","id":7,"level":3,"fields":["/nix/store/x.drv","",1,1],"type":105}',
            BuildStarted(7, "/nix/store/x.drv"),
        ),
        ('@nix {"action":"start","id":8,"level":0,"parent":0,"text":"","type":104}', CountOpened(8, "builds")),
        (
            '@nix {"action":"start","id":9,"fields":["/nix/store/p","https://c","local"],"type":100}',
            PathCopied(9, "/nix/store/p"),
        ),
        ('@nix {"action":"result","fields":["\\u001b[1mhi\\u001b[0m"],"id":7,"type":101}', LogLine(7, "hi")),
        ('@nix {"action":"result","fields":[1,4,2,0],"id":8,"type":105}', Progress(8, 1, 4, 2, 0)),
        ('@nix {"action":"stop","id":7}', Stopped(7)),
        ('@nix {"action":"msg","level":0,"msg":"\\u001b[31;1merror:\\u001b[0m no"}', ErrorMessage("no")),
        ('@nix {"action":"msg","level":3,"msg":"these 2 derivations will be built:"}', None),
        ('@nix {"action":"result","fields":[101,0],"id":1,"type":106}', None),
        ('@nix {"action":"start","id":7}', None),
        ('@nix {"action":"unheard of","id":7}', None),
        ("@nix {broken", None),
        ("@nix []", None),
        ("warning: something", None),
        ("", None),
    ],
)
def test_lines(line: str, event: Event | None) -> None:
    assert parse_line(line) == event


def test_recording_of_a_build_in_which_all_is_fetched() -> None:
    log = read("build-fetched.log")
    assert log.started == {}
    assert log.fetching == ()
    assert log.count("fetches") == (2, 2)


def test_a_log_line_of_an_unknown_build_is_left_out() -> None:
    log = BuildLog()
    log.feed('@nix {"action":"result","fields":["lost"],"id":7,"type":101}')
    assert log.started == {}


def test_only_the_end_of_a_long_log_is_kept() -> None:
    log = BuildLog()
    log.feed('@nix {"action":"start","id":7,"fields":["/nix/store/x.drv","",1,1],"type":105}')
    for number in range(1000):
        log.feed(f'@nix {{"action":"result","fields":["line {number}"],"id":7,"type":101}}')
    assert list(log.started["/nix/store/x.drv"])[-1] == "line 999"
    assert len(log.started["/nix/store/x.drv"]) == 25


@pytest.mark.parametrize(
    ("path", "name"), [(PI_1, "nixos-system-pi-1"), ("/nix/store/abc-linux-6.12", "linux-6.12"), ("plain", "plain")]
)
def test_names(path: str, name: str) -> None:
    assert name_of(path) == name
