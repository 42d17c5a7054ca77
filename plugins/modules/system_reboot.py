# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.system_reboot, which is an action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: system_reboot
short_description: Restart a NixOS host and see that it came back right
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Restarts a host if that is needed, waits until it is back, and sees by its boot id and C(/run/booted-system) that it was
    restarted and
    booted the wanted system, and that no unit fails that did not fail before.
  - It is refused if the host would boot another system than the wanted one, or if a transaction holds the host.
  - A host that does not come back within O(timeout) is a failure. Nothing on the host can help then. The system that was
    booted was proven only as far as it was activated before. Where it was only staged
    (O(flotilla.nixos.system_activate#module:goal=boot)), it
    was not proven at all.
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.activation
  - flotilla.nixos.activation.owner
  - flotilla.nixos.activation.ignored
attributes:
  check_mode:
    support: full
    details: Says whether it would restart, and why.
  diff_mode:
    support: partial
    details: Shows the system that was booted and the one that would be.
  idempotent:
    support: full
    details: Not with O(policy=always).
options:
  system:
    description: The system that must be booted afterwards. Without it, whatever the host's boot default is.
    type: str
  timeout:
    description: Seconds that the host may take to come back.
    type: int
    default: 600
  policy:
    description:
      - V(if_needed) restarts if kernel, initrd, kernel modules or kernel parameters differ from the booted ones, if an
        inhibitor stands
        between the running and the wanted system, or if the wanted system does not run.
      - V(always) and V(never) do as they say.
    type: str
    choices: [if_needed, always, never]
    default: if_needed
seealso:
  - module: flotilla.nixos.system_activate
"""

EXAMPLES = r"""
- name: Restart if the new system needs it
  flotilla.nixos.system_reboot:
    system: "{{ activation.system }}"
    timeout: 900
"""

RETURN = r"""
outcome:
  description:
    - V(unchanged), no restart was needed or allowed; V(rebooted), it is back (RV(failed_units) may be why it failed
      nevertheless); V(failed),
      it came back with another system; V(lost), it did not come back.
  type: str
  returned: when the host was asked
  sample: rebooted
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
