# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of the activation protocol, against a target that answers from a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.activation import (
    Goal,
    Outcome,
    Request,
    activate,
    confirm,
    judge,
    plan,
    take_back,
)
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import ConnectionLost
from ansible_collections.flotilla.nixos.plugins.module_utils.reboot import RebootRequest, reboot
from ansible_collections.flotilla.nixos.plugins.module_utils.target_state import Facts, Refused, refusal

OLD = "/nix/store/aaa-nixos-system-pi-25.05"
NEW = "/nix/store/bbb-nixos-system-pi-25.11"
LOST = ConnectionLost("pi", "the connection failed: gone")


def facts(**values: str | list[str]) -> Facts:
    return Facts({key: tuple([value] if isinstance(value, str) else value) for key, value in values.items()})


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class FakeTarget:
    """Gives the answers that it was told, in their order; an exception is raised. The last one for a verb repeats."""

    answers: dict[str, list[Facts | Exception]]
    probes: list[str | None] = field(default_factory=lambda: [None])
    clock: FakeClock = field(default_factory=FakeClock)
    name: str = "pi"
    calls: list[tuple[str, ...]] = field(default_factory=list)
    resets: int = 0

    def verb(self, verb: str, *arguments: str, timeout: float = 20.0) -> Facts:
        assert timeout > 0
        self.calls.append((verb, *arguments))
        self.clock.sleep(0.1)
        answers = self.answers[verb]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def reset(self) -> None:
        self.resets += 1

    def probe(self, system: str | None, timeout: float) -> str | None:
        assert system == NEW
        assert timeout > 0
        self.clock.sleep(1)
        return self.probes.pop(0) if len(self.probes) > 1 else self.probes[0]

    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls]


def ready(status: str = "0", **more: str | list[str]) -> Facts:
    return facts(**{"busy": "no", "phase": "tested", "status": status, "previous": OLD, "old": OLD, "ends_in": "300", **more})


def ended(phase: str, **more: str | list[str]) -> Facts:
    return facts(**{"busy": "no", "phase": phase, "old": OLD, "new": NEW, "running": OLD, "previous": OLD, **more})


BUSY = facts(busy="yes", phase="testing", previous=OLD)
REQUEST = Request(NEW, Goal.SWITCH, owner="anna@desk", activation_timeout=600, confirm_timeout=300)


# ---- judging


@pytest.mark.parametrize(
    ("status", "more", "ignored", "problem"),
    [
        ("0", {}, (), ""),
        ("1", {}, (), "a check before the switch failed, or switch-to-configuration itself did (exit code 1)"),
        ("2", {}, (), "the activation script failed (exit code 2)"),
        ("11", {}, (), "another switch held NixOS's lock (exit code 11)"),
        ("100", {}, (), "the new system's init interface differs, so it can only be booted (exit code 100)"),
        ("137", {}, (), "exit code 137"),
        ("", {}, (), "switch-to-configuration left no exit code"),
        ("4", {}, (), "units failed to start (exit code 4), and are not named"),
        ("4", {"failed_at_switch": "a.service"}, (), "units that did not fail before fail now: a.service"),
        ("4", {"failed_at_switch": "a.service"}, ("a.service",), ""),
        ("4", {"failed_at_switch": "a.service", "baseline": "a.service"}, (), ""),
        (
            "4",
            {"log": "warning: the following units failed: b.service"},
            (),
            "units that did not fail before fail now: b.service",
        ),
        (
            "4",
            {"log": ["Failed to run activate script", "warning: the following units failed: b.service"]},
            ("b.service",),
            "the activation script failed (exit code 2)",
        ),
        # A crash loop: switch-to-configuration was content.
        ("0", {"failed_unit": "c.service"}, (), "units that did not fail before fail now: c.service"),
        ("0", {"failed_unit": "c.service", "baseline": "c.service"}, (), ""),
    ],
)
def test_exit_codes_and_failed_units(
    status: str, more: dict[str, str | list[str]], ignored: tuple[str, ...], problem: str
) -> None:
    assert judge(facts(status=status, **more), ignored).problem == problem


# ---- activating


def run(target: FakeTarget, request: Request = REQUEST) -> dict[str, object]:
    return activate(target, request, target.clock).result()


def test_the_main_way_is_one_verb_and_one_probe() -> None:
    target = FakeTarget({"activate": [ready(pending_wanted=["kernel"])]})
    result = run(target)
    assert (result["outcome"], result["changed"], result["failed"], result["previous"]) == ("activated", True, False, OLD)
    assert (result["exit_code"], result["confirm_within"], result["reboot_reasons"]) == (0, 300, ["kernel"])
    ((verb, guard, *words),) = target.calls
    assert (verb, words) == ("activate", ["anna@desk", NEW, "switch", "600", "300", "no", "reboot", "8", "-", "-"])
    assert result["guard"] == guard


def test_nothing_to_do_is_one_verb() -> None:
    target = FakeTarget({"activate": [facts(outcome="unchanged", previous=NEW)]})
    result = run(target)
    assert (result["outcome"], result["changed"]) == ("unchanged", False)
    assert target.verbs() == ["activate"]


def test_a_slow_activation_is_polled() -> None:
    target = FakeTarget({"activate": [BUSY], "poll": [BUSY, BUSY, ready()]})
    assert run(target)["outcome"] == "activated"
    assert target.verbs() == ["activate", "poll", "poll", "poll"]


def test_a_connection_lost_while_polling_is_no_failure() -> None:
    target = FakeTarget({"activate": [BUSY], "poll": [LOST, LOST, BUSY, LOST, ready()]})
    assert run(target)["outcome"] == "activated"
    assert target.resets == 3


def test_an_answer_lost_at_the_start_is_asked_for_again() -> None:
    target = FakeTarget({"activate": [LOST], "poll": [LOST, ready()]})
    assert run(target)["outcome"] == "activated"
    assert target.calls[0][1] == target.calls[1][1]


def test_a_request_that_never_arrived_is_a_lost_connection() -> None:
    target = FakeTarget({"activate": [LOST], "poll": [facts(phase="gone", busy="", running=OLD)]})
    with pytest.raises(ConnectionLost):
        run(target)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ready("4", failed_at_switch="a.service"), "units that did not fail before fail now: a.service"),
        (ready("2"), "the activation script failed (exit code 2)"),
        (ready("1"), "a check before the switch failed"),
    ],
)
def test_a_bad_activation_goes_back_at_once(answer: Facts, said: str) -> None:
    target = FakeTarget({"activate": [answer], "back": [ended("rolled_back")]})
    result = run(target)
    assert (result["outcome"], result["failed"], result["changed"]) == ("rolled_back", True, True)
    assert str(result["msg"]).startswith(f"pi: {said}")
    assert str(result["msg"]).endswith(f"; it runs {OLD} again.")
    assert target.calls[-1][0] == "back"


def test_a_probe_is_patient_with_an_sshd_that_restarts() -> None:
    target = FakeTarget({"activate": [ready()]}, probes=["pi: nothing listens.", "pi: nothing listens.", None])
    assert run(target)["outcome"] == "activated"


def test_a_probe_that_fails_takes_the_host_back() -> None:
    target = FakeTarget({"activate": [ready()], "back": [BUSY], "poll": [ended("rolled_back")]}, probes=["pi: denied."])
    result = run(target)
    assert result["outcome"] == "rolled_back"
    assert "cannot be reached over a fresh connection: pi: denied" in str(result["msg"])


def test_a_host_out_of_reach_is_waited_for_until_its_guard_has_acted() -> None:
    target = FakeTarget(
        {
            "activate": [ready()],
            "back": [LOST] * 40 + [ended("rolled_back", reason="the deadline passed without a confirmation")],
        },
        probes=["pi: gone."],
    )
    result = run(target)
    assert result["outcome"] == "rolled_back"
    assert "(the deadline passed without a confirmation)" in str(result["msg"])


def test_a_host_that_never_answers_again_is_lost_and_unreachable() -> None:
    target = FakeTarget({"activate": [ready()], "back": [LOST]}, probes=["pi: gone."])
    result = run(target)
    assert (result["outcome"], result["unreachable"], result["failed"]) == ("lost", True, True)
    assert f"Its guard takes it back to {OLD} by itself" in str(result["msg"])


def test_a_host_that_restarted_into_its_old_system_went_back() -> None:
    gone = facts(phase="gone", running=OLD)
    target = FakeTarget({"activate": [ready()], "back": [LOST, gone]}, probes=["pi: gone."])
    result = run(target)
    assert (result["outcome"], result["restarted"], result["failed"]) == ("rolled_back", True, True)


def test_a_hung_activation_is_ended_at_its_time() -> None:
    target = FakeTarget({"activate": [BUSY], "poll": [BUSY], "back": [ended("rolled_back")]})
    result = run(target)
    assert result["outcome"] == "rolled_back"
    assert "the activation was still running after 600 s" in str(result["msg"])


def test_an_inhibitor_is_an_outcome_and_not_a_failure() -> None:
    answer = facts(error="inhibited", inhibitor="dbus-implementation : dbus -> broker", previous=OLD)
    result = run(FakeTarget({"activate": [refusal("pi", answer)]}))
    assert (result["outcome"], result["failed"], result["changed"], result["reboot_needed"]) == ("inhibited", False, False, True)


def test_exit_code_100_is_an_inhibitor_too() -> None:
    result = run(FakeTarget({"activate": [ended("refused", status="100")]}))
    assert (result["outcome"], result["failed"], result["changed"]) == ("inhibited", False, False)


def test_other_refusals_are_errors() -> None:
    with pytest.raises(Refused, match="anna"):
        run(FakeTarget({"activate": [refusal("pi", facts(error="held", guard_owner="anna"))]}))


def test_what_a_run_that_is_over_left_is_taken_up() -> None:
    held = refusal("pi", facts(error="held", guard_owner="anna@desk (run 1)"))
    target = FakeTarget({"activate": [held, ready(id="g0")]})
    result = run(target, Request(NEW, Goal.SWITCH, owner="anna@desk (run 2)", inherits=lambda former: former.endswith("(run 1)")))
    assert (result["outcome"], result["guard"]) == ("activated", "g0")
    assert [call[-1] for call in target.calls] == ["-", "anna@desk (run 1)"]


def test_staging() -> None:
    target = FakeTarget({"activate": [ended("staged", pending_wanted=["kernel"])]})
    result = run(target, Request(NEW, Goal.BOOT, owner="anna"))
    assert (result["outcome"], result["changed"], result["reboot_needed"]) == ("staged_for_boot", True, True)


def test_a_dry_run_of_a_system_that_is_not_there_knows_no_units() -> None:
    target = FakeTarget({"dry": [facts(outcome="not_there", previous=OLD)]})
    result = plan(target, REQUEST).result()
    assert (result["outcome"], result["changed"], result["units"]) == ("would_activate", True, None)


@pytest.mark.parametrize(
    ("goal", "end", "outcome", "failed", "said"),
    [
        (Goal.BOOT, ended("staged", kind="stage"), "staged_for_boot", False, ""),
        (Goal.BOOT, ended("failed", kind="stage", reason="no room"), "failed", True, "pi: no room. Look at its console"),
        (Goal.SWITCH, ended("refused", status="11"), "refused", True, "pi: nothing was activated: another switch held"),
        (Goal.SWITCH, ended("refused", status="100"), "inhibited", False, ""),
        (
            Goal.SWITCH,
            ended("failed", kind="activate", reason="it is broken"),
            "failed",
            True,
            "could not go back: it is broken. Look",
        ),
    ],
)
def test_an_end_that_is_seen_late_is_what_it_was(goal: Goal, end: Facts, outcome: str, failed: bool, said: str) -> None:
    # Cut for all of the time that the activation was given, and mended.
    target = FakeTarget({"activate": [BUSY], "poll": [LOST], "back": [LOST, end]})
    result = run(target, Request(NEW, goal, owner="anna@desk"))
    assert (result["outcome"], result["failed"]) == (outcome, failed)
    assert said in str(result.get("msg", ""))
    assert "could not go back: staged" not in str(result.get("msg", ""))


# ---- confirming


def confirmed(target: FakeTarget, health: Callable[[float], str | None] | None = None) -> dict[str, object]:
    return confirm(target, NEW, target.clock, guard="g1", health=health).result()


def test_a_confirmation_is_one_verb() -> None:
    target = FakeTarget({"confirm": [ended("confirmed", goal="switch", id="g1")]})
    result = confirmed(target)
    assert (result["outcome"], result["changed"]) == ("confirmed", True)
    assert target.calls == [("confirm", "g1", NEW, "8", "0")]


def test_a_confirmation_whose_answer_is_lost_is_asked_for_again() -> None:
    target = FakeTarget({"confirm": [LOST, LOST, ended("confirmed", goal="switch", id="g1")]})
    assert confirmed(target)["outcome"] == "confirmed"


def test_a_boot_loader_that_cannot_be_set_is_told() -> None:
    reason = "the boot loader could not be set (exit status 1): No space left on device"
    result = confirmed(FakeTarget({"confirm": [ended("rolled_back", id="g1", reason=reason)]}))
    assert (result["outcome"], result["failed"]) == ("rolled_back", True)
    assert "No space left on device" in str(result["msg"])


def test_health_has_the_time_that_is_left_and_its_failure_goes_back() -> None:
    given: list[float] = []

    def health(seconds: float) -> str | None:
        given.append(seconds)
        return "url http://pi: it answered 500"

    target = FakeTarget({"poll": [ready(id="g1", ends_in="100")], "back": [ended("rolled_back")]})
    result = confirmed(target, health)
    assert given == [90.0]
    assert result["outcome"] == "rolled_back"
    assert "a health check failed: url http://pi: it answered 500" in str(result["msg"])
    assert "confirm" not in target.verbs()


def test_a_unit_that_failed_meanwhile_goes_back() -> None:
    answer = ready(id="g1", outcome="unhealthy", failed_unit="late.service")
    result = confirmed(FakeTarget({"confirm": [answer], "back": [ended("rolled_back")]}))
    assert (result["outcome"], result["failed_units"]) == ("rolled_back", ["late.service"])


def test_a_confirmation_that_lost_against_the_deadline_says_so() -> None:
    answer = ended("rolled_back", id="g1", reason="the deadline passed without a confirmation")
    result = confirmed(FakeTarget({"confirm": [answer]}))
    assert result["failed"]
    assert "the deadline passed without a confirmation" in str(result["msg"])


# ---- going back, restarting


def test_taking_back_without_anything_that_waits() -> None:
    assert take_back(FakeTarget({"back": [facts(phase="gone")]}), "why", FakeClock()) is None


def test_taking_back() -> None:
    target = FakeTarget({"back": [BUSY], "poll": [ended("rolled_back")]})
    target.answers["back"] = [facts(busy="yes", phase="rolling_back", id="g1", old=OLD, new=NEW)]
    report = take_back(target, "why", target.clock)
    assert report is not None
    assert (report.outcome, report.system, report.previous) == (Outcome.ROLLED_BACK, OLD, NEW)


def test_a_host_that_cannot_be_taken_back_is_told_with_a_way_out() -> None:
    target = FakeTarget({"back": [ended("failed", id="g1", reason="it is broken")]})
    report = take_back(target, "why", target.clock)
    assert report is not None
    assert report.msg == (
        f"pi: it could not be taken back to {OLD}: it is broken. Look at its console, and at "
        f"`journalctl -b -u 'flotilla-*'` there. `{OLD}/bin/switch-to-configuration test` as root brings the old system back."
    )


def state(**more: str | list[str]) -> Facts:
    return facts(**{"boot_id": "one", "running": OLD, "booted": OLD, "profile": NEW, "state": "running", **more})


@pytest.mark.parametrize(
    ("after", "outcome", "failed", "said"),
    [
        ([state(boot_id="two", booted=NEW, failed_unit="a.service")], "rebooted", True, "See `journalctl -b -u a.service` there"),
        ([LOST, LOST, state(boot_id="two", booted=NEW, running=NEW)], "rebooted", False, ""),
        ([state(), LOST, state(boot_id="two", booted=NEW, running=NEW, state="starting")], "rebooted", False, ""),
        ([state(boot_id="two")], "failed", True, f"it came back with {OLD}, not {NEW}"),
        ([state(boot_id="two", booted=NEW, failed_unit="a.service")], "rebooted", True, "fail now: a.service"),
        ([LOST], "lost", True, "it did not come back within 90 s"),
        ([state(), LOST], "lost", True, "it did not come back within 90 s"),
        ([LOST, state()], "failed", True, "pi: it did not restart: 90 s after it was told to, it still runs as before. See `"),
        ([state()], "failed", True, "it did not restart"),
        ([state(boot_id="two", booted=NEW, state="starting"), LOST], "rebooted", False, ""),
    ],
)
def test_a_restart_is_proven(after: list[Facts | Exception], outcome: str, failed: bool, said: str) -> None:
    before = state(pending_wanted="kernel", interface_wanted="")
    target = FakeTarget({"info": [before, *after], "reboot": [LOST]})
    result = reboot(target, RebootRequest(NEW, "anna", timeout=90), target.clock).result()
    assert (result["outcome"], result["failed"]) == (outcome, failed)
    assert said in str(result.get("msg", ""))


@pytest.mark.parametrize(
    ("policy", "running", "pending", "restarts"),
    [
        ("if_needed", NEW, "", False),
        ("if_needed", NEW, "kernel", True),
        ("if_needed", OLD, "", True),
        ("never", OLD, "kernel", False),
        ("always", NEW, "", True),
    ],
)
def test_a_restart_follows_the_policy(policy: str, running: str, pending: str, restarts: bool) -> None:
    target = FakeTarget({"info": [state(running=running, pending_wanted=pending)]})
    request = RebootRequest(NEW, "anna", policy=policy, dry=True)  # type: ignore[arg-type]  # a table of strings
    assert reboot(target, request, target.clock).changed is restarts
    assert target.verbs() == ["info"]
