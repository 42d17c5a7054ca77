# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The hosts that come second";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  # A flake of this repository. It has no pins of its own, and is always the one of the same commit.
  inputs.profiles.url = "path:../../profiles";

  outputs =
    { nixpkgs, profiles, ... }:
    let
      host =
        name:
        nixpkgs.lib.nixosSystem {
          modules = [
            ../../modules/base.nix
            profiles.nixosModules.sensor
            { networking.hostName = name; }
          ];
        };
    in
    {
      nixosConfigurations = {
        early1 = host "early1";
      };
    };
}
