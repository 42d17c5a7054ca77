# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.fleet_status, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_status
short_description: Show what each host runs beside what it should run
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Puts together what M(flotilla.nixos.system_info) found on each host, what M(flotilla.nixos.flake_build) says that it should
    run, and the age of its group's lock, and shows it as a table. Below it, what each update group has proven, what still soaks,
    how its last rollout ended, and who is late.
  - Runs on the controller. Use it with C(run_once). The playbook C(flotilla.nixos.status) does all of it.
options:
  groups:
    description: The update groups, as RV(flotilla.nixos.rollout_scope#module:groups) gives them.
    type: list
    elements: dict
    required: true
  built:
    description: The result of M(flotilla.nixos.flake_build). With C(dry=true) is enough.
    type: dict
    default: {}
  locks:
    description: The result of M(flotilla.nixos.flake_info).
    type: dict
    default: {}
  ledger:
    description: The result of M(flotilla.nixos.flake_ledger).
    type: dict
    default: {}
  file:
    description: A file on the controller to write RV(hosts) and RV(groups) to, as JSON.
    type: path
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
notes:
  - Reads the results of M(flotilla.nixos.system_info) that are registered as C(flotilla_info) for each host.
seealso:
  - module: flotilla.nixos.system_info
"""

EXAMPLES = r"""
- name: Say what every host runs
  flotilla.nixos.fleet_status:
    groups: "{{ scope.groups }}"
    built: "{{ built }}"
    file: /var/lib/fleet/status.json
  run_once: true
"""

RETURN = r"""
hosts:
  description: Every host's status.
  returned: success
  type: dict
  contains:
    standing:
      description:
        - V(current) if it runs and boots what the repository says, V(behind) if it runs another system, V(pending) if it
          runs it but would not boot it, or the other way round, or waits for a confirmation.
        - V(unknown) if what it should run could not be evaluated, V(unreachable), or V(failed) if it could not be looked at.
      type: str
    group:
      description: Its update group.
      type: str
    running:
      description: The system that it runs.
      type: str
    wanted:
      description: The system that it should run.
      type: str
    since:
      description: When the running system was activated, in seconds since 1970.
      type: int
    lock_age:
      description: Days since the newest revision in its group's lock.
      type: float
    reboot_needed:
      description: Whether kernel, initrd or the like wait for a reboot.
      type: bool
    failed_units:
      description: Units that have failed.
      type: list
      elements: str
    note:
      description: What else there is to say, such as why it could not be reached.
      type: str
groups:
  description: Every update group's status.
  returned: success
  type: dict
  contains:
    known_good:
      description: What it has proven last, as RV(flotilla.nixos.flake_ledger#module:groups) has it; null if nothing.
      type: dict
    soaking:
      description: What it runs well, but not for long enough yet; null if nothing.
      type: dict
    growing:
      description: What only a part of it runs, as RV(flotilla.nixos.flake_ledger#module:groups) has it; null if nothing.
      type: dict
    last:
      description: Its last rollout, without its hosts; null if there is none.
      type: dict
    deferred:
      description: Its late hosts, as RV(flotilla.nixos.flake_ledger#module:groups) has them.
      type: list
      elements: dict
    holds:
      description: What is held. C(input) (null for the whole group), C(reason), C(until), and whether that has C(expired).
      type: list
      elements: dict
    note:
      description: What else there is to say, such as why the ledger cannot be read.
      type: str
lines:
  description: The table as it was shown.
  returned: success
  type: list
  elements: str
"""
