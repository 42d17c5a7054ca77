# SPDX-License-Identifier: GPL-3.0-or-later
# The main flake: all hosts, whichever stage they are at. What its inputs are pinned to matters to developers alone.
{
  description = "All hosts";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.nixos-hardware.url = "github:NixOS/nixos-hardware";

  outputs =
    { nixpkgs, nixos-hardware, ... }:
    let
      host =
        name:
        nixpkgs.lib.nixosSystem {
          modules = [
            ./modules/base.nix
            nixos-hardware.nixosModules.common-pc-ssd
            { networking.hostName = name; }
          ];
        };
    in
    {
      nixosConfigurations = {
        dev1 = host "dev1";
        prod1 = host "prod1";
        prod2 = host "prod2";
      };
    };
}
