# SPDX-License-Identifier: GPL-3.0-or-later
# environment.etc: one tree of links, made /etc's by the activation script.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  entry = types.submodule (
    { config, name, ... }:
    {
      options = {
        enable = mkOption {
          type = types.bool;
          default = true;
        };
        target = mkOption {
          type = types.str;
          default = name;
        };
        text = mkOption {
          type = types.nullOr types.lines;
          default = null;
        };
        source = mkOption {
          type = types.path;
          default = pkgs.writeText ("etc-" + storeName config.target) config.text;
        };
      };
    }
  );
  storeName = builtins.replaceStrings [ "/" "@" " " ":" ] [ "-" "-" "-" "-" ];
  entries = builtins.filter (e: e.enable) (builtins.attrValues config.environment.etc);
in
{
  options.environment.etc = mkOption {
    type = types.attrsOf entry;
    default = { };
  };
  config.system.build.etc = pkgs.runCommand "etc" { } (
    ''
      mkdir -p "$out/etc"
    ''
    + lib.concatMapStrings (e: ''
      mkdir -p "$out"/etc/${lib.escapeShellArg (dirOf ("./" + e.target))}
      ln -s ${lib.escapeShellArg "${e.source}"} "$out"/etc/${lib.escapeShellArg e.target}
    '') entries
  );
}
