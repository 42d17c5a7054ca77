# SPDX-License-Identifier: GPL-3.0-or-later
# lib.nixosSystem
{
  lib,
  release,
  pkgsFor,
  modules,
  system ? null,
  specialArgs ? { },
  ...
}:
let
  stock = [
    ./modules/nixpkgs.nix
    ./modules/system.nix
    ./modules/etc.nix
    ./modules/systemd.nix
    ./modules/activation.nix
    ./modules/switch.nix
    ./modules/boot.nix
    ./modules/networking.nix
    ./modules/openssh.nix
    ./modules/services.nix
    ./modules/users.nix
    ./modules/specialisation.nix
    ./modules/toplevel.nix
  ]
  ++ map (name: ./releases + "/${name}.nix") release.modules;
  evaluate =
    extra:
    let
      evaluated = lib.evalModules {
        modules = [
          {
            _file = "lib.nixosSystem";
            _module.args = {
              inherit release pkgsFor evaluate;
              inherit (evaluated.config._nixpkgs) pkgs;
            };
            nixpkgs.hostPlatform = lib.mkIf (system != null) (lib.mkDefault system);
          }
        ]
        ++ stock
        ++ modules
        ++ extra;
        inherit specialArgs;
      };
    in
    evaluated;
  evaluated = evaluate [ ];
in
{
  _type = "configuration";
  class = "nixos";
  inherit (evaluated) config;
  inherit (evaluated.config._nixpkgs) pkgs;
  inherit lib;
  extendModules = args: { inherit (evaluate (args.modules or [ ])) config; };
}
