# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The hosts that get everything first";

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
        canary1 = host "canary1";
      };
    };
}
