# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.system_activate, which is an action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: system_activate
short_description: Activate a NixOS system under a guard that takes the host back
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Activates a system that is in the host's store, in such a way that at every moment, whatever is cut (the link, sshd, the
    power,
    the controller), the host is on its old system or on one that was reached over a fresh connection, and a power
    cycle boots one that was proven.
  - First it looks whether the system can be activated at all (platform, validity, room in C(/boot), another switch or
    transaction, the new system's own pre-switch checks). Nothing is changed before all of that is right.
  - Then it arms a guard, a transient unit on the host that knows the system that runs now and a deadline, and runs
    C(switch-to-configuration test) in another unit, so that it does not end with the connection. The profile and the
    boot loader are not touched.
  - The activation is good if C(switch-to-configuration) says so, no unit fails that did not fail before, and the controller
    can log in
    over a fresh connection and finds the new system there. If it is not, the host goes back at once.
  - It must then be confirmed with M(flotilla.nixos.system_confirm), or with O(confirm) in the same task. If it is not
    confirmed before
    the deadline, or the controller dies, or cannot reach the host any more, the host goes back by itself. If it cannot go
    back, or the
    network and the ssh port that the controller used do not come back with the old system, it restarts into its boot default.
  - A system whose pre-switch check names switch inhibitors, or whose init interface differs, is not activated at all.
    See O(on_inhibitor).
  - A host that is taken by another activation is left alone. Where that is one of the same system by the same O(owner), or
    by the same user's earlier run on the same machine that is over for certain, it is taken up again, with a new
    O(confirm_timeout), so that a rollout that was cut off can be run again.
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.activation
  - flotilla.nixos.activation.owner
  - flotilla.nixos.activation.ignored
  - flotilla.nixos.activation.health
  - flotilla.nixos.activation.times
attributes:
  check_mode:
    support: full
    details: Runs the new system's C(dry-activate) if it is on the host, and says what would be done. Changes nothing.
  diff_mode:
    support: full
    details: The systems, and the units that are touched.
  idempotent:
    support: full
options:
  system:
    description: The system, a store path that is on the host. See M(flotilla.nixos.closure_copy).
    type: str
    required: true
  goal:
    description:
      - V(switch) activates it, to be made permanent by the confirmation.
      - V(test) activates it, and the confirmation only ends the guard. The next boot brings the old system.
      - V(boot) makes it the profile's system and the boot default without activating it. There is no guard then, as nothing
        runs that could be proven. M(flotilla.nixos.system_reboot) brings it.
      - V(dry-activate) only says what would be done.
    type: str
    choices: [switch, boot, test, dry-activate]
    default: switch
  on_inhibitor:
    description:
      - What to do with a system that must not be switched to live.
      - V(report) leaves the host as it is, with RV(outcome=inhibited). V(boot) does what O(goal=boot) does.
    type: str
    choices: [report, boot]
    default: report
  last_resort:
    description:
      - What the host does if it cannot go back, or is back but its link or sshd's port stays shut.
      - V(reboot) restarts it into its boot default, which was not touched. V(stay) leaves it as it is, for hosts that do not come
        up by themselves, for example because somebody must type the password of their disk.
    type: str
    choices: [reboot, stay]
    default: reboot
  confirm:
    description: Confirm it in the same task, after O(health_checks), as M(flotilla.nixos.system_confirm) would.
    type: bool
    default: false
  force:
    description: Activate it even if it runs already.
    type: bool
    default: false
seealso:
  - module: flotilla.nixos.system_confirm
  - module: flotilla.nixos.system_rollback
  - module: flotilla.nixos.system_reboot
"""

EXAMPLES = r"""
- name: Activate the new system, to be confirmed by a later task
  flotilla.nixos.system_activate:
    system: /nix/store/h4bcz1xlm6vqs5kq8jpfrh0lmjcnv5lc-nixos-system-pi-1-25.05
    confirm_timeout: 900
  register: activation

- name: Activate the new system, check it, and keep it
  flotilla.nixos.system_activate:
    system: /nix/store/h4bcz1xlm6vqs5kq8jpfrh0lmjcnv5lc-nixos-system-web-1-25.05
    confirm: true
    on_inhibitor: boot
    ignored_units: [motd.service]
    health_checks:
      - command: systemctl is-active nginx
      - url: http://web-1.example.org/health
        retries: 10
"""

RETURN = r"""
outcome:
  description:
    - How it ended.
    - V(unchanged), all was right already; V(activated), the new system runs, was reached over a fresh connection, and waits
      for the
      confirmation; V(confirmed), it is permanent; V(staged_for_boot), the next boot brings it.
    - V(would_activate), in check mode and for a dry run.
    - V(inhibited), nothing was changed, because this system must not be switched to live; V(refused), nothing was changed,
      because
      something else was in the way at the last moment.
    - V(rolled_back), the host runs its old system again; V(failed), it could not go back, see C(msg); V(lost), it does
      not answer, and its guard takes it back.
  type: str
  returned: when the host was asked
  sample: activated
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
