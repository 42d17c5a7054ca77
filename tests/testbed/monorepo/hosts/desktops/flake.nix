# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The desktops";

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
        desk1 = host "desk1" [ ../../modules/desktop.nix ];
      };
    };
}
