# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_ledger_info, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_ledger_info
short_description: Read what update groups have proven, and who is late
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Reads the ledger of rollouts that M(flotilla.nixos.flake_ledger) keeps in the repository, on the machine that the task is
    for or is delegated to (the builder).
  - Says for each update group what is known-good and since when, what is still soaking, which hosts are late, and how the last
    rollouts went. C(git log --notes=flotilla) shows the same lines.
  - Needs git 2.38 or newer on the builder. No Python is needed there.
options:
  last:
    description: How many rollouts of each group to return.
    type: int
    default: 10
  running:
    description:
      - The systems that hosts run now, by host. RV(groups) then says of each from which rollout of its group that came, and
        whether the group's C(commit) (without one, the head of its branch) is older.
      - Without it, what each host ran at the end of its last rollout.
    type: dict
  continue_on_error:
    description: Do not fail the task when a repository cannot be read. What failed is in RV(groups).
    type: bool
    default: false
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.attributes.info_module
  - flotilla.nixos.groups
seealso:
  - module: flotilla.nixos.flake_ledger
"""

EXAMPLES = r"""
- name: Read the ledger
  flotilla.nixos.flake_ledger_info:
    groups:
      - name: sbcs
        repo: /srv/fleet
  delegate_to: localhost
  run_once: true
  register: ledger

- name: Say who is late
  ansible.builtin.debug:
    msg: "{{ ledger.groups.sbcs.deferred | map(attribute='host') | join(', ') }}"

- name: Say what is known-good
  ansible.builtin.debug:
    msg: "{{ ledger.groups.sbcs.known_good.commit | default('nothing yet') }}"
"""

RETURN = r"""
groups:
  description: What the ledger says of each update group, by name.
  returned: success
  type: dict
  contains:
    failed:
      description: Whether its ledger could not be read; see O(continue_on_error).
      type: bool
    msg:
      description: Why, and what to do.
      returned: when it failed
      type: str
    known_good:
      description: What the group last proved, with its soak over; null if there is nothing.
      type: dict
      contains:
        commit:
          description: The commit. C(refs/flotilla/known-good/GROUP) names it once it is settled.
          type: str
        proven:
          description: When all hosts that were reached ran it and had confirmed it.
          type: str
          sample: "2026-11-20T08:00:00Z"
        since:
          description: When its soak was over.
          type: str
        soak:
          description: How long that was, in seconds.
          type: int
        systems:
          description: The systems that its hosts were seen to run.
          type: dict
    known_good_ref:
      description: The commit that C(refs/flotilla/known-good/GROUP) names now; null if there is no such ref.
      type: str
    soaking:
      description: What the group runs well, but not for long enough yet, like C(known_good). Its C(since) is to come.
      type: dict
    growing:
      description:
        - What the last good rollout has brought to some hosts of the group, while others are known to run something else; null
          if there is no such commit. C(commit), the C(systems) of these hosts, and the C(missing) hosts with the commit that they
          run (null if nobody knows).
      type: dict
    deferred:
      description:
        - The hosts that were not there in a rollout of the group, and that no rollout has brought up to date since.
        - Hosts that left the inventory stay in it.
      type: list
      elements: dict
      contains:
        host:
          description: The host.
          type: str
        since:
          description: When the first rollout began that missed it.
          type: str
        commit:
          description: The commit of the last rollout that missed it.
          type: str
        system:
          description: The system that it was to get.
          type: str
        reason:
          description: Why it was not reached.
          type: str
        missed:
          description: How many of the rollouts that are recorded have missed it.
          type: int
    hosts:
      description: What hosts run, by name; see O(running). Only those are in it of which the ledger knows.
      type: dict
      contains:
        commit:
          description: The commit that the system came from.
          type: str
        system:
          description: The system.
          type: str
        time:
          description: When that rollout ended.
          type: str
        ahead:
          description: Whether the group's commit is an ancestor of this one; null if the repository does not have this one.
          returned: with O(running)
          type: bool
    rollouts:
      description: The group's last rollouts, newest first.
      type: list
      elements: dict
      contains:
        id:
          description: The rollout. Groups that were rolled out together share it.
          type: str
        group:
          description: The update group.
          type: str
        commit:
          description: The commit that was rolled out.
          type: str
        source:
          description: V(candidate), V(head) of the branch, V(known_good), or V(worktree) with changes that no commit has.
          type: str
        goal:
          description: What was to be done on the hosts.
          type: str
        outcome:
          description:
            - V(complete) if every host that was reached runs and has confirmed its system; V(staged) if some wait
              for their next boot; V(partial) if it went on although hosts failed; V(halted); V(not_started) if it failed
              before any host was touched; V(unreached) if no host was there; V(unfinished) if it was not to make
              anything permanent; V(broken_off) if it has begun and its end is not recorded, so that it goes on still or was
              killed; V(rolled_back) if hosts were brought back on demand.
            - Only V(complete) proves a commit.
          type: str
        started:
          description: When it began.
          type: str
        ended:
          description: When it ended.
          type: str
        reason:
          description: Why it stopped; empty if it did not.
          type: str
        branch:
          description: The group's branch; null for a detached HEAD.
          type: str
        landed:
          description: The branch's head after the candidate landed; null if none did.
          type: str
        soak:
          description: The group's soak in this rollout, in seconds.
          type: int
        members:
          description: All hosts that the inventory had in the group then.
          returned: when the inventory had the group
          type: list
          elements: str
        forced:
          description: The reason that was given for going against a refusal.
          returned: if there was one
          type: str
        by:
          description: Who and from where. C(user), C(controller), and from AWX C(awx_user), C(awx_job), C(awx_template).
          type: dict
        pins:
          description: What the group's inputs were locked to. C(url), C(rev) and C(date) of each. Where hosts have locks of their
            own that differ in it, C(rev) and C(date) are null, and C(hosts) has the revision of each.
          type: dict
        hosts:
          description: Each host's C(result), C(system) to get, C(previous) system, C(time) and C(reason).
          type: dict
msg:
  description: What failed, and what to do.
  returned: failure
  type: str
"""
