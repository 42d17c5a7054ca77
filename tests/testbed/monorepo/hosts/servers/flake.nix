# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The servers";

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
        web1 = host "web1" [ ../../modules/web.nix ];
        # The attribute, the host name and the address may all differ.
        shop = host "web2" [
          ../../modules/web.nix
          ../../modules/database.nix
        ];
      };
    };
}
