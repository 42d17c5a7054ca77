# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "The servers, and the boards";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { nixpkgs, ... }:
    let
      host =
        name:
        nixpkgs.lib.nixosSystem {
          modules = [
            ./modules/base.nix
            { networking.hostName = name; }
          ];
        };
    in
    {
      nixosConfigurations = {
        server1 = host "server1";
        pi1 = host "pi1";
        pi2 = host "pi2";
      };
    };
}
