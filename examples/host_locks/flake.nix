# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "One flake; each host has a lock";

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
        canary1 = host "canary1";
        stable1 = host "stable1";
        stable2 = host "stable2";
      };
    };
}
