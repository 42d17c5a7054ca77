# SPDX-License-Identifier: GPL-3.0-or-later
{
  description = "A small stand-in for nixpkgs: what a fleet needs of it, built in a second and without a network";

  outputs =
    { self }:
    let
      release = builtins.fromJSON (builtins.readFile ./release.json);
      platforms = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      lib = import ./lib { inherit release; };
      pkgsFor =
        system:
        import ./pkgs {
          inherit lib release system;
        };
    in
    {
      lib = lib // {
        nixosSystem = args: import ./nixos/eval-config.nix (args // { inherit lib release pkgsFor; });
      };
      legacyPackages = lib.genAttrs platforms pkgsFor;
      nixosModules = { };
    };
}
