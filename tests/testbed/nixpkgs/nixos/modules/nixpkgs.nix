# SPDX-License-Identifier: GPL-3.0-or-later
{
  config,
  lib,
  pkgsFor,
  ...
}:
let
  inherit (lib) mkOption types;
  applyOverlay =
    prev: overlay:
    let
      final = prev // overlay final prev;
    in
    final;
in
{
  options = {
    nixpkgs.hostPlatform = mkOption {
      type = types.either types.str types.attrs;
      apply = value: if builtins.isString value then { system = value; } else value;
      description = "The platform the system runs on.";
    };
    nixpkgs.overlays = mkOption {
      type = types.listOf types.raw;
      default = [ ];
    };
    nixpkgs.config = mkOption {
      type = types.attrs;
      default = { };
    };
    _nixpkgs = mkOption {
      type = types.raw;
      default = { };
    };
  };
  config._nixpkgs.pkgs = builtins.foldl' applyOverlay (pkgsFor config.nixpkgs.hostPlatform.system) config.nixpkgs.overlays;
}
