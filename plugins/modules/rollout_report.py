# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_report, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_report
short_description: Say how a rollout went
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Shows what became of every host and of every update group's candidate. Part of the role P(flotilla.nixos.rollout#role).
  - Never fails itself. RV(bad) names the hosts for which the run has to.
  - Runs on the controller and touches nothing. Use it with C(run_once).
options:
  plan:
    description: The plan, as RV(flotilla.nixos.rollout_plan#module:plan) gives it.
    type: dict
    required: true
  verdict:
    description: The result of M(flotilla.nixos.rollout_gate) at the end.
    type: dict
    required: true
  accepted:
    description: The result of M(flotilla.nixos.flake_lock) with C(state=accepted).
    type: dict
    default: {}
  discarded:
    description: The result of M(flotilla.nixos.flake_lock) with C(state=discarded).
    type: dict
    default: {}
  rollout:
    description: What M(flotilla.nixos.rollout_scope) has found, RV(flotilla.nixos.rollout_scope#module:rollout).
    type: dict
  result_file:
    description: A file on the controller to write the outcome to, see M(flotilla.nixos.rollout_result).
    type: path
attributes:
  check_mode:
    description: It changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: flotilla.nixos.rollout_gate
"""

EXAMPLES = r"""
- name: Say how it went
  flotilla.nixos.rollout_report:
    plan: "{{ planned.plan }}"
    verdict: "{{ verdict }}"
    accepted: "{{ accepted }}"
  run_once: true
  register: report
"""

RETURN = r"""
hosts:
  description: Every host's outcome and the reason for it.
  returned: success
  type: dict
  contains:
    outcome:
      description:
        - V(unchanged), V(updated), V(rebooted), or V(staged) for the next boot;
          V(planned) or V(copied) where the run ends before.
        - V(rolled_back) or V(failed); V(held) because its group halted; V(deferred) because it could not be reached.
      type: str
    reason:
      description: Why, where there is something to say.
      type: str
groups:
  description: What became of each group's candidate, in words.
  returned: success
  type: dict
bad:
  description: The hosts for which the run has failed, with the reason. Deferred hosts are not among them.
  returned: success
  type: dict
conclusion:
  description: The same, for the callback P(flotilla.nixos.rollout#callback), which shows it after the recap if it is enabled.
  returned: success
  type: dict
rollouts:
  description: What M(flotilla.nixos.flake_ledger) records of it, as O(flotilla.nixos.flake_ledger#module:rollouts).
  returned: success
  type: list
  elements: dict
lines:
  description: The report as it was shown.
  returned: success
  type: list
  elements: str
"""
