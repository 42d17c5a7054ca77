# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of what our modules have in common: check mode, diff mode, idempotence, the action group."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes; a module says for each only how far it supports it, and why not further."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying anything.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
"""

    # The options of an action group can be set once: module_defaults: {group/flotilla.nixos.all: {...}}.
    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/flotilla.nixos.all) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - flotilla.nixos.all
"""

    # For modules that only read.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: This module changes nothing.
  diff_mode:
    support: N/A
    details: This module changes nothing.
  idempotent:
    support: full
    details: This module changes nothing.
"""
