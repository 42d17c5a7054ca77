# SPDX-License-Identifier: GPL-3.0-or-later
"""closure_copy against real hosts: who logs in how, what is in the way, and what a cut link leaves."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testbed import Fleet, Host
from testbed.base import OPERATOR_PASSWORD
from testbed.commands import run
from testbed.playbooks import Ansible, TaskResult

MIB = 1 << 20
ROOTS = "/nix/var/nix/gcroots/flotilla"

#: Parts of random bytes, each with the next in its closure, under one top: nothing that any store has.
_EXPRESSION = """
{ id, parts, bytes }:
let
  part = n: below: derivation {
    name = "copy-${id}-${toString n}";
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" "PATH=/usr/bin:/bin; mkdir $out; echo $below > $out/below; head -c $bytes /dev/urandom > $out/data" ];
    inherit below bytes;
  };
in builtins.foldl' (below: n: part n [ below ]) "" (builtins.genList (n: n) parts)
"""


@dataclass(frozen=True)
class Closure:
    """A system to copy: its path, all its paths, and their bytes."""

    system: str
    paths: tuple[str, ...]
    size: int


@pytest.fixture
def closure(controller: dict[str, str], tmp_path: Path) -> Callable[..., Closure]:
    """`closure(parts=3, size=1 * MIB)`: build one on the controller."""

    def build(parts: int = 3, size: int = MIB // 4) -> Closure:
        file = tmp_path / "closure.nix"
        file.write_text(_EXPRESSION)
        numbers = ["--arg", "parts", str(parts), "--arg", "bytes", str(size)]
        words = ["nix-build", "--no-out-link", str(file), "--argstr", "id", uuid.uuid4().hex[:8], *numbers]
        system = run(words, env=controller).stdout.strip()
        paths = run(["nix-store", "-qR", system], env=controller).stdout.split()
        sizes = run(["nix-store", "-q", "--size", *paths], env=controller).stdout.split()
        return Closure(system, tuple(paths), sum(map(int, sizes)))

    return build


@dataclass
class Copier:
    """Runs closure_copy for a host, with variables for it and options for the module."""

    ansible: Ansible
    folder: Path

    def __call__(
        self,
        host: Host,
        closure: Closure | str,
        *arguments: str,
        others: Mapping[str, Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TaskResult:
        system = closure if isinstance(closure, str) else closure.system
        own = {"ansible_host": host.address, "ansible_user": "root", **(variables or {})}
        inventory = self.folder / f"{uuid.uuid4().hex}.json"
        inventory.write_text(json.dumps({"all": {"hosts": {host.name: own, **(others or {})}}}))
        task = {"name": "copy", "flotilla.nixos.closure_copy": {"system": system, **options}}
        play = {"hosts": host.name, "gather_facts": False, "tasks": [task]}
        played = self.ansible.playbook([play], *arguments, inventory=inventory, check=False)
        (result,) = played.of("closure_copy", host.name) or pytest.fail(played.text)
        return result


@pytest.fixture
def copier(ansible: Ansible, tmp_path: Path) -> Copier:
    return Copier(ansible, tmp_path)


@pytest.fixture
def target(hosts: Callable[..., list[Host]]) -> Host:
    """A host as other tests have left it: what is copied here is new to it every time."""
    return hosts("copy1")[0]


@pytest.fixture
def narrow(target: Host) -> Iterator[None]:
    """A link of about 2 MB/s to the host."""
    limits = ["rate", "16mbit", "burst", "32k", "latency", "400ms"]
    run(["tc", "qdisc", "replace", "dev", target.link, "root", "tbf", *limits])
    yield
    run(["tc", "qdisc", "delete", "dev", target.link, "root"], check=False)


def valid(host: Host, closure: Closure) -> set[str]:
    """Those of the closure's paths that the host has."""
    command = f"nix-store --check-validity --print-invalid {' '.join(closure.paths)}"
    return set(closure.paths) - set(host.inside(["sh", "-c", command], check=False).stdout.split())


def left_over(host: Host) -> str:
    """Daemons, units and folders of copies on the host."""
    command = (
        "systemctl list-units --all --no-legend 'flotilla-copy*'; ls -A /run/flotilla 2>/dev/null | grep copy;"
        " for file in $(grep -lsz ^FLOTILLA_COPY= /proc/[0-9]*/environ); do tr '\\0' ' ' <${file%/environ}/cmdline; done"
    )
    return host.inside(["sh", "-c", command], check=False).stdout.strip()


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:.0f} s"
        time.sleep(0.05)


def test_copies_once_roots_it_and_then_has_nothing_to_do(copier: Copier, closure: Callable[..., Closure], target: Host) -> None:
    system = closure()

    planned = copier(target, system, "--check")
    assert planned.result["changed"]
    assert planned.result["bytes"] == system.size
    assert set(planned.result["missing"]) == set(system.paths)
    assert not planned.result["rooted"]
    assert not valid(target, system)

    first = copier(target, system, name="tested")
    assert (first.status, first.result["changed"], first.result["rooted"]) == ("ok", True, True)
    assert (first.result["paths"], first.result["bytes"]) == (3, system.size)
    assert valid(target, system) == set(system.paths)
    assert target.run(["readlink", f"{ROOTS}/tested"]).stdout.strip() == system.system

    target.run(["rm", f"{ROOTS}/tested"])
    second = copier(target, system, name="tested")
    assert (second.result["changed"], second.result["paths"], second.result["seconds"]) == (False, 0, 0)
    assert target.run(["readlink", f"{ROOTS}/tested"]).stdout.strip() == system.system, "the root was not made again"

    target.run(["nix-store", "--gc"])
    assert valid(target, system) == set(system.paths), "the root does not hold"
    assert not left_over(target)


@pytest.mark.parametrize(
    ("user", "password"), [("deploy", None), ("operator", OPERATOR_PASSWORD)], ids=["sudo without password", "sudo with password"]
)
def test_become_reaches_nix_copy(
    copier: Copier, closure: Callable[..., Closure], target: Host, user: str, password: str | None
) -> None:
    system = closure()
    become = {"ansible_user": user, "ansible_become": True, **({"ansible_become_password": password} if password else {})}
    result = copier(target, system, variables=become)
    assert result.status == "ok", result.result
    assert valid(target, system) == set(system.paths)
    assert not left_over(target)
    assert user not in target.read("/etc/nix/nix.conf"), "nobody was to become a trusted user"


def test_a_user_that_cannot_become_root_is_told_so(copier: Copier, closure: Callable[..., Closure], target: Host) -> None:
    result = copier(target, closure(), variables={"ansible_user": "deploy"})
    assert result.status == "failed"
    assert result.result["msg"].startswith("copy1: commands do not run as root there")
    assert "Set ansible_become to true" in result.result["msg"]


def test_port_and_jump_host_are_those_of_ansible(
    copier: Copier, closure: Callable[..., Closure], fleet: Fleet, hosts: Callable[..., list[Host]]
) -> None:
    target, jump = hosts("copy1", "copy2")
    target.inside(["systemd-run", "--collect", "--unit=sshd-2222", "/usr/sbin/sshd", "-D", "-p", "2222"], check=False)
    known = fleet.folder / "known_hosts"
    key = (target.folder / "identity/ssh_host_ed25519_key.pub").read_text().split()[:2]
    known_here = copier.folder / "known_hosts"
    known_here.write_text(f"{known.read_text()}[{target.address}]:2222 {' '.join(key)}\n")
    common = f"-o UserKnownHostsFile={known_here} -F {fleet.folder}/ssh_config -J {jump.name}"
    since = target.inside(["date", "+%s"]).stdout.strip()
    result = copier(target, system := closure(), variables={"ansible_port": 2222, "ansible_ssh_common_args": common})
    assert result.status == "ok", result.result
    assert valid(target, system) == set(system.paths)
    log = target.inside(["journalctl", "--since", f"@{since}", "--no-pager", "--grep", "Accepted publickey"], check=False).stdout
    assert f"from {jump.address} " in log
    assert f"from {target.subnet.gateway} " not in log, "something went there without the jump host"


def test_a_changed_host_key_is_named_before_anything_is_sent(
    copier: Copier, closure: Callable[..., Closure], target: Host
) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", copier.folder / "other"])
    key = (copier.folder / "other.pub").read_text()
    (copier.folder / "known").write_text(f"{target.address} {key}")
    changed = copier(target, closure(), variables={"ansible_ssh_common_args": f"-o UserKnownHostsFile={copier.folder}/known"})
    assert changed.status == "failed"
    result = changed.result
    assert "unreachable" not in result
    assert result["phase"] == "copy"
    assert "copy1: the connection failed: its host key is not the one in known_hosts." in result["msg"]
    assert f"ssh-keygen -R '{target.address}'" in result["msg"]


def test_a_full_disk_is_found_before_anything_is_sent(
    copier: Copier, closure: Callable[..., Closure], fleet: Fleet, target: Host
) -> None:
    system = closure(parts=2, size=4 * MIB)
    fleet.fault(target.name, "fill-disk", "/nix", "6000")
    try:
        for arguments in ((), ("--check",)):
            result = copier(target, system, *arguments, keep_free=0)
            assert result.status == "failed"
            assert "copy1: its /nix/store has 5.9 MiB free, and 8.4 MiB are needed" in result.result["msg"]
            assert "nix-collect-garbage" in result.result["msg"]
        assert not valid(target, system)
    finally:
        fleet.fault(target.name, "free-disk", "/nix")
    assert copier(target, system).result["changed"]


def test_a_disk_that_becomes_full_meanwhile_is_named(
    copier: Copier, closure: Callable[..., Closure], fleet: Fleet, target: Host
) -> None:
    system = closure(parts=2, size=4 * MIB)
    fleet.fault(target.name, "fill-disk", "/nix", "6000")
    try:
        result = copier(target, system, keep_free=-8 * MIB, variables={"ansible_user": "deploy", "ansible_become": True})
        assert "copying to it failed: its disk became full. Make room there" in result.result["msg"], result.result
    finally:
        fleet.fault(target.name, "free-disk", "/nix")
    assert not left_over(target)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("user", ["root", "deploy"])
def test_a_cut_link_is_a_failure_and_the_next_run_sends_the_rest(
    copier: Copier, closure: Callable[..., Closure], fleet: Fleet, target: Host, user: str
) -> None:
    system = closure(parts=4, size=3 * MIB)
    variables = {"ansible_user": user, "ansible_become": user != "root", "ansible_ssh_timeout": 3}
    results: list[TaskResult] = []
    thread = threading.Thread(target=lambda: results.append(copier(target, system, variables=variables, stall_timeout=3)))
    thread.start()
    try:
        wait_until(lambda: bool(valid(target, system)), "the first path's arrival")
        fleet.fault(target.name, "link-down")
        thread.join(90)
    finally:
        fleet.fault(target.name, "link-up")
    assert results, "it was still waiting for the host after 90 s"
    (cut,) = results
    assert cut.status == "failed"
    assert cut.result["unreachable"]
    assert cut.result["phase"] == "copy"
    arrived = valid(target, system)
    assert arrived < set(system.paths)

    # What served the copy still waits there for more, with a lock on the path that it was writing.
    again = copier(target, system, variables=variables, stall_timeout=10)
    assert again.status == "ok", again.result
    assert not again.result["retried"]
    assert again.result["paths"] == len(system.paths) - len(arrived)
    assert valid(target, system) == set(system.paths)
    assert not left_over(target)


@pytest.mark.usefixtures("narrow")
def test_two_runs_leave_each_others_copy_alone(copier: Copier, closure: Callable[..., Closure], target: Host) -> None:
    system = closure(parts=3, size=3 * MIB)
    results: list[TaskResult] = []
    thread = threading.Thread(target=lambda: results.append(copier(target, system)))
    thread.start()
    wait_until(lambda: bool(valid(target, system)), "the first path's arrival")
    second = copier(target, system)
    thread.join(90)
    for result in (*results, second):
        assert (result.status, result.result["retried"]) == ("ok", False), result.result
    assert valid(target, system) == set(system.paths)
    assert not left_over(target)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("user", ["root", "deploy"])
def test_a_copy_that_gets_stuck_is_tried_once_more(
    copier: Copier, closure: Callable[..., Closure], target: Host, user: str
) -> None:
    system = closure(parts=3, size=3 * MIB)
    variables = {"ansible_user": user, "ansible_become": user != "root"}
    results: list[TaskResult] = []
    thread = threading.Thread(target=lambda: results.append(copier(target, system, stall_timeout=3, variables=variables)))
    thread.start()
    wait_until(lambda: bool(valid(target, system)), "the first path's arrival")
    # Every connection that there is hangs, as when a router has forgotten it; a new one finds nothing wrong.
    target.inside(["pkill", "-STOP", "-x", "sshd-session"])
    thread.join(90)
    target.inside(["pkill", "-CONT", "-x", "sshd-session"], check=False)
    (result,) = results
    assert result.status == "ok", result.result
    assert result.result["retried"]
    assert valid(target, system) == set(system.paths)
    assert not left_over(target)


def _inventory_entry(host: Host) -> dict[str, Any]:
    return {"ansible_host": host.address, "ansible_user": "root"}


def _move(closure: Closure, host: Host, controller: dict[str, str], fleet: Fleet) -> None:
    """Have the closure on that host and not here, as if it had been built there."""
    env = {**controller, "NIX_SSHOPTS": f"-F {fleet.folder}/ssh_config"}
    run(["nix", "copy", "--no-check-sigs", "--to", f"ssh-ng://{host.name}", closure.system], env=env)
    run(["nix-store", "--delete", *reversed(closure.paths)], env=controller)


@pytest.mark.parametrize("user", ["root", "operator"])
def test_from_a_remote_builder_through_the_controller(
    copier: Copier,
    closure: Callable[..., Closure],
    fleet: Fleet,
    hosts: Callable[..., list[Host]],
    controller: dict[str, str],
    user: str,
) -> None:
    target, builder = hosts("copy1", "copy2")
    _move(system := closure(), builder, controller, fleet)
    variables = {"ansible_user": user, "ansible_become": user != "root", "ansible_become_password": OPERATOR_PASSWORD}
    result = copier(target, system, builder=builder.name, others={builder.name: _inventory_entry(builder)}, variables=variables)
    assert result.status == "ok", result.result
    assert not result.result["retried"]
    assert valid(target, system) == set(system.paths)
    assert not Path(system.system).exists(), "it was to pass through the controller, not to stay there"
    assert not left_over(target)


def test_a_remote_builder_sends_it_itself(
    copier: Copier,
    closure: Callable[..., Closure],
    fleet: Fleet,
    hosts: Callable[..., list[Host]],
    controller: dict[str, str],
) -> None:
    target, builder = hosts("copy1", "copy2")
    _move(system := closure(), builder, controller, fleet)
    others = {builder.name: _inventory_entry(builder)}
    refused = copier(target, system, builder=builder.name, via="builder", others=others)
    assert refused.status == "failed"
    assert "its host key is not in known_hosts" in refused.result["msg"], refused.result

    builder.write("/root/.ssh/id_ed25519", (fleet.folder / "key").read_text(), 0o600)
    builder.write("/root/.ssh/known_hosts", (fleet.folder / "known_hosts").read_text())
    result = copier(
        target,
        system,
        builder=builder.name,
        via="builder",
        others=others,
        variables={"ansible_user": "deploy", "ansible_become": True},
    )
    assert result.status == "ok", result.result
    assert valid(target, system) == set(system.paths)
    assert not left_over(target)


@pytest.mark.parametrize("user", ["root", "deploy"])
def test_signatures(copier: Copier, closure: Callable[..., Closure], target: Host, controller: dict[str, str], user: str) -> None:
    secret, public = copier.folder / "fleet.secret", copier.folder / "fleet.public"
    run(["nix-store", "--generate-binary-cache-key", f"fleet-{user}", secret, public], env=controller)
    become = {"ansible_user": user, "ansible_become": user != "root"}
    system = closure()
    for options in ({}, {"signing_key": str(secret)}):
        refused = copier(target, system, variables=become, check_signatures=True, **options)
        assert "it takes only paths that are signed with a key it trusts" in refused.result["msg"], refused.result
    assert not valid(target, system)

    before = target.read("/etc/nix/nix.conf")
    target.write("/etc/nix/nix.conf", f"{before}\nextra-trusted-public-keys = {public.read_text()}\n")
    try:
        result = copier(target, system, variables=become, check_signatures=True, signing_key=str(secret))
        assert result.status == "ok", result.result
    finally:
        target.write("/etc/nix/nix.conf", before)
    assert valid(target, system) == set(system.paths)
    assert not left_over(target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": "/etc"}, "copy1: '/etc' is not a store path."),
        ({"system": f"/nix/store/{'0' * 32}-nowhere"}, "copy1: localhost cannot say what /nix/store/"),
        ({"builder": "nobody"}, "nobody: there is no such host in the inventory."),
        ({"name": "../../x"}, "GC root '../../x': this name cannot be used"),
        ({"signing_key": "/nowhere/key"}, "copy1: signing with /nowhere/key on localhost failed"),
    ],
)
def test_bad_input_gets_one_sentence(
    copier: Copier, closure: Callable[..., Closure], target: Host, options: dict[str, Any], message: str
) -> None:
    system = str(options.pop("system", "")) or closure()
    result = copier(target, system, **options)
    assert result.status == "failed"
    assert message in result.result["msg"]
    assert "Traceback" not in result.result["msg"]


def test_a_target_without_nix_is_named(copier: Copier, closure: Callable[..., Closure], target: Host) -> None:
    target.run("mkdir -p /tmp/away && mv /usr/bin/nix* /tmp/away/")
    try:
        result = copier(target, closure())
    finally:
        target.inside(["sh", "-c", "mv /tmp/away/nix* /usr/bin/"])
    assert "copy1: there is no nix on it." in result.result["msg"], result.result
