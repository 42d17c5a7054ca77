# SPDX-License-Identifier: GPL-3.0-or-later
# The host's name and files for systemd-networkd, which the base system runs.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  sections = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
  network = types.submodule {
    options = {
      matchConfig = sections;
      linkConfig = sections;
      networkConfig = sections;
      address = mkOption {
        type = types.listOf types.str;
        default = [ ];
      };
      gateway = mkOption {
        type = types.listOf types.str;
        default = [ ];
      };
      extraConfig = mkOption {
        type = types.lines;
        default = "";
      };
    };
  };
  show = value: if builtins.isBool value then lib.boolToString value else toString value;
  section =
    title: set:
    lib.optionalString (set != { }) (
      "[${title}]\n"
      + lib.concatMapStrings (key: lib.concatMapStrings (v: "${key}=${show v}\n") (lib.toList set.${key})) (
        builtins.attrNames set
      )
    );
  render =
    unit:
    section "Match" unit.matchConfig
    + section "Link" unit.linkConfig
    + section "Network" (
      unit.networkConfig
      // lib.optionalAttrs (unit.address != [ ]) { Address = unit.address; }
      // lib.optionalAttrs (unit.gateway != [ ]) { Gateway = unit.gateway; }
    )
    + unit.extraConfig;
  files = lib.mapAttrs' (
    name: unit: lib.nameValuePair "systemd/network/${name}.network" { text = render unit; }
  ) config.systemd.network.networks;
in
{
  options = {
    networking.hostName = mkOption {
      type = types.strMatching "$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$";
      default = "nixos";
    };
    networking.domain = mkOption {
      type = types.nullOr types.str;
      default = null;
    };
    networking.useNetworkd = mkOption {
      type = types.bool;
      default = true;
    };
    networking.useDHCP = mkOption {
      type = types.bool;
      default = false;
    };
    networking.firewall.enable = mkOption {
      type = types.bool;
      default = false;
    };
    networking.firewall.allowedTCPPorts = mkOption {
      type = types.listOf types.port;
      default = [ ];
    };
    networking.extraHosts = mkOption {
      type = types.lines;
      default = "";
    };
    systemd.network.enable = mkOption {
      type = types.bool;
      default = true;
    };
    systemd.network.networks = mkOption {
      type = types.attrsOf network;
      default = { };
    };
  };
  config = {
    environment.etc = files;
    systemd.services.systemd-networkd = {
      overrideStrategy = "asDropin";
      restartTriggers = map (name: config.environment.etc.${name}.source) (builtins.attrNames files);
      # Stopping it first would cut the link that the switch may be watched over.
      stopIfChanged = false;
    };
  };
}
