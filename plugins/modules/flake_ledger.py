# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_ledger, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_ledger
short_description: Record rollouts, and let known-good follow them
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Keeps the ledger of rollouts in the fleet's git repository, on the machine that the task is for or is delegated to (the
    builder). No target is touched, and no branch, no index and no file in the work tree.
  - A rollout is one line of JSON for each update group, in the git note of the commit that was rolled out
    (C(refs/notes/flotilla)). C(git log --notes=flotilla) shows it. No line is ever lost, whoever else writes meanwhile, and
    C(git notes merge -s cat_sort_uniq) joins the notes of two controllers.
  - A rollout that found everything as the ledger has it adds no line. News are hosts that were touched, failed or held, a commit
    that the hosts were not yet seen with, a host that is late or no longer, a proof, a landing.
  - B(Known-good) is the commit that a group has proven. Every host that was reached runs and has confirmed its system, and the
    group's soak has passed since without a host of that commit failing or being rolled back. C(refs/flotilla/known-good/GROUP)
    names it. What is known-good follows from the lines alone, so that every controller that has them says the same.
  - A rollout of another commit ends a soak when it moves a host. So does one that was broken off, as nobody knows what it did,
    and a host that was brought back on demand. Late hosts that get what is known-good do not disturb the soak of the others.
  - Where a new commit has the very systems that the hosts run, the soak goes on under its name. Later failures of a commit whose
    soak is over do not take it back.
  - Rollouts of parts of a group (C(-l)) add up. Their commit is proven, and its soak begins, when the last host that the ledger
    knows to run something else has come to it. Hosts that were not reached when they were last wanted do not count, nor those
    that have moved to another group, or that the inventory no longer had in the group when it was last rolled out.
  - Work trees with changes that no commit has, and the goals V(test) and V(dry-activate), prove nothing.
  - Needs git 2.38 or newer on the builder. Where git has no identity (C(user.name) and C(user.email)), the notes are written
    in the name of C(flotilla). No Python is needed there.
options:
  state:
    description:
      - V(recorded) adds the O(rollouts) to the ledger, and then does what V(settled) does. A rollout that is there already (the
        same O(id) and group) is not added again.
      - V(begun) adds the O(rollouts), with the outcome V(broken_off). V(recorded) with the same O(id) and group puts the end in
        its place. If that never comes, the ledger says that hosts may have been touched, and that nobody knows.
      - V(settled) lets the ref of each group's known-good commit name what the ledger proves by now, for soaks that have ended
        meanwhile. Where nothing is proven, a ref that is there stays.
    type: str
    choices: [begun, recorded, settled]
    default: recorded
  rollouts:
    description: What to record, once for each group. Required with O(state=recorded) and O(state=begun).
    type: list
    elements: dict
    suboptions:
      group:
        description: The update group. It is one of O(groups).
        type: str
        required: true
      commit:
        description: The commit that was rolled out. Without one, the head of the group's branch.
        type: str
      source:
        description:
          - Whether that was a candidate, the head of the branch, what the group had proven, or the work tree with changes that no
            commit has.
        type: str
        choices: [candidate, head, known_good, worktree]
        default: head
      halted:
        description: Whether the group was stopped.
        type: bool
        default: false
      touched:
        description: Whether any host was touched. What fails before does not disturb a soak.
        type: bool
        default: true
      reason:
        description: Why it stopped.
        type: str
        default: ""
      soak:
        description: How long the group has to run well before this is known-good, in seconds or as in V(2d) or V(1h 30m).
        type: str
        default: "0"
      branch:
        description: The group's branch. Without one, that of O(groups).
        type: str
      landed:
        description: The branch's head after the candidate landed.
        type: str
      rollback:
        description:
          - Whether nothing was rolled out, and hosts were brought back on demand instead. Their C(system) is the one that they
            have left then, and C(previous) the one that they run again.
          - Without a O(rollouts[].commit), it is recorded on the commit that the ledger knows what they have left by.
        type: bool
        default: false
      hosts:
        description: The hosts that the rollout was for.
        type: list
        elements: dict
        required: true
        suboptions:
          name:
            description: The host.
            type: str
            required: true
          result:
            description: What became of it, as M(flotilla.nixos.rollout_report) says it.
            type: str
            choices: [unchanged, updated, rebooted, staged, planned, copied, rolled_back, failed, held, deferred]
            required: true
          system:
            description: The system that it was to get.
            type: str
          previous:
            description: The system that it ran before.
            type: str
          time:
            description: When that came out, in Unix seconds. Without it, the end of the rollout.
            type: int
          reason:
            description: Why, where there is something to say.
            type: str
            default: ""
  id:
    description: A word that no other rollout has. Required with O(state=recorded) and O(state=begun).
    type: str
  goal:
    description: What was to be done on the hosts.
    type: str
    choices: [switch, boot, test, dry-activate]
    default: switch
  started:
    description: When the rollout began, in Unix seconds. Without it, when it ended.
    type: int
  ended:
    description: When it ended, in Unix seconds. Without it, now.
    type: int
  forced:
    description: The reason that was given for going against a refusal, if any.
    type: str
    default: ""
  sync:
    description:
      - Exchange the ledger with the remote that the group's branch is pushed to. Fetch its notes, merge them with ours, and push
        what comes of it. Not done in check mode.
      - Known-good refs that have moved are pushed, too, so that a commit that never landed can be fetched elsewhere.
      - In a clone of M(flotilla.nixos.flake_clone), what is V(recorded) is always exchanged.
      - The lines are recorded here even if that fails.
    type: bool
    default: false
  continue_on_error:
    description:
      - Do not fail the task when a repository could not be written, but warn. What failed is in RV(groups).
      - With O(state=settled), a remote that cannot be reached is a warning, too, and what is known here counts.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the rollouts that are added, and the commit that is known-good before and after.
  idempotent:
    support: full
    details: Unless a soak ends in between, or others have written to the remote.
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.groups
seealso:
  - module: flotilla.nixos.flake_ledger_info
  - module: flotilla.nixos.flake_lock
"""

EXAMPLES = r"""
- name: Record a rollout of the update group sbcs
  flotilla.nixos.flake_ledger:
    groups:
      - name: sbcs
        repo: /srv/fleet
    id: nightly-2026-11-20
    rollouts:
      - group: sbcs
        commit: 9a5b7d4c6e1f2a3b4c5d6e7f8091a2b3c4d5e6f7
        source: candidate
        soak: 2d
        hosts:
          - name: pi-1
            result: updated
            system: /nix/store/1l7wpk2mlvhahanzk1fv6zb9ff6ji8q7-nixos-system-pi-1-26.11
          - name: pi-2
            result: deferred
            reason: no route to host
  delegate_to: localhost
  run_once: true

- name: Let known-good follow soaks that have ended
  flotilla.nixos.flake_ledger:
    groups:
      - name: sbcs
        repo: /srv/fleet
    state: settled
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changed:
  description: Whether a line was added, here or from the remote, or a known-good ref moved.
  returned: always
  type: bool
groups:
  description: What became of each update group, and what the ledger says of it now, by name.
  returned: when the options could be used
  type: dict
  contains:
    changed:
      description: Whether its rollout was added, its known-good moved, or the remote had lines that we had not.
      type: bool
    failed:
      description: Whether its repository could not be written.
      type: bool
    msg:
      description: Why, and what to do.
      returned: when it failed
      type: str
    recorded:
      description: Whether its rollout was added.
      type: bool
    warnings:
      description: Why known-good could not move, where it should have, or why the remote did not take it.
      type: list
      elements: str
    known_good:
      description: What the group last proved, with its soak over; null if there is nothing.
      type: dict
      contains:
        commit:
          description: The commit. What C(refs/flotilla/known-good/GROUP) names with O(state=settled).
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
    rollouts:
      description: The group's last rollout.
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
          description: What the group's inputs were locked to. C(url), C(rev) and C(date) of each.
          type: dict
        hosts:
          description: Each host's C(result), C(system) to get, C(previous) system, C(time) and C(reason).
          type: dict
msg:
  description: What failed, naming the groups.
  returned: when it failed
  type: str
"""
