# SPDX-License-Identifier: GPL-3.0-or-later
# A pre-switch check that refuses every live switch: switch-to-configuration answers 1.
{ ... }:
{
  system.preSwitchChecks.licence = ''
    echo "The licence of fleet-agent has expired."
    exit 1
  '';
}
