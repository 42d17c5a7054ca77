# SPDX-License-Identifier: GPL-3.0-or-later
# D-Bus comes from dbus-broker: a switch inhibitor, so the change wants a reboot.
{ lib, ... }:
{
  services.dbus.implementation = lib.mkDefault "broker";
}
