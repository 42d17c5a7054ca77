# SPDX-License-Identifier: GPL-3.0-or-later
"""URLs of repositories, where their clones are, and what git's refusals mean."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flotilla.nixos.plugins.filter.rollout import with_failed
from ansible_collections.flotilla.nixos.plugins.module_utils.clones import checked_url, clone_path, is_url
from ansible_collections.flotilla.nixos.plugins.module_utils.errors import BadInput
from ansible_collections.flotilla.nixos.plugins.module_utils.git_remote import reason, refusal
from ansible_collections.flotilla.nixos.plugins.module_utils.runner import RunResult
from ansible_collections.flotilla.nixos.plugins.plugin_utils.fleet import update_groups, whole_url

URL = "https://git.example.org/fleet/sbcs"


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://127.0.0.1:8080/a.git",
        "https://user:token@git.example.org/a",
        "ssh://git@git.example.org:2222/fleet/a.git",
        "git@git.example.org:fleet/a.git",
        "forge:fleet/a",
        "file:///srv/a.git",
    ],
)
def test_urls(url: str) -> None:
    assert is_url(url)
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "github:owner/fleet",
        "git+ssh://git@host/a",
        "ftp://host/a",
        "ext::sh -c reboot",
        "https://host",
        "ssh://-oProxyCommand=reboot/a",
        "-oProxyCommand=reboot:a",
        "https://host/a b",
        'https://host/a"b',
    ],
)
def test_what_git_does_not_clone_from(url: str) -> None:
    assert is_url(url)
    with pytest.raises(BadInput, match="this is not a URL that git clones from"):
        checked_url(url)


@pytest.mark.parametrize("path", ["/srv/fleet", "~/fleet", "fleet", "/srv/a:b", "./a:b"])
def test_paths(path: str) -> None:
    assert not is_url(path)


def test_one_clone_for_all_ways_to_write_a_url() -> None:
    same = [URL, f"{URL}.git", f"{URL}/", URL.replace("//", "//user:one@"), URL.replace("//", "//user:two@")]
    (path,) = {clone_path(url, "/clones") for url in same}
    assert path.startswith("/clones/sbcs-")
    assert path != clone_path("https://other.example.org/fleet/sbcs", "/clones")
    assert clone_path("git@host:-rf", "/clones").startswith("/clones/rf-")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "/home/op/.local/state/flotilla/clones/"),
        ({"flotilla_clones": "/srv/clones/"}, "/srv/clones/"),
        ({"flotilla_clones": "~/clones"}, "/home/op/clones/"),
        ({"flotilla_builder": "builder"}, "/var/lib/flotilla/clones/"),
        ({"flotilla_builder": "builder", "flotilla_clones": "/srv"}, "/srv/"),
    ],
)
def test_groups_get_their_clone_and_share_one(variables: dict[str, Any], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    secret = URL.replace("//", "//user:s3cret@")
    hostvars: dict[str, dict[str, Any]] = {
        host: {"flotilla_update_group": group, "flotilla_repo": secret, **variables}
        for host, group in (("pi-1", "sbcs"), ("pi-2", "boards"))
    }
    hostvars["builder"] = {"ansible_host": "192.0.2.1"}
    one, two = update_groups(["pi-1", "pi-2"], hostvars)
    assert one["repo"] == two["repo"]
    assert one["repo"].startswith(f"{folder}sbcs-")
    assert one["remote"] == URL.replace("//", "//***@")
    assert "s3cret" not in repr([one, two])
    assert whole_url(one, hostvars) == secret


@pytest.mark.parametrize(
    ("stderr", "why"),
    [
        ("Host key verification failed.\nfatal: Could not read from remote repository.", "its host key is not in known_hosts"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "its host key is not the one in"),
        ("git@host: Permission denied (publickey).", "it lets nobody in with the ssh keys"),
        ("fatal: could not read Username for 'https://host': terminal prompts disabled", "it does not let git in without a user"),
        ("remote: Repository not found.\nfatal: repository 'https://host/a/' not found", "there is no such repository"),
        ("ssh: connect to host host port 22: Connection refused", "it cannot be reached"),
        ("error: something new\nfatal: the sky fell\n", "the sky fell"),
        ("", "git says nothing of it"),
    ],
)
def test_why_a_remote_does_not_answer(stderr: str, why: str) -> None:
    said, hint = reason(stderr, "git@git.example.org:fleet/sbcs.git", "builder")
    assert said.startswith(why)
    assert hint
    if "known_hosts" in why:
        assert "on builder: ssh-key" in hint
        assert "git.example.org" in hint


@pytest.mark.parametrize(
    ("stderr", "moved", "why"),
    [
        (" ! [rejected]        abc -> main (fetch first)\nerror: failed to push some refs", True, ""),
        (" ! [rejected]        abc -> main (non-fast-forward)", True, ""),
        (" ! [remote rejected] abc -> main (cannot lock ref 'refs/heads/main': is at 1 but expected 2)", True, ""),
        (
            "remote: error: GH006: Protected branch.        \n ! [remote rejected] abc -> main (protected branch hook declined)",
            False,
            "protected branch hook declined (GH006: Protected branch.)",
        ),
        (
            "ERROR: Permission to a/b denied to c.\nfatal: Could not read from remote repository.",
            False,
            "ERROR: Permission to a/b",
        ),
        ("fatal: unable to access 'https://host/a/': The requested URL returned error: 403", False, "it does not let git in"),
    ],
)
def test_why_a_push_is_refused(stderr: str, moved: bool, why: str) -> None:
    found = refusal(RunResult(("git",), 1, "", stderr, 0.0), URL, "builder")
    assert found.moved == moved
    assert moved or found.why.startswith(why)


def test_groups_that_failed_before_are_among_the_locked() -> None:
    cloned = {"groups": {"sbcs": {"failed": True, "msg": "no"}, "servers": {"failed": False}}}
    assert with_failed({"skipped": True}, cloned)["groups"] == {"sbcs": {"failed": True, "msg": "no"}}
    assert with_failed({"groups": {"servers": {"commit": "a"}}}, {"skipped": True})["groups"] == {"servers": {"commit": "a"}}
