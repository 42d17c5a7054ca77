# SPDX-License-Identifier: GPL-3.0-or-later
{
  config,
  lib,
  evaluate,
  ...
}:
let
  inherit (lib) mkOption types;
in
{
  options.specialisation = mkOption {
    type = types.attrsOf (
      types.submodule {
        options.configuration = mkOption {
          type = types.raw;
          default = { };
        };
        options.inheritParentConfig = mkOption {
          type = types.bool;
          default = true;
        };
      }
    );
    default = { };
  };
  config.system.build.specialisations = builtins.mapAttrs (
    _: child:
    (evaluate [
      child.configuration
      { specialisation = lib.mkOverride 0 { }; }
    ]).config.system.build.toplevel
  ) config.specialisation;
}
