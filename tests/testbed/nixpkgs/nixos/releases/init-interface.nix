# SPDX-License-Identifier: GPL-3.0-or-later
# A new interface between init and the system: switch-to-configuration answers 100.
{ ... }:
{
  system.initInterfaceVersion = 3;
}
