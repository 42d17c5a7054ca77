# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The hosts that get what has proven itself";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.common.url = "git+ssh://git@git.example.org/fleet/common.git?ref=main";

  outputs =
    { nixpkgs, common, ... }:
    let
      host =
        name:
        nixpkgs.lib.nixosSystem {
          modules = [
            common.nixosModules.base
            { networking.hostName = name; }
          ];
        };
    in
    {
      nixosConfigurations = {
        stable1 = host "stable1";
        stable2 = host "stable2";
      };
    };
}
