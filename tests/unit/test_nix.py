# SPDX-License-Identifier: GPL-3.0-or-later
"""nix's command lines, and what evaluation and building make of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils import building, evaluation, nix
from ansible_collections.flotilla.nixos.plugins.module_utils.build_events import BuildLog
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput, CommandFailed, CommandTimeout, NixTooOld
from ansible_collections.flotilla.nixos.plugins.module_utils.evaluation import FlakeSource
from ansible_collections.flotilla.nixos.plugins.module_utils.nix_messages import LockIncomplete
from fakes import FakeRunner, Step

DATA = Path(__file__).parent / "data/nix"
NIX = ["nix", "--extra-experimental-features", "nix-command flakes", "--option", "warn-dirty", "false"]
SOURCE_OF = ("flake", "prefetch", "--json", "--option", "flake-registry", "")
REF = "git+file:///srv/fleet?dir=hosts/sbcs&rev=abc"
SOURCE = FlakeSource("sbcs", "hosts/sbcs", REF, "abc")
BUILD = [*NIX, "build", "--no-link", "--keep-going", "--log-format", "internal-json", "--stdin"]
NAMES = [*NIX, "eval", "--json", "--no-update-lock-file", f"{REF}#nixosConfigurations", "--apply", "builtins.attrNames"]

#: Status, stdout and stderr, or what is raised.
Answer = tuple[int, str, str] | Exception


def script(*steps: tuple[Sequence[object], Answer] | Step) -> FakeRunner:
    """A runner for these commands and answers. ANY in a command stands for any word."""
    made = []
    for step in steps:
        if isinstance(step, Step):
            made.append(step)
            continue
        argv, answer = step
        words: list[Any] = list(argv)
        if isinstance(answer, Exception):
            made.append(Step(words, raises=answer))
        else:
            made.append(Step(words, answer[1], answer[2], answer[0]))
    return FakeRunner(*made, name="localhost")


@pytest.mark.parametrize(
    ("repo", "flake", "rev", "shallow", "ref"),
    [
        ("/srv/fleet", "hosts/sbcs", "abc", False, "git+file:///srv/fleet?dir=hosts/sbcs&rev=abc"),
        ("/srv/fleet", ".", "abc", False, "git+file:///srv/fleet?rev=abc"),
        ("/srv/fleet", "hosts/sbcs", "abc", True, "git+file:///srv/fleet?dir=hosts/sbcs&rev=abc&shallow=1"),
        ("/srv/fleet", ".", None, False, "git+file:///srv/fleet"),
        ("/srv/fleet.git", ".", None, True, "git+file:///srv/fleet.git?shallow=1"),
        ("/a b/100%/x#1?&=", "c+d@e", "abc", False, "git+file:///a%20b/100%25/x%231%3F%26%3D?dir=c%2Bd%40e&rev=abc"),
    ],
)
def test_flake_refs(repo: str, flake: str, rev: str | None, shallow: bool, ref: str) -> None:
    assert nix.flake_ref(repo, flake, rev, shallow=shallow) == ref


@pytest.mark.parametrize(
    ("text", "literal"), [("a", '"a"'), ('a"b', '"a\\"b"'), ("${x}", '"\\${x}"'), ("a\\", '"a\\\\"'), ("$x {y}", '"$x {y}"')]
)
def test_strings_of_the_nix_language(text: str, literal: str) -> None:
    assert nix.nix_string(text) == literal


def test_lock_flags_are_never_a_relock_in_memory() -> None:
    assert nix.lock_flags() == ["--no-update-lock-file"]
    assert nix.lock_flags("/tmp/l") == [
        "--no-update-lock-file",
        "--reference-lock-file",
        "/tmp/l",
        "--option",
        "allow-dirty",
        "true",
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("nix (Nix) 2.26.3", (2, 26)),
        ("nix (Nix) 2.34.8", (2, 34)),
        ("nix (Nix) 2.31.0pre20250101_abc", (2, 31)),
        ("nix (Determinate Nix 3.8.5) 2.30.2", (2, 30)),
        ("nix (Lix, like Nix) 2.93.0", (2, 93)),
    ],
)
def test_versions(text: str, number: tuple[int, int]) -> None:
    assert nix.require_nix(script((["nix", "--version"], (0, f"{text}\n", "")))).number == number


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            (127, "", "nix: not found"),
            "localhost: there is no nix on the PATH that commands get there. Install nix 2.26 or newer",
        ),
        (
            (0, "nix (Nix) 2.8.0\n", ""),
            "localhost: its nix is too old: it says 'nix (Nix) 2.8.0', and 2.26 is the oldest that works.",
        ),
        ((0, "nix (Nix) 2.25.9\n", ""), "its nix is too old"),
        ((0, "what?\n", ""), "names no version"),
    ],
)
def test_a_nix_that_will_not_do(answer: Answer, said: str) -> None:
    with pytest.raises(NixTooOld) as caught:
        nix.require_nix(script((["nix", "--version"], answer)))
    assert said in str(caught.value)


def test_command_lines() -> None:
    paths = [f"/nix/store/{number}" for number in range(501)]
    runner = script(
        (["nix-store", "--check-validity", "--print-invalid", *paths[:500]], (0, "/nix/store/7\n", "")),
        (["nix-store", "--check-validity", "--print-invalid", *paths[500:]], (0, "", "")),
        ([*NIX, "path-info", "--closure-size", "--stdin"], (0, "/nix/store/1\t  296\n/nix/store/2\t 7\n", "")),
        (["nix-store", "--query", "--requisites", "/d.drv"], (0, "/a\n/d.drv\n", "")),
        (["nix-store", "--query", "--outputs", "/d.drv"], (0, "/o\n", "")),
        ([*NIX, "log", "/d.drv"], (0, "1\n2\n3\n", "")),
        ([*NIX, "log", "/d.drv"], (1, "", "no log")),
        Step(BUILD, stdin="/a.drv^out\n/b.drv^out\n"),
        ([*NIX, *SOURCE_OF, REF], (0, '{"storePath": "/nix/store/s"}', "")),
        ([*NIX, *SOURCE_OF, REF], (1, "", "error: no")),
        Step(["sh", "-euc", ANY], stdin="/nix/store/1 /roots/a b\n"),
    )
    assert nix.invalid_paths(runner, "sbcs", [*paths, paths[0]]) == {"/nix/store/7"}
    assert nix.closure_sizes(runner, "sbcs", ["/nix/store/1", "/nix/store/2"]) == {"/nix/store/1": 296, "/nix/store/2": 7}
    assert nix.requisites(runner, "sbcs", "/d.drv") == ("/a", "/d.drv")
    assert nix.outputs(runner, "/d.drv") == ("/o",)
    assert nix.build_log(runner, "/d.drv", 2) == ("2", "3")
    assert nix.build_log(runner, "/d.drv") == ()
    nix.build(runner, ["/a.drv", "/b.drv"])
    assert nix.source_path(runner, REF) == "/nix/store/s"
    assert nix.source_path(runner, REF) is None
    nix.add_roots(runner, {"/roots/a b": "/nix/store/1"})
    runner.done()
    assert nix.closure_sizes(runner, "sbcs", []) == {}
    assert nix.invalid_paths(runner, "sbcs", []) == frozenset()


#: The evaluator for a chunk, with any expression.
MANY: list[object] = [*NIX, "eval", "--json", "--no-update-lock-file", f"{REF}#nixosConfigurations", "--apply", ANY]


def one(name: str) -> list[object]:
    return [*NIX, "eval", "--json", "--no-update-lock-file", f'{REF}#nixosConfigurations."{name}"', "--apply", ANY]


def value(name: str) -> dict[str, str]:
    return {"drv": f"/{name}.drv", "out": f"/{name}", "platform": "x86_64-linux", "version": "25.05"}


def tried(**answers: bool) -> Answer:
    found = {name: {"success": good, "value": value(name) if good else False} for name, good in answers.items()}
    return 0, json.dumps(found), ""


def test_hosts_are_evaluated_in_chunks_and_those_that_throw_alone() -> None:
    said: list[str] = []
    runner = script(
        (MANY, tried(a=True, b=False)),
        (MANY, (1, "", "error: attribute missing\n")),
        (MANY, tried()),
        (NAMES, (0, '["c", "b", "a", "d"]', "")),
        (one("b"), (1, "", "error: it is broken\n")),
        (one("c"), (0, json.dumps(value("c")), "")),
        (one("d"), (1, "", (DATA / "eval-pi-5.log").read_text())),
        (
            [*NIX, *SOURCE_OF, REF],
            (0, '{"storePath": "/nix/store/fwr3qckhmslgd7qa6g6jycrgi0z6y8n3-source"}', ""),
        ),
    )
    found = evaluation.evaluate(runner, SOURCE, ["a", "b", "c", "d", "a", "bb"], chunk=2, progress=said.append)
    runner.done()
    assert {name: system.system for name, system in found.systems.items()} == {"a": "/a", "c": "/c"}
    assert str(found.errors["b"]).startswith("sbcs: evaluation of b failed: it is broken. Run: nix eval --raw --show-trace")
    assert "sbcs: evaluation of d failed: attribute 'nope' missing at hosts/sbcs/flake.nix:12. Run:" in str(found.errors["d"])
    assert str(found.errors["bb"]).startswith(
        "sbcs: there is no 'bb' in nixosConfigurations of hosts/sbcs at commit abc. Did you mean b?"
    )
    assert said == [f"sbcs: evaluating hosts {hosts} of 5" for hosts in ("1 to 2", "3 to 4", "5 to 5")]


def test_a_host_that_ends_the_evaluator_of_many_is_found_by_smaller_ones() -> None:
    names = [f"h{number}" for number in range(9)]
    ended: Answer = (1, "", "error: attribute missing")
    runner = script(
        (MANY, ended),
        (NAMES, (0, json.dumps(names), "")),
        (MANY, tried(h0=True, h1=True, h2=True)),
        (MANY, ended),
        (MANY, tried(h6=True, h7=True, h8=True)),
        (NAMES, (0, json.dumps(names), "")),
        (one("h3"), (0, json.dumps(value("h3")), "")),
        (one("h4"), ended),
        (one("h5"), (0, json.dumps(value("h5")), "")),
    )
    found = evaluation.evaluate(runner, SOURCE, names, chunk=50)
    runner.done()
    assert set(found.systems) == {*names} - {"h4"}
    assert list(found.errors) == ["h4"]


def test_a_group_that_is_well_needs_one_evaluator() -> None:
    runner = script((MANY, tried(a=True, b=True)))
    assert list(evaluation.evaluate(runner, SOURCE, ["a", "b"], chunk=8).systems) == ["a", "b"]
    runner.done()


def test_what_is_wrong_with_the_flake_is_raised() -> None:
    failed: Answer = (1, "", "error: whatever")
    with pytest.raises(LockIncomplete):
        evaluation.evaluate(
            script((MANY, failed), (NAMES, (1, "", (DATA / "eval-unlocked.log").read_text()))), SOURCE, ["a"], chunk=1
        )
    source = [*NIX, *SOURCE_OF, REF]
    runner = script((MANY, failed), (NAMES, (1, "", (DATA / "eval-syntax.log").read_text())), (source, (1, "", "")))
    with pytest.raises(CommandFailed, match=r"syntax error, .* at hosts/sbcs/flake\.nix:3\. Run: nix eval"):
        evaluation.evaluate(runner, SOURCE, ["a"], chunk=1)
    with pytest.raises(BadInput, match="is not an attribute set"):
        evaluation.attribute_names(script((NAMES, (0, "null", ""))), SOURCE)
    with pytest.raises(CommandFailed, match="nix gave no JSON"):
        evaluation.attribute_names(script((NAMES, (0, "?", ""))), SOURCE)


CHECK = ["nix-store", "--check-validity", "--print-invalid"]
NEEDS = ["nix-store", "--query", "--requisites"]
PI_3 = "/nix/store/gv9727j7ahlc1jzzvs1vqg9l4pl0gxg2-nixos-system-pi-3.drv"
PI_6 = "/nix/store/vncbya5lzns2zs8i1lsximd3zzq68516-nixos-system-pi-6.drv"
BROKEN = "/nix/store/ip8c8qisllyak2qp0q7r10f3ik2cihvx-broken-1.drv"


def test_nothing_to_build() -> None:
    runner = script(([*CHECK, "/1"], (0, "", "")))
    outcome = building.build_systems(runner, "sbcs", {"/1.drv": "/1"})
    assert (outcome.fresh, outcome.failures) == (frozenset(), {})
    runner.done()


def test_one_build_fails() -> None:
    runner = script(
        ([*CHECK, "/1", "/3", "/4"], (0, "/1\n/3\n", "")),
        (BUILD, (1, "", (DATA / "build-one-fails.log").read_text())),
        ([*CHECK, "/1", "/3"], (0, "/3\n", "")),
        ([*NEEDS, PI_3], (0, f"{BROKEN}\n{PI_3}\n", "")),
    )
    outcome = building.build_systems(runner, "sbcs", {"/1.drv": "/1", PI_3: "/3", "/4.drv": "/4"})
    runner.done()
    assert outcome.fresh == {"/1"}
    failure = outcome.failures[PI_3]
    assert failure.what == "builder for broken-1 failed with exit code 3; its last line: foo.c:1: error: no"
    assert failure.hint == f"Run: nix log {BROKEN}"
    assert (failure.culprit, failure.log) == (BROKEN, ("compiling", "foo.c:1: error: no"))


def test_what_stopped_nix_at_once_is_left_out_of_a_second_build() -> None:
    runner = script(
        ([*CHECK, "/1", "/6"], (0, "/1\n/6\n", "")),
        (BUILD, (1, "", (DATA / "build-other-platform.log").read_text())),
        ([*CHECK, "/1", "/6"], (0, "/1\n/6\n", "")),
        ([*NEEDS, "/1.drv"], (0, "/1.drv\n", "")),
        ([*NEEDS, PI_6], (0, f"{PI_6}\n", "")),
        Step(BUILD, stdin="/1.drv^out\n"),
        ([*CHECK, "/1"], (0, "", "")),
    )
    outcome = building.build_systems(runner, "sbcs", {"/1.drv": "/1", PI_6: "/6"})
    runner.done()
    assert outcome.fresh == {"/1"}
    assert list(outcome.failures) == [PI_6]
    assert outcome.failures[PI_6].what.startswith("a 'aarch64-linux' with features {} is required to build nixos-system-pi-6")


def test_a_failure_that_names_no_derivation_is_everyones() -> None:
    runner = script(
        ([*CHECK, "/1", "/2"], (0, "/1\n/2\n", "")),
        (BUILD, (1, "", "error: writing to file: No space left on device\n")),
        ([*CHECK, "/1", "/2"], (0, "/1\n/2\n", "")),
        ([*NEEDS, "/1.drv"], (0, "/1.drv\n", "")),
        ([*NEEDS, "/2.drv"], (0, "/2.drv\n", "")),
    )
    outcome = building.build_systems(runner, "sbcs", {"/1.drv": "/1", "/2.drv": "/2"})
    runner.done()
    assert [failure.what for failure in outcome.failures.values()] == ["the build failed: the disk of the builder is full"] * 2


def test_a_failed_build_that_nix_does_not_name_is_found_by_its_outputs() -> None:
    started = f'@nix {{"action":"start","id":1,"fields":["{BROKEN}","",1,1],"type":105}}\n'
    runner = script(
        ([*CHECK, "/3"], (0, "/3\n", "")),
        (BUILD, (1, "", started)),
        ([*CHECK, "/3"], (0, "/3\n", "")),
        ([*NEEDS, PI_3], (0, f"{BROKEN}\n{PI_3}\n", "")),
        (["nix-store", "--query", "--outputs", BROKEN], (0, "/broken\n", "")),
        ([*CHECK, "/broken"], (0, "/broken\n", "")),
        ([*NIX, "log", BROKEN], (0, "the last words\n", "")),
    )
    failure = building.build_systems(runner, "sbcs", {PI_3: "/3"}).failures[PI_3]
    runner.done()
    assert failure.what == "broken-1 was not built; its last line: the last words"


def test_what_was_built_before_the_time_limit_counts() -> None:
    runner = script(
        ([*CHECK, "/1", "/2"], (0, "/1\n/2\n", "")),
        (BUILD, CommandTimeout("localhost", "`nix build` was still running after 60 s and was ended")),
        ([*CHECK, "/1", "/2"], (0, "/2\n", "")),
    )
    outcome = building.build_systems(runner, "sbcs", {"/1.drv": "/1", "/2.drv": "/2"})
    runner.done()
    assert outcome.fresh == {"/1"}
    assert outcome.failures["/2.drv"].what == "`nix build` was still running after 60 s and was ended"


def start(number: int) -> str:
    drv = f"/nix/store/{'a' * 32}-part-{number}.drv"
    return f'@nix {{"action":"start","id":{number},"fields":["{drv}","",1,1],"type":105}}'


def test_progress_is_told_now_and_then() -> None:
    now, said = [0.0], list[str]()
    reporter = building.Reporter("sbcs", said.append, BuildLog(), lambda: now[0])
    tick = '@nix {"action":"result","fields":[3,9,1,0],"id":99,"type":105}'
    reporter.line('@nix {"action":"start","id":99,"type":104}')
    for seconds, line in [(0.0, start(1)), (1.0, start(2)), (2.5, tick), (30.0, tick), (63.0, tick)]:
        now[0] = seconds
        reporter.line(line)
    assert said == [
        "sbcs: building part-1",
        "sbcs: building part-1, part-2 (3 of 9 done)",
        "sbcs: building part-1, part-2 (3 of 9 done)",
    ]
    now[0] = 70.0
    for number in range(3, 6):
        reporter.line(start(number))
    now[0] = 80.0
    reporter.line(tick)
    assert said[-1] == "sbcs: building part-1, part-2, part-3 and 2 more (3 of 9 done)"


def test_fetching_is_told_too() -> None:
    now, said = [0.0], list[str]()
    reporter = building.Reporter("sbcs", said.append, BuildLog(), lambda: now[0])
    for line in (DATA / "build-fetched.log").read_text().splitlines():
        now[0] += 0.3
        reporter.line(line)
    assert said == ["sbcs: fetching dep-a (0 of 2 done)", "sbcs: fetching top-b (1 of 2 done)"]
