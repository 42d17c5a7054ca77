# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The single-board computers";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      host =
        name: modules:
        nixpkgs.lib.nixosSystem {
          system = "x86_64-linux";
          specialArgs = { inherit self; };
          modules = [
            ../../modules/base.nix
            { networking.hostName = name; }
          ]
          ++ modules;
        };
    in
    {
      nixosConfigurations = {
        pi-1 = host "pi-1" [ ../../modules/sensor.nix ];
        pi-2 = host "pi-2" [ ../../modules/sensor.nix ];
        pi-3 = host "pi-3" [ ../../modules/sensor.nix ];
      };
    };
}
