# SPDX-License-Identifier: GPL-3.0-or-later
# A few services with real processes, so that a release restarts, reloads and leaves alone as one of nixpkgs does.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  cfg = config.services;
in
{
  options = {
    services.dbus.implementation = mkOption {
      type = types.enum [
        "dbus"
        "broker"
      ];
      default = "dbus";
    };
    services.nscd.enable = mkOption {
      type = types.bool;
      default = true;
    };
    services.nginx.enable = mkEnableOption "the stand-in for nginx, which is reloaded when its configuration changes";
    services.nginx.config = mkOption {
      type = types.lines;
      default = "";
    };
    services.postgresql.enable = mkEnableOption "the stand-in for PostgreSQL, which a switch never restarts";
  };
  config = {
    system.extraDependencies = [ (if cfg.dbus.implementation == "broker" then pkgs.dbus-broker else pkgs.dbus) ];
    systemd.services = {
      nscd = mkIf cfg.nscd.enable {
        description = "Name service cache daemon (stand-in)";
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [ pkgs.glibc ];
        serviceConfig.ExecStart = "/usr/bin/sleep infinity";
      };
      nginx = mkIf cfg.nginx.enable {
        description = "Nginx web server (stand-in)";
        wantedBy = [ "multi-user.target" ];
        reloadIfChanged = true;
        restartTriggers = [ config.environment.etc."nginx/nginx.conf".source ];
        serviceConfig = {
          ExecStart = "${pkgs.nginx}/bin/nginx";
          ExecReload = "/usr/bin/touch /run/nginx-reloaded";
        };
      };
      postgresql = mkIf cfg.postgresql.enable {
        description = "PostgreSQL server (stand-in)";
        wantedBy = [ "multi-user.target" ];
        restartIfChanged = false;
        serviceConfig.ExecStart = "${pkgs.postgresql}/bin/postgresql";
      };
    };
    environment.etc."nginx/nginx.conf" = mkIf cfg.nginx.enable { text = cfg.nginx.config; };
  };
}
