# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: the files around the flakes that make a repository a fleet: inventory, playbooks, README, …"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

#: What a playbook at the repository's top is good for, and how it is called.
PLAYBOOKS: Mapping[str, tuple[str, str]] = {
    "status": ("Say what each host runs, and what it should run", "status.yml"),
    "rollout": ("Bring hosts to what their group says", "rollout.yml -l {group} [-e flotilla_update=true]"),
    "update": ("Lock fresh inputs, and build every host with them", "update.yml -l {group}"),
    "promote": ("Give one group what another has proven", "promote.yml -e from=canary -e to=stable"),
    "restore": ("Bring a group back to what it has proven last", "restore.yml -e group={group}"),
    "catchup": ("Bring hosts that were away to what their group has proven", "catchup.yml"),
    "rollback": ("Bring hosts back to the system before", "rollback.yml -l {host}"),
    "clean": ("Remove old generations and garbage", "clean.yml -l {group}"),
}

GITIGNORE = """# What nix build and Ansible leave behind.
/result
/result-*
*.retry
/.ansible/
"""

ANSIBLE_CFG = """[defaults]
inventory = inventory
forks = 16
; What there was nothing to do for is no news; failures are read by people.
display_skipped_hosts = false
callback_result_format = yaml
callbacks_enabled = flotilla.nixos.rollout

[ssh_connection]
pipelining = true
; A link that was cut is noticed within a minute.
ssh_args = -o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=15 -o ServerAliveCountMax=4
"""

README = """# The fleet

NixOS hosts, kept in flakes and rolled out with the Ansible collection flotilla.nixos: {groups}.
{where}

{commands}
Only what is committed is rolled out. Where the hosts are reached is in `inventory/hosts.yml`.
"""

#: The commands that a fleet's README has, and what they are for.
COMMANDS = (
    ("status.yml", "who is there, what runs, what should run"),
    ("rollout.yml -l {group} --check --diff", "what would happen"),
    ("rollout.yml -l {group}", "bring {group} to what is committed here"),
    ("rollout.yml -l {group} -e flotilla_update=true", "the same with fresh inputs, for this group only"),
    ("rollback.yml -l {host}", "bring a host back to the system before"),
)

BASE_MODULE = """# What all hosts have.
{{ ... }}:
{{
  services.openssh.enable = true;
  # Who may log in. Without a key that the controller has, no rollout can reach a host.
  users.users.root.openssh.authorizedKeys.keys = [
{keys}  ];
}}
"""


def playbook(name: str, group: str, host: str) -> str:
    """A playbook at the repository's top that is one of the collection's."""
    what, call = PLAYBOOKS[name]
    head = f"---\n# ansible-playbook {call.format(group=group, host=host)}\n"
    return f"{head}- name: {what}\n  import_playbook: flotilla.nixos.{name}\n"


def base_module(keys: Sequence[str]) -> str:
    """The module that new groups share. keys: ssh keys of those who may log in as root."""
    return BASE_MODULE.format(keys="".join(f"    {json.dumps(key)}\n" for key in keys))


def readme(groups: Sequence[str], host: str, where: str) -> str:
    """The README. groups: their names; where: a sentence on where their flakes and locks are."""
    named = {"group": groups[0], "host": host}
    calls = [(f"ansible-playbook {call.format(**named)}", what.format(**named)) for call, what in COMMANDS]
    width = max(len(call) for call, _what in calls)
    commands = "".join(f"    {call:<{width}}  # {what}\n" for call, what in calls)
    return README.format(groups=", ".join(groups), where=where, commands=commands)


def fleet_inventory(groups: Mapping[str, Mapping[str, object]]) -> str:
    """The inventory of the flakes plugin. groups: the fields of those that are not found in hosts/*/flake.nix."""
    lines = [
        "---",
        "# The update groups and their hosts, as the flakes at HEAD have them.",
        "plugin: flotilla.nixos.flakes",
        "# Names are enough, and quick. Without this line, platforms and the variables that you define are evaluated, too.",
        "details: false",
    ]
    if groups:
        lines.append("update_groups:")
    for name, fields in groups.items():
        lines.append(f"  {name}:")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def addresses(hosts: Collection[str], known: Mapping[str, str]) -> str:
    """The inventory of the hosts' addresses. known: those that are known already."""
    lines = [
        "---",
        "# Where the hosts are reached, and as whom. Which group each is in, the flakes say.",
        "all:",
        "  vars:",
        "    ansible_user: root",
        "  hosts:",
    ]
    for host in hosts:
        lines.append(f"    {_key(host)}:")
        note = "" if host in known else " # its address, where the name is not enough"
        lines.append(f"      ansible_host: {_key(known.get(host, host))}{note}")
    return "\n".join(lines) + "\n"


def _key(text: str) -> str:
    """A name or address as YAML takes it for text."""
    plain = text.replace("-", "a").replace(".", "a").replace("_", "a")
    return text if plain.isalnum() and plain[0].isalpha() and text.lower() not in _YAML_WORDS else json.dumps(text)


_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
