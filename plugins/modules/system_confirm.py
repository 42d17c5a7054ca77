# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.system_confirm, which is an action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: system_confirm
short_description: Make an activated NixOS system permanent
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Ends the wait of M(flotilla.nixos.system_activate). The host sets its system profile, then its boot loader, sees that the boot
    default is the new system where that can be read, and ends its guard. It does so in one step of its own, which a
    connection that is lost meanwhile cannot split.
  - Before that the O(health_checks) must pass, and no unit may have failed since the activation. If they do not, or the boot
    loader cannot be set (a full C(/boot)), the host goes back to its old system, profile and boot default.
  - The guard and the confirmation cannot both win. If the deadline came first, this fails and says so.
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.activation
  - flotilla.nixos.activation.ignored
  - flotilla.nixos.activation.health
attributes:
  check_mode:
    support: full
    details: Says whether there is something to confirm. Runs no health checks.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  system:
    description: The system that was activated.
    type: str
    required: true
  guard:
    description: The transaction to confirm, RV(flotilla.nixos.system_activate#module:guard). Without it, the one that waits on
      the host.
    type: str
seealso:
  - module: flotilla.nixos.system_activate
"""

EXAMPLES = r"""
- name: Keep the system that was activated
  flotilla.nixos.system_confirm:
    system: "{{ activation.system }}"
    guard: "{{ activation.guard }}"
    health_checks:
      - port: 443
"""

RETURN = r"""
outcome:
  description:
    - V(confirmed), it is permanent; V(unchanged), it was already; V(rolled_back), the host runs its old system again;
      V(failed), it
      could not go back, see C(msg); V(lost), it does not answer, and its guard takes it back.
  type: str
  returned: when the host was asked
  sample: confirmed
system:
  description: The system that was wanted.
  type: str
  returned: when the host was asked
previous:
  description: The system that ran before, and that the host goes back to.
  type: str
  returned: when the host was asked
guard:
  description: The transaction that waits for the confirmation.
  type: str
  returned: when the host was asked; null if none waits
exit_code:
  description: The status of C(switch-to-configuration).
  type: int
  returned: when it ran; else null
units:
  description: What C(switch-to-configuration) did to units, or would do. Null if it cannot be known.
  type: dict
  returned: when the host was asked
  contains:
    stopped: {description: Units that were stopped., type: list, elements: str}
    not_stopped: {description: Changed units that keep running., type: list, elements: str}
    started: {description: Units that were started., type: list, elements: str}
    restarted: {description: Units that were restarted., type: list, elements: str}
    not_restarted: {description: Changed units that were left alone., type: list, elements: str}
    reloaded: {description: Units that were reloaded., type: list, elements: str}
    new: {description: Units that are new., type: list, elements: str}
    failed: {description: Units that failed., type: list, elements: str}
failed_units:
  description: Units that fail now, did not fail before, and are not ignored.
  type: list
  elements: str
  returned: when the host was asked
journal:
  description: The last lines of the journal of RV(failed_units), each behind its unit's name.
  type: list
  elements: str
  returned: when the host was asked
log:
  description: What C(switch-to-configuration) printed.
  type: list
  elements: str
  returned: when the host was asked
reboot_needed:
  description: Whether only a restart brings all of the system.
  type: bool
  returned: when the host was asked
reboot_reasons:
  description: Why. Names of what differs from the booted system (kernel, initrd, kernel-modules, kernel-params), and inhibitors.
  type: list
  elements: str
  returned: when the host was asked
  sample: [kernel, kernel-modules]
inhibitors:
  description: Why the system must not be switched to live.
  type: list
  elements: str
  returned: when the host was asked
restarted:
  description: Whether the host was restarted, by us or by its guard.
  type: bool
  returned: when the host was asked
confirm_within:
  description: Seconds that there are for the confirmation. Null if none is awaited.
  type: int
  returned: when the host was asked
held_by:
  description: In check mode, the transaction that holds the host at this moment, as RV(flotilla.nixos.system_info#module:guard).
  type: dict
  returned: when one does
phase:
  description: What the module was doing when it failed before or while it asked the host.
  type: str
  returned: on such a failure
unreachable:
  description: That the host does not answer.
  type: bool
  returned: when it does not
"""
