# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "One flake, and inputs of its own for each group";

  inputs.nixpkgs-canary.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.nixpkgs-stable.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    inputs:
    let
      host =
        nixpkgs: name:
        nixpkgs.lib.nixosSystem {
          modules = [
            ./modules/base.nix
            { networking.hostName = name; }
          ];
        };
    in
    {
      nixosConfigurations = {
        canary1 = host inputs.nixpkgs-canary "canary1";
        stable1 = host inputs.nixpkgs-stable "stable1";
        stable2 = host inputs.nixpkgs-stable "stable2";
      };
    };
}
