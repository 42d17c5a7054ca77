# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of flotilla.nixos.closure_copy, which is an action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: closure_copy
short_description: Copy a built NixOS system to a host
"""
