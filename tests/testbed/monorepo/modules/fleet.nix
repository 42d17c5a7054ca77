# SPDX-License-Identifier: GPL-3.0-or-later
# What the fleet's tools want to know of a host. No system depends on it.
{ config, lib, ... }:
{
  options.fleet.address = lib.mkOption {
    type = lib.types.nullOr lib.types.str;
    default = (builtins.fromJSON (builtins.readFile ./addresses.json)).${config.networking.hostName} or null;
    description = "The address that the host is reached at.";
  };
}
