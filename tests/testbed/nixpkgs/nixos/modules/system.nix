# SPDX-License-Identifier: GPL-3.0-or-later
{
  config,
  lib,
  pkgs,
  release,
  ...
}:
let
  inherit (lib) mkOption types;
in
{
  options = {
    assertions = mkOption {
      type = types.listOf types.attrs;
      default = [ ];
    };
    warnings = mkOption {
      type = types.listOf types.str;
      default = [ ];
    };
    environment.systemPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
    };
    system.build = mkOption {
      type = types.attrsOf types.raw;
      default = { };
    };
    system.configurationRevision = mkOption {
      type = types.nullOr types.str;
      default = null;
    };
    system.extraDependencies = mkOption {
      type = types.listOf types.package;
      default = [ ];
    };
    system.stateVersion = mkOption {
      type = types.str;
      default = lib.trivial.release;
    };
    system.name = mkOption {
      type = types.str;
      default = if config.networking.hostName == "" then "unnamed" else config.networking.hostName;
    };
    system.nixos.version = mkOption {
      type = types.str;
      default = release.version;
    };
    system.nixos.release = mkOption {
      type = types.str;
      default = lib.trivial.release;
    };
    system.nixos.label = mkOption {
      type = types.str;
      default = config.system.nixos.version;
    };
    time.timeZone = mkOption {
      type = types.nullOr types.str;
      default = null;
    };
    nix.settings = mkOption {
      type = types.attrs;
      default = { };
    };
  };
  config = {
    environment.systemPackages = [
      pkgs.bash
      pkgs.coreutils
      pkgs.util-linux
      pkgs.systemd
      pkgs.openssh
      pkgs.nix
      pkgs.curl
      pkgs.cacert
      pkgs.tzdata
      (pkgs.writeShellScriptBin "nixos-version" ''
        case "''${1-}" in
          --json) printf '%s\n' ${lib.escapeShellArg (builtins.toJSON (
            { nixosVersion = config.system.nixos.version; }
            // lib.optionalAttrs (config.system.configurationRevision != null) {
              inherit (config.system) configurationRevision;
            }
          ))} ;;
          --configuration-revision) echo ${lib.escapeShellArg (toString config.system.configurationRevision)} ;;
          *) echo ${lib.escapeShellArg config.system.nixos.version} ;;
        esac
      '')
    ];
    environment.etc."nixos-release".text = ''
      NAME=NixOS
      ID=nixos
      VERSION_ID="${config.system.nixos.release}"
      BUILD_ID="${config.system.nixos.version}"
    '';
  };
}
