# SPDX-License-Identifier: GPL-3.0-or-later
# What switch-to-configuration needs beside itself: pre-switch checks and switch inhibitors.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  check = name: text: ''
    if ! (
    ${text}
    ) >&2; then
      echo "Pre-switch check '${name}' failed" >&2
      result=1
    fi
  '';
in
{
  options.system = {
    preSwitchChecks = mkOption {
      type = types.attrsOf types.lines;
      default = { };
      description = "Shell fragments with $1 (the new system) and $2 (the action); a non-zero status refuses the switch.";
    };
    switch.enable = mkOption {
      type = types.bool;
      default = true;
    };
    switch.inhibitors = mkOption {
      type = types.attrsOf types.str;
      default = { };
      description = "Values of components that cannot be changed while the system runs.";
    };
    initInterfaceVersion = mkOption {
      type = types.int;
      default = 2;
    };
  };
  config.system = {
    switch.inhibitors.dbus-implementation = config.services.dbus.implementation;
    preSwitchChecks.switchInhibitors = ''sh ${../scripts/check-inhibitors.sh} "$1" "$2"'';
    build.preSwitchCheck = pkgs.writeShellScript "pre-switch-checks" ''
      result=0
      ${lib.concatMapAttrsStringsSep "\n" check config.system.preSwitchChecks}
      exit "$result"
    '';
  };
}
