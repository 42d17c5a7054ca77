# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "One flake, and an input for each channel";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.05";
  # The same branch, some days ahead: what the canary runs before everybody on `nixpkgs` does.
  inputs.nixpkgs-next.url = "github:NixOS/nixpkgs/nixos-25.05";
  inputs.nixpkgs-unstable.url = "github:NixOS/nixpkgs/nixos-unstable";

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
        canary1 = host inputs.nixpkgs-next "canary1";
        server1 = host inputs.nixpkgs "server1";
        server2 = host inputs.nixpkgs "server2";
        kiosk1 = host inputs.nixpkgs "kiosk1";
        desk1 = host inputs.nixpkgs-unstable "desk1";
      };
    };
}
