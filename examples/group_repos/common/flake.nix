# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "What all groups share. It has no inputs: each group brings its own nixpkgs";

  outputs = _: {
    nixosModules.base = ./modules/base.nix;
  };
}
