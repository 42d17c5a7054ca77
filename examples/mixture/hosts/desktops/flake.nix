# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The desktops";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations.desk1 = nixpkgs.lib.nixosSystem {
        modules = [
          ../../modules/base.nix
          { networking.hostName = "desk1"; }
        ];
      };
    };
}
