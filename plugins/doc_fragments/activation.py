# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of what the modules that change a target have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """The target's needs, and options that several modules take."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - NixOS on the host, booted with systemd; no Python
  - root on the host, by C(ansible_user) or C(become)
notes:
  - The work is done by one POSIX shell script that is sent over Ansible's connection; what must outlive the connection runs on
    the host in transient systemd units whose names begin with C(flotilla-). Its state lies in C(/run/flotilla) there.
  - The host must be reached with a key or an agent, because the proof that a new connection works needs one of its own.
  - A lost connection is a failure with C(unreachable=true) in the result, not Ansible's own unreachable, so that C(rescue) works.
  - Set C(-o ServerAliveInterval=15 -o ServerAliveCountMax=4) in C(ssh_args), so that a link that was cut is noticed early.
    Without it,
    it is noticed by the time limits of this module's own.
"""

    # Who acts.
    OWNER = r"""
options:
  owner:
    description:
      - Who acts. Others who find the host taken are told this.
      - Without it, the user, machine and process that Ansible runs as, or AWX's user and job.
    type: str
"""

    # Which failures of units are allowed.
    IGNORED = r"""
options:
  ignored_units:
    description:
      - Units that may fail. They are named in a warning.
      - Units that failed before already never count.
    type: list
    elements: str
    default: []
"""

    # The user's checks.
    HEALTH = r"""
options:
  settle:
    description:
      - Seconds since the activation for which no unit may fail before the system is made permanent.
      - A unit that starts and dies a moment later is seen only by waiting for it.
    type: int
    default: 0
  health_checks:
    description:
      - Checks that must pass before the system is made permanent, in their order. If one does not, the host goes back.
      - They must pass before the deadline of the host's guard. See O(flotilla.nixos.system_activate#module:confirm_timeout).
    type: list
    elements: dict
    default: []
    suboptions:
      command:
        description: A shell command that is run on the host as root, and must end with status 0.
        type: str
      url:
        description: An C(http) or C(https) URL that the controller gets.
        type: str
      status:
        description: The statuses that are right for O(health_checks[].url).
        type: list
        elements: int
        default: [200]
      port:
        description: A TCP port that the controller connects to.
        type: int
      host:
        description: The address for O(health_checks[].port), if it is not the host's own.
        type: str
      retries:
        description: How many more times to try.
        type: int
        default: 5
      delay:
        description: Seconds between tries.
        type: float
        default: 2.0
      timeout:
        description: Seconds for one try.
        type: float
        default: 10.0
"""

    # The time limits of an activation.
    TIMES = r"""
options:
  activation_timeout:
    description: Seconds that C(switch-to-configuration) may take. Longer, and the host goes back.
    type: int
    default: 600
  confirm_timeout:
    description:
      - Seconds from the end of the activation within which it must be confirmed. If it is not, the host goes back by itself.
      - Health checks, and everything else that stands between M(flotilla.nixos.system_activate) and
        M(flotilla.nixos.system_confirm), take their time from this.
      - The guard's deadline is O(activation_timeout) and this together, from the start. It is drawn in when the activation is
        done.
    type: int
    default: 300
"""
