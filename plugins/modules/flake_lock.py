# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.flake_lock, whose work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flake_lock
short_description: Update, promote or restore the locked inputs of update groups as a transaction
version_added: 0.1.0
author: The Flotilla authors (!UNKNOWN)
description:
  - Moves the inputs of one or more update groups, on the machine that the task is for or is delegated to (the builder).
    No target is touched.
  - An update is a transaction. O(state=updated) makes a B(candidate), a commit on top of the group's branch that changes the
    group's lock and nothing else. No branch holds it yet. The ref C(refs/flotilla/candidate/GROUP) names it, so that it can be
    built and deployed by its revision. When the hosts have proven it, O(state=accepted) brings the branch to it.
    Otherwise O(state=discarded) drops it, and the branch never knew.
  - O(state=promoted) and O(state=restored) make candidates too, with pins that were proven before. They ask no upstream for
    anything new. At most, nix fetches the pinned source of an input that lets its own inputs follow one another.
  - Before O(state=accepted), no branch, no index and no file in the work tree is changed.
  - Inputs are locked from the branch's last commit. Uncommitted and untracked files are not part of it. They are named in
    warnings.
  - An input's upstream is asked once for all groups of the task, so that the groups get the same revisions.
  - Where each host has a lock of its own (C({host}) in O(groups[].lock)), a group's candidate is still one commit. It changes the
    locks of the hosts in O(groups[].hosts) and of no others. A host that has no lock yet gets one.
  - Only the inputs that were asked for may move. A lock file in which anything else would change is an error, as are unknown
    inputs, and an upstream that did not answer where nix goes on with an older answer.
  - Needs nix 2.26 or newer and git 2.38 or newer on the builder, and an identity for commits (C(user.name) and C(user.email)).
    Flakes need not be switched on there. No Python is needed there.
options:
  state:
    description:
      - V(updated) makes a candidate of each group. A candidate left over from an earlier run is replaced. Where there is nothing
        to update, there is no candidate afterwards, and the RV(groups) to deploy is the branch's head.
      - V(promoted) makes a candidate of each group with the pins of another group, the O(source). Inputs that only the group has
        keep their pins. What is below a promoted input comes along. Only where the group's own C(flake.nix) lets something there
        follow another input, it goes on to do so.
      - Where both groups have the same flake and lock on different branches of one repository, V(promoted) is a merge of the
        source's commit into the group's branch, or that commit itself where the branch is behind it. The lock is then the
        source's, and only inputs that the group alone has keep their pins. Any other conflict is an error. With O(inputs) or a
        O(mapping), and where the branch has that commit already, only pins are promoted.
      - V(restored) makes a candidate of each group with the pins that its lock had at a commit, see O(to). Inputs that
        C(flake.nix) has gained since keep the pins that they have, and a warning names them. A lock that cannot be read, such as
        one that was committed with a conflict in it, is replaced. Where hosts have locks of their own, each gets its own
        back, and one that had none then keeps what it has.
      - V(promoted) and V(restored) need the same C(flake.nix) on both sides as far as these inputs go, as nix would otherwise
        lock to the newest revisions. Inputs that do not fit are an error that names them. O(inputs) leaves them out.
      - V(accepted) brings the branch to the candidate. Where the branch has moved meanwhile, both are merged, so that the
        revision that hosts report stays in the history. A branch that is checked out takes its work tree along, and this is
        refused while the lock has uncommitted changes there. Without a candidate nothing is done.
      - With V(accepted) and V(discarded), a O(groups[].commit) says which candidate. Without it, the one that was made last. With
        the other states it means nothing.
      - V(discarded) drops the candidate. Without a candidate nothing is done.
    type: str
    choices: [updated, promoted, restored, accepted, discarded]
    default: updated
  source:
    description:
      - With O(state=promoted), the update group whose pins are taken. Its repository may be another one on the same machine.
      - Its O(source.commit) says as of when. V(known-good) is the commit that its hosts have last proven, which the ref
        C(refs/flotilla/known-good/GROUP) names. Without one, the head of its branch.
      - Its O(source.strategy), O(source.inputs) and O(source.hosts) say no more than where its lock is. Where its hosts have
        locks of their own, these have to agree on what is promoted.
    type: dict
    suboptions: &group
      name:
        description: The update group's name.
        type: str
        required: true
      repo:
        description: The git repository with the group's flake on the builder, a work tree or a bare repository.
        type: path
        required: true
      remote:
        description: The URL that the repository is a clone of; see M(flotilla.nixos.flake_clone).
        type: str
      strategy:
        description: Where the group's lock lives. Gives the defaults of the fields below.
        type: str
        choices: [group_flakes, group_repos, group_inputs, channel_inputs, stage_flakes, group_branches, host_locks]
        default: group_flakes
      branch:
        description: The branch that is deployed. Without one, the branch that is checked out.
        type: str
      flake:
        description: The directory of the group's C(flake.nix) in the repository.
        type: str
      lock:
        description: The path of the group's lock in the repository. C({host}) stands for each host's name, C({group}) for the
          group's.
        type: str
      inputs:
        description: The inputs of the flake that an update may move.
        type: list
        elements: str
      holds:
        description:
          - What is to stay where it is. It is not among the inputs that an update or a promotion moves, and naming it is an
            error, unless a reason is given; see O(flotilla.nixos.flake_lock#module:force_reason).
          - An entry whose day has passed holds no more, and is warned of.
        type: list
        elements: dict
        default: []
        suboptions:
          input:
            description: The input, or the path to a nested one. Without it, the whole group.
            type: str
          reason:
            description: Why. There has to be one.
            type: str
          until:
            description: The last day in UTC, as in V(2026-12-24). There has to be one.
            type: str
      commit:
        description: The commit whose lock is taken, or V(known-good). Without one, the head of the branch.
        type: str
      hosts:
        description: The group's hosts.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The host's name in the inventory.
            type: str
            required: true
          attribute:
            description: The host's attribute in the flake's C(nixosConfigurations). Without one, its name.
            type: str
  others:
    description:
      - The fleet's other update groups. What is in O(groups), too, is passed over.
      - A candidate that would move an input which one of these has as well, because it has its pins in the same lock file of the
        same branch, is an error that names inputs and groups, unless O(allow_shared_inputs=true).
      - A group has the inputs of its O(others[].inputs), or all, and what these follow. Groups of one task agree with each
        other.
    type: list
    elements: dict
    default: []
    suboptions: *group
  allow_shared_inputs:
    description: Move inputs of the O(others), too. RV(groups) says which.
    type: bool
    default: false
  force_reason:
    description:
      - Why an input that is held (O(groups[].holds)) may move although it is, if it is named in O(inputs), O(pins) or O(mapping).
      - And why O(state=promoted) may move the one group that it is for, which is held as a whole.
      - O(state=restored) needs no reason. It goes back with what is held, too, and warns of it.
    type: str
  mapping:
    description:
      - With O(state=promoted), which input of the source stands for which of the group, where their names differ. Keys are
        inputs of the source, values those of the group.
      - Other inputs are taken by their names. But where both groups have their pins in one lock, only those of the mapping move.
        Without one, inputs stand for each other whose names differ as those of the groups do (C(nixpkgs-canary) and
        C(nixpkgs-stable)), or the only input of the one for the only input of the other (O(groups[].inputs)).
    type: dict
  to:
    description:
      - With O(state=restored), the commit whose lock is taken, as git takes it (V(3f9c2a1), V(HEAD~2), a tag). V(known-good)
        is the commit that the group's hosts have last proven.
    type: str
  inputs:
    description:
      - With O(state=updated), O(state=promoted) and O(state=restored), move only these inputs of the flake. A nested one is
        named by its path, such as V(home-manager/nixpkgs).
      - With O(state=promoted) and O(state=restored), without it, all that both locks have and the group may move. An empty
        list is an error.
      - With O(state=updated), without it, all that the group may move (O(groups[].inputs)), or, if there are O(pins), only those.
      - With O(state=updated), V(*) stands for all that the group may move, with O(pins) too.
    type: list
    elements: str
  pins:
    description:
      - With O(state=updated), put inputs at given revisions. Keys are inputs, values revisions (all 40 digits), branches or tags
        of the input's own repository, or whole flake references.
      - A pin lasts until the next update of that input. What C(flake.nix) says is not changed.
    type: dict
  push:
    description:
      - With O(state=accepted), push the branch too, to where C(git push) would. It is pushed before the branch is moved here,
        so that a refused push leaves it as it was.
      - Commits of the branch that were not pushed before go along.
    type: bool
    default: false
  allow_dirty:
    description:
      - With the states that make candidates, go on although the group's lock has uncommitted changes in the work tree. They
        are not part of the candidate, and it cannot be accepted while they are there.
    type: bool
    default: false
  continue_on_error:
    description:
      - Do not fail the task when a group failed, and go on with the others. What failed is in RV(groups).
      - Without it, candidates are made of all groups or of none.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    details:
      - The lock is made and checked and the commit is made, so that it can be built. But no ref names it, and git's garbage
        collection takes it.
  diff_mode:
    support: full
    details: With the states that make candidates, shows the pins of each group before and after.
  idempotent:
    support: full
    details: With O(state=updated), as long as no upstream has moved. A candidate that would be the same again is kept.
extends_documentation_fragment:
  - flotilla.nixos.attributes
  - flotilla.nixos.attributes.actiongroup
  - flotilla.nixos.groups
seealso:
  - module: flotilla.nixos.flake_info
  - module: flotilla.nixos.flake_build
"""

EXAMPLES = r"""
- name: Lock the newest inputs for the update group sbcs, as a candidate
  flotilla.nixos.flake_lock:
    groups:
      - name: sbcs
        repo: /srv/fleet
  delegate_to: localhost
  run_once: true
  register: locked

- name: Say what moved
  ansible.builtin.debug:
    msg: "{{ locked.groups.sbcs.message }}"

# ... build and deploy locked.groups.sbcs.commit here ...

- name: Bring the branch to what the hosts have proven, and push it
  flotilla.nixos.flake_lock:
    groups:
      - name: sbcs
        repo: /srv/fleet
        commit: "{{ locked.groups.sbcs.commit }}"
    state: accepted
    push: true
  delegate_to: localhost
  run_once: true

- name: Drop a candidate
  flotilla.nixos.flake_lock:
    groups:
      - name: sbcs
        repo: /srv/fleet
    state: discarded
  delegate_to: localhost
  run_once: true

- name: Update one input of two groups that share a flake, each with its own lock
  flotilla.nixos.flake_lock:
    groups:
      - name: canary
        repo: /srv/fleet
        strategy: host_locks
        lock: locks/{group}.lock
      - name: stable
        repo: /srv/fleet
        strategy: host_locks
        lock: locks/{group}.lock
    inputs:
      - nixpkgs

- name: Update two hosts that have a lock each, locks/pi-1.lock and locks/pi-2.lock, and none of their neighbours
  flotilla.nixos.flake_lock:
    groups:
      - name: sbcs
        repo: /srv/fleet
        strategy: host_locks
        hosts:
          - name: pi-1
          - name: pi-2

- name: Give stable the pins that canary has proven
  flotilla.nixos.flake_lock:
    groups:
      - name: stable
        repo: /srv/fleet
    state: promoted
    source:
      name: canary
      repo: /srv/fleet
      commit: known-good

- name: Do the same where both have inputs of their own in one flake
  flotilla.nixos.flake_lock:
    groups:
      - name: stable
        repo: /srv/fleet
        strategy: group_inputs
        inputs: [nixpkgs-stable, home-manager-stable]
    state: promoted
    source:
      name: canary
      repo: /srv/fleet
      strategy: group_inputs
    mapping:
      nixpkgs-canary: nixpkgs-stable
      home-manager-canary: home-manager-stable

- name: Go back to the pins of three commits ago
  flotilla.nixos.flake_lock:
    groups:
      - name: sbcs
        repo: /srv/fleet
    state: restored
    to: HEAD~3

- name: Put one input at a revision
  flotilla.nixos.flake_lock:
    groups:
      - name: servers
        repo: /srv/fleet
    pins:
      nixpkgs: 9a5b7d4c6e1f2a3b4c5d6e7f8091a2b3c4d5e6f7
"""

RETURN = r"""
changed:
  description: Whether a candidate was made, replaced or dropped, or a branch moved.
  returned: always
  type: bool
groups:
  description: What became of each update group, by name.
  returned: when the options could be used
  type: dict
  contains:
    changed:
      description: Whether the group's candidate or its branch changed.
      type: bool
    failed:
      description: Whether the group failed. Then its branch is as it was.
      type: bool
    msg:
      description: Why, and what to do.
      returned: when the group failed
      type: str
    commit:
      description:
        - With the states that make candidates, the commit to deploy, which is the candidate, or the branch's head where the lock
          is right already.
        - Otherwise the head of the branch now.
      type: str
    base:
      description: The head of the branch before.
      type: str
    candidate:
      description: The candidate that was made, accepted or discarded; null where there was none.
      type: str
    branch:
      description: The branch; null for a detached HEAD.
      type: str
    lock:
      description: The path of the lock in the repository, with C({host}) in it where each host has its own.
      type: str
      sample: hosts/sbcs/flake.lock
    locks:
      description: The paths of the lock files that the candidate changes, with the states that make candidates.
      type: list
      elements: str
    changes:
      description: The inputs that moved, with the states that make candidates. The flake's own come first.
      type: list
      elements: dict
      contains:
        input:
          description: The input, or the path to a nested one.
          type: str
          sample: nixpkgs
        hosts:
          description: The hosts for which it moves so, where each has its own lock and it is not the same for all; else empty.
          type: list
          elements: str
        old:
          description: What it was locked to; null if it is new.
          type: dict
          contains: &pin
            url:
              description: The flake reference without a revision.
              type: str
              sample: github:NixOS/nixpkgs
            ref:
              description: The branch or tag that it follows; null if there is none.
              type: str
            rev:
              description: The revision; null for inputs that have none.
              type: str
            lastModified:
              description: The time of the revision, in Unix seconds.
              type: int
            narHash:
              description: The hash of the source.
              type: str
        new:
          description: What it is locked to now; null if it is gone.
          type: dict
          contains: *pin
        compare:
          description: A web page that shows what lies between, for inputs from GitHub, GitLab and SourceHut; otherwise null.
          type: str
    message:
      description: The subject of the candidate's commit.
      type: str
      sample: "sbcs: nixpkgs 2026-11-02 → 2026-11-20"
    warnings:
      description:
        - Files that are not committed and so not part of the update, inputs that no update can move, and what could not be
          promoted or restored to the letter.
      type: list
      elements: str
    notes:
      description: What else to know of the candidate, such as for which groups it moves inputs, too.
      type: list
      elements: str
      sample: ["nixpkgs-unstable also moves for desktops, whose hosts get it at their next rollout"]
    opened:
      description: What is held and moves all the same, after the reason that O(force_reason) gave for it.
      type: list
      elements: str
    shared:
      description: The inputs that the candidate moves for groups of O(others), by group.
      type: dict
      sample: {desktops: [nixpkgs-unstable]}
    merged:
      description: Whether the branch had moved, so that the candidate was merged.
      returned: with O(state=accepted) and O(state=discarded)
      type: bool
    pushed:
      description: Whether the branch was pushed.
      returned: with O(state=accepted) and O(state=discarded)
      type: bool
msg:
  description: What failed, naming the groups.
  returned: when it failed
  type: str
"""
