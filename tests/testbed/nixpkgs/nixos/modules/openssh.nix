# SPDX-License-Identifier: GPL-3.0-or-later
# The base's sshd, with settings of ours.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.openssh;
  show = value: if builtins.isBool value then (if value then "yes" else "no") else toString value;
  file = "ssh/sshd_config.d/10-nixos.conf";
in
{
  options.services.openssh = {
    enable = mkOption {
      type = types.bool;
      default = true;
    };
    ports = mkOption {
      type = types.listOf types.port;
      default = [ 22 ];
    };
    settings = mkOption {
      type = types.attrsOf types.anything;
      default = { };
    };
    extraConfig = mkOption {
      type = types.lines;
      default = "";
    };
  };
  config = lib.mkIf cfg.enable {
    environment.etc.${file}.text =
      lib.concatMapStrings (port: "Port ${toString port}\n") cfg.ports
      + lib.concatMapAttrsStringsSep "" (key: value: "${key} ${show value}\n") cfg.settings
      + cfg.extraConfig;
    systemd.services.sshd = {
      overrideStrategy = "asDropin";
      restartTriggers = [ config.environment.etc.${file}.source ];
      stopIfChanged = false;
    };
  };
}
