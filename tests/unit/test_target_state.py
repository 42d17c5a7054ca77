# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers of the target's script as values."""

from __future__ import annotations

import pytest
from ansible_collections.flotilla.nixos.plugins.module_utils.target_state import (
    Facts,
    parse_facts,
    refusal,
    system_info,
    unit_changes,
)

OLD = "/nix/store/aaa-nixos-system-pi-25.05"
NEW = "/nix/store/bbb-nixos-system-pi-25.11"


def facts(**values: str | list[str]) -> Facts:
    return Facts({key: tuple([value] if isinstance(value, str) else value) for key, value in values.items()})


def test_only_our_lines_are_facts_and_a_key_may_repeat() -> None:
    stdout = "Welcome to pi\nflotilla running /x\r\nflotilla log a  b\nflotilla log\nflotillas are ships\nflotilla log c\n"
    found = parse_facts(stdout)
    assert found.one("running") == "/x"
    assert found.all("log") == ("a  b", "c")
    assert found.lines("log") == ("a  b", "", "c")
    assert found.one("nothing") == ""


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("-3", -3), ("", None), ("1.5", None), ("x", None)])
def test_numbers(text: str, number: int | None) -> None:
    assert facts(n=text).number("n") == number


INFO = {
    "running": NEW,
    "booted": OLD,
    "profile": OLD,
    "boot_default": OLD,
    "loader": "systemd-boot",
    "generation": "7",
    "since": "1795416058",
    "uptime": "99",
    "free_nix": "1024",
    "free_boot": "",
    "failed_unit": ["a.service", "b.service"],
    "pending_running": ["kernel", "kernel-params"],
    "pending_profile": [],
}


def test_info_and_drift() -> None:
    info = system_info(facts(**INFO))
    assert (info.generation, info.since, info.free) == (7, 1795416058, {"nix": 1024, "boot": None})
    assert info.failed_units == ("a.service", "b.service")
    assert info.pending(None) == ("kernel", "kernel-params")
    assert info.drift(None) == ["the running system is not the profile's"]
    assert info.drift(OLD) == ["the running system is not the profile's", "the running system is not the wanted one"]
    assert (info.guard, info.last, info.wanted_present) == (None, None, None)


def test_a_boot_default_that_cannot_be_read_is_not_drift() -> None:
    info = system_info(facts(**{**INFO, "running": OLD, "boot_default": "unknown", "loader": "grub"}))
    assert info.boot_default is None
    assert info.drift(OLD) == []


@pytest.mark.parametrize(
    ("running", "wanted", "found"),
    [
        ('{"dbus-implementation":"dbus"}', '{"dbus-implementation":"broker"}', ("dbus-implementation : dbus -> broker",)),
        ('{"a":"1","b":"2"}', '{"a":"1","c":"3"}', ()),
        ("", '{"a":"1"}', ()),
        ("[]", "not json", ()),
    ],
)
def test_inhibitors_are_keys_that_both_have_with_other_values(running: str, wanted: str, found: tuple[str, ...]) -> None:
    assert system_info(facts(inhibitors_running=running, inhibitors_wanted=wanted)).inhibitors == found


def test_another_init_interface_inhibits() -> None:
    info = system_info(facts(interface_running="systemd 2", interface_wanted="systemd 3"))
    assert info.inhibitors == ("init-interface-version : systemd 2 -> systemd 3",)
    assert info.pending(NEW) == info.inhibitors


NG_LOG = [
    "stopping the following units: a.service, b.socket",
    "NOT restarting the following changed units: display-manager.service",
    "activating the configuration...",
    "reloading the following units: dbus.service",
    "restarting the following units: sshd.service",
    "starting the following units: a.service, b.socket",
    "the following new units were started: c.service",
    "warning: the following units failed: d.service, e.service",
]
DRY_LOG = [
    "would stop the following units: a.service",
    "would NOT stop the following changed units: x.mount",
    "would activate the configuration...",
    "would restart systemd",
    "would reload the following units: dbus.service",
    "would restart the following units: sshd.service",
    "would start the following units: a.service",
]


def test_units_of_a_switch() -> None:
    assert unit_changes(NG_LOG) == {
        "stopped": ["a.service", "b.socket"],
        "not_restarted": ["display-manager.service"],
        "reloaded": ["dbus.service"],
        "restarted": ["sshd.service"],
        "started": ["a.service", "b.socket"],
        "new": ["c.service"],
        "failed": ["d.service", "e.service"],
    }


def test_units_of_a_dry_run() -> None:
    assert unit_changes(DRY_LOG) == {
        "stopped": ["a.service"],
        "not_stopped": ["x.mount"],
        "reloaded": ["dbus.service"],
        "restarted": ["sshd.service"],
        "started": ["a.service"],
    }


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            {"error": "not_root", "error_detail": "deploy"},
            "pi: this needs root there and the connection's user is deploy. Set `become: true` for the task or host.",
        ),
        (
            {"error": "wrong_platform", "error_detail": "aarch64-linux x86_64"},
            "pi: the system is for aarch64-linux, and this machine is x86_64. "
            "Correct nixpkgs.hostPlatform of the host, or the host's flotilla_attribute.",
        ),
        (
            {
                "error": "held",
                "guard_owner": "anna@desk",
                "guard_new": NEW,
                "guard_kind": "activate",
                "guard_ends_in": "212",
            },
            f"pi: anna@desk activates {NEW} there at this moment, and it ends in 212 s at the latest. "
            "Wait for it to end, or end it with flotilla.nixos.system_rollback.",
        ),
        (
            {"error": "held", "guard_owner": "ben", "guard_kind": "reboot", "guard_ends_in": "-3"},
            "pi: ben restarts the host there at this moment, and its time is over. "
            "Wait for it to end, or end it with flotilla.nixos.system_rollback.",
        ),
        (
            {"error": "boot_full", "error_detail": "900 100"},
            "pi: /boot has 100 bytes free, and the new kernel and initrd need 900. "
            "Remove old generations there and run `/run/current-system/bin/switch-to-configuration boot`.",
        ),
    ],
)
def test_refusals_are_one_sentence_with_the_fix(answer: dict[str, str], sentence: str) -> None:
    assert str(refusal("pi", facts(**answer))) == sentence
