# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed's pure parts: what it hands out, remembers and reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from testbed import TestbedError, keys, network, processes, state
from testbed.cgroups import root
from testbed.cli import parser
from testbed.controller_nix import version
from testbed.digests import digest
from testbed.faults import FAULTS
from testbed.locks import first_free, locked
from testbed.mounts import Mount, below, parse
from testbed.network import Subnet
from testbed.places import checked_name

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /var/lib/fleet\\040one/hosts/a/disk rw shared:1 - tmpfs tmpfs rw
31 22 0:27 / /var/lib/fleet\\040one/hosts/a/root rw - overlay overlay rw,lowerdir=/base
32 31 0:28 / /var/lib/fleet\\040one/hosts/a/root/nix rw - overlay overlay rw
33 22 0:29 / /var/lib/fleet\\040one2 rw - tmpfs tmpfs rw
40 22 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("taken", "number"), [(set(), 1), ({1}, 2), ({2, 3}, 1), ({1, 2, 4}, 3), (set(range(1, 254)), 254)], ids=str
)
def test_the_lowest_free_subnet_is_given(taken: set[int], number: int) -> None:
    assert network.free_subnet(taken) == Subnet(number)


def test_no_subnet_left_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TestbedError, match=r"all subnets are taken\. Take fleets down"):
        network.free_subnet(range(1, 255))


def test_names_fit_the_kernel_and_addresses_their_subnet_up_to_the_last_host() -> None:
    last = network.free_index(range(network.MOST_HOSTS - 1))
    subnet = Subnet(254)
    assert max(len(subnet.bridge), len(subnet.link(last))) <= 15
    assert (subnet.gateway, subnet.address(0), subnet.address(last)) == ("10.213.254.1", "10.213.254.11", "10.213.254.250")
    with pytest.raises(TestbedError, match="240 hosts"):
        network.free_index(range(network.MOST_HOSTS))


def test_subnets_that_interfaces_have_are_in_use() -> None:
    addresses = [{"addr_info": [{"local": "10.213.7.1"}, {"local": "192.0.2.1"}]}, {"addr_info": []}, {}]
    assert network.subnets_in_use(json.dumps(addresses)) == {7}


@pytest.mark.parametrize(("milliseconds", "rate"), [(1, 12_112_000), (100, 121_120), (10_000, 8000), (0, 12_112_000)])
def test_a_narrow_link_takes_that_long_for_a_full_frame(milliseconds: int, rate: int) -> None:
    assert network.narrow_rate(milliseconds) == rate


def test_mounts_are_read_and_the_last_comes_off_first() -> None:
    table = parse(MOUNTINFO)
    assert table[1] == Mount("/var/lib/fleet one/hosts/a/disk", "tmpfs")
    host = "/var/lib/fleet one/hosts/a"
    assert below(Path("/var/lib/fleet one"), table) == [f"{host}/root/nix", f"{host}/root", f"{host}/disk"]


def test_the_cgroup_hierarchy_is_found_also_on_a_hybrid_machine() -> None:
    assert root(parse(MOUNTINFO)) == Path("/sys/fs/cgroup/unified")
    with pytest.raises(TestbedError, match="no cgroup2 hierarchy is mounted"):
        root([])


def fake_process(proc: Path, pid: int, started: int, *, letter: str = "S", namespaces: str = "") -> None:
    (proc / str(pid) / "task" / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (odd) name) {letter} {' '.join('0' for _ in range(18))} {started} 0 0\n")
    (proc / str(pid) / "status").write_text(f"Name:\todd\nNSpid:\t{pid}{namespaces}\n")


@pytest.mark.parametrize(
    ("started", "letter", "there"), [(500, "S", True), (501, "S", False), (500, "Z", False)], ids=["same", "later", "zombie"]
)
def test_a_process_is_the_recorded_one_only_with_its_start_time(tmp_path: Path, started: int, letter: str, there: bool) -> None:
    fake_process(tmp_path, 7, started, letter=letter)
    assert processes.alive(processes.Process(7, 500), tmp_path) is there
    assert not processes.alive(processes.Process(8, 500), tmp_path)


def test_the_containers_init_is_nspawns_child_that_is_1_in_its_namespace(tmp_path: Path) -> None:
    fake_process(tmp_path, 7, 500)
    fake_process(tmp_path, 8, 510)
    fake_process(tmp_path, 9, 520, namespaces="\t1")
    (tmp_path / "7/task/7/children").write_text("8 9 ")
    assert processes.namespace_init(processes.Process(7, 500), tmp_path) == 9
    assert processes.namespace_init(processes.Process(7, 499), tmp_path) is None


@pytest.mark.parametrize(("text", "pid"), [("12 345\n", 12), ("", None), ("12", None), ("12 x", None)])
def test_a_torn_record_is_no_record(tmp_path: Path, text: str, pid: int | None) -> None:
    (tmp_path / "a.pid").write_text(text)
    found = processes.recorded(tmp_path / "a.pid")
    assert (found.pid if found else None) == pid
    assert processes.recorded(tmp_path / "none.pid") is None


def test_a_fleets_state_survives_writing_and_reading(tmp_path: Path) -> None:
    written = state.FleetState(Subnet(3), (Path("/layer"), Path("/base")), Path("/controller"), {"web1": 0, "pi-7": 4})
    state.save(tmp_path / "fleet", written)
    assert state.load(tmp_path / "fleet") == written
    assert state.all_fleets(tmp_path) == {"fleet": written}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"subnet": 1}', '{"subnet": "x", "layers": [], "hosts": {}}'])
def test_a_torn_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    assert state.load(tmp_path) is None


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "..", "a..b", ".a", "a;b", "x" * 64])
def test_names_that_could_do_harm_are_refused(name: str) -> None:
    with pytest.raises(TestbedError, match="cannot be used"):
        checked_name("host", name)


@pytest.mark.parametrize("name", ["web1", "pi-7.example.org", "A_b"])
def test_usual_names_are_fine(name: str) -> None:
    assert checked_name("host", name) == name


@pytest.mark.parametrize(
    ("text", "found"),
    [("nix (Nix) 2.26.3\n", (2, 26)), ("nix (Nix) 2.8.0\n", (2, 8)), ("nix (Lix, like Nix) 2.93.0", (2, 93)), ("", ())],
)
def test_nix_versions_are_read(text: str, found: tuple[int, ...]) -> None:
    assert version(text) == found


def test_ssh_finds_hosts_by_name_and_by_address() -> None:
    config = keys.ssh_config(Path("/state/f"), {"web1": "10.213.1.11"})
    assert "Host web1\n    HostName 10.213.1.11\n" in config
    assert "Host web1 10.213.1.11\n" in config
    assert keys.known_hosts({"web1": ("10.213.1.11", "ssh-ed25519 AAAA root@web1")}) == "web1,10.213.1.11 ssh-ed25519 AAAA\n"


def test_a_digest_changes_with_names_modes_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "tree/a"
    file.parent.mkdir()
    file.write_text("x")
    seen = [digest("suite", tmp_path / "tree")]
    file.chmod(0o755)
    seen.append(digest("suite", tmp_path / "tree"))
    file.write_text("y")
    seen.append(digest("suite", tmp_path / "tree"))
    seen.append(digest("other", tmp_path / "tree"))
    file.rename(tmp_path / "tree/b")
    seen.append(digest("other", tmp_path / "tree"))
    assert len(set(seen)) == len(seen)
    assert digest("other", tmp_path / "tree") == seen[-1]


def test_sessions_get_names_of_their_own_and_pass_them_on(tmp_path: Path) -> None:
    with first_free("pytest", root=tmp_path) as one, first_free("pytest", root=tmp_path) as two:
        assert (one, two) == ("pytest-1", "pytest-2")
    with first_free("pytest", root=tmp_path) as again:
        assert again == "pytest-1"


def test_a_lock_that_is_held_names_its_holder(tmp_path: Path) -> None:
    with (
        locked("fleet", root=tmp_path),
        pytest.raises(TestbedError, match=r"process \d+ still holds this lock"),
        locked("fleet", root=tmp_path, timeout=0),
    ):
        pass


@pytest.mark.parametrize("fault", FAULTS)
def test_the_command_line_knows_every_fault(fault: str) -> None:
    assert parser().parse_args(["fault", "web1", fault]).fault == fault
