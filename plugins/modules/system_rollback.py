# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.system_rollback, which is an action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: system_rollback
short_description: Take a NixOS host back to a system that it ran before
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Without O(to), ends an activation that waits for its confirmation, and the host goes back to the system that ran before it (a
    recorded path, not a generation's number). If none waits, nothing is done.
  - Which systems were left in this way is kept in C(/nix/var/nix/flotilla) there.
  - With O(to), brings the host to that system, in the same guarded way as M(flotilla.nixos.system_activate) and
    M(flotilla.nixos.system_confirm), so that a rollback to something that does not work is undone too. A system that must not be
    switched to live is made the boot default instead. See RV(outcome).
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.activation
  - flotilla.nixos.activation.owner
  - flotilla.nixos.activation.ignored
  - flotilla.nixos.activation.times
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
    details: With O(to=previous) too. A host that went back already stays where it is until something is activated on it again.
options:
  to:
    description:
      - A store path, a generation's number, or V(previous).
      - V(previous) is the newest generation before the profile's that has another system, but for systems that a rollback left
        and that were not activated since. If an activation waits for its confirmation, it is the system before that.
      - If the host went back already, by this module or by its guard, and nothing was activated since, V(previous) does
        nothing, and C(msg) and a warning say so. Name a system or a generation to go further back.
      - A generation that exists becomes the profile's again; no new one is made.
    type: str
  reason:
    description: Why, for the host's record.
    type: str
    default: it was asked for
seealso:
  - module: flotilla.nixos.system_activate
"""

EXAMPLES = r"""
- name: Take back what waits for its confirmation
  flotilla.nixos.system_rollback:

- name: Go back to the generation before
  flotilla.nixos.system_rollback:
    to: previous
"""

RETURN = r"""
outcome:
  description:
    - V(rolled_back), the host runs RV(system); V(unchanged), there was nothing to do; V(staged_for_boot), the next boot brings
      it;
      V(would_activate), in check mode; V(failed) or V(lost), see C(msg).
  type: str
  returned: when the host was asked
  sample: rolled_back
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
