# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "What is tried out";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.nixos-hardware.url = "github:NixOS/nixos-hardware";
  inputs.main.url = "path:../..";
  # Every input of the main flake is overridden: one that is not would stay as it was first locked here.
  inputs.main.inputs.nixpkgs.follows = "nixpkgs";
  inputs.main.inputs.nixos-hardware.follows = "nixos-hardware";

  outputs =
    { main, ... }:
    {
      nixosConfigurations = {
        inherit (main.nixosConfigurations) dev1;
      };
    };
}
