# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "What hosts are there for";

  outputs = _: {
    nixosModules.sensor = ./sensor.nix;
  };
}
