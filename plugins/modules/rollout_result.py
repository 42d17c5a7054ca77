# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.rollout_result, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_result
short_description: Write down what became of a run, for whatever started it
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Writes a file of JSON on the controller. Part of the role P(flotilla.nixos.rollout#role), for runs from cron, a systemd
    timer or a scheduler of its own; C(flotilla_result_file) names the file.
  - It is written as a whole, so that a reader never sees half of it. It has C(version), which is 1; C(status); C(id) and
    C(started) of the run, and C(ended) when it has; C(check_mode); C(reason) where it was refused, or failed before any host
    was touched.
  - At the end of a rollout it also has C(groups), each with C(commit), C(candidate), C(branch), C(halted), C(reason) and
    C(landing); C(hosts), each with C(group), C(outcome) (as M(flotilla.nixos.rollout_report) says it), C(reason), C(system)
    and C(previous); and C(failed), the hosts for which the run has failed, with the reason.
  - A run that was killed leaves V(running).
options:
  file:
    description: The file. Its directory has to be there.
    type: path
    required: true
  status:
    description: How the run stands.
    type: str
    choices: [running, refused, ok, failed]
    required: true
  rollout:
    description: The run, as RV(flotilla.nixos.rollout_scope#module:rollout) says it.
    type: dict
  reason:
    description: Why it failed or was refused.
    type: str
    default: ""
  groups:
    description: What became of the update groups.
    type: dict
    default: {}
attributes:
  check_mode:
    description: The file is written, too, and says that it is of a check.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
extends_documentation_fragment:
  - flotilla.nixos.attributes.actiongroup
seealso:
  - module: flotilla.nixos.rollout_report
"""

EXAMPLES = r"""
- name: Say that the update failed
  flotilla.nixos.rollout_result:
    file: /var/lib/flotilla/sbcs.json
    status: failed
    reason: "sbcs: the candidate does not build"
  run_once: true
"""

RETURN = r"""
msg:
  description: Why the file cannot be written.
  returned: failure
  type: str
"""
