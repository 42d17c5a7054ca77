# SPDX-License-Identifier: GPL-3.0-or-later
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.boot;
  inherit (cfg.kernelPackages) kernel;
  strings = mkOption {
    type = types.listOf types.str;
    default = [ ];
  };
in
{
  options = {
    boot.kernelPackages = mkOption {
      type = types.raw;
      default = pkgs.linuxPackages_latest;
    };
    boot.kernelParams = strings;
    boot.kernelModules = strings;
    boot.initrd.availableKernelModules = strings;
    boot.initrd.kernelModules = strings;
    boot.kernel.sysctl = mkOption {
      type = types.attrsOf types.anything;
      default = { };
    };
    boot.loader.systemd-boot.enable = mkOption {
      type = types.bool;
      default = true;
    };
    boot.loader.systemd-boot.configurationLimit = mkOption {
      type = types.nullOr types.int;
      default = null;
    };
    boot.loader.timeout = mkOption {
      type = types.int;
      default = 5;
    };
    boot.loader.efi.canTouchEfiVariables = mkOption {
      type = types.bool;
      default = false;
    };
    hardware.firmware = mkOption {
      type = types.listOf types.package;
      default = [ pkgs.linux-firmware ];
    };
    hardware.deviceTree.enable = mkOption {
      type = types.bool;
      default = false;
    };
    fileSystems = mkOption {
      type = types.attrsOf types.attrs;
      default = { };
    };
  };
  config = {
    boot.kernelParams = [ "loglevel=4" ];
    environment.etc."sysctl.d/60-nixos.conf" = lib.mkIf (cfg.kernel.sysctl != { }) {
      text = lib.concatMapAttrsStringsSep "" (key: value: "${key}=${toString value}\n") cfg.kernel.sysctl;
    };
    system.build.modules = pkgs.runCommand "kernel-modules" { } ''
      mkdir -p "$out/lib"
      ln -s ${kernel}/lib/modules "$out/lib/modules"
    '';
    system.build.initrd = pkgs.runCommand "initrd-linux-${kernel.version}" { } ''
      mkdir -p "$out"
      {
        echo ${lib.escapeShellArg (toString (cfg.initrd.availableKernelModules ++ cfg.initrd.kernelModules))}
        cat ${kernel}/share/doc/version
        head -c 2097152 /dev/zero | tr '\0' i
      } > "$out/initrd"
    '';
    system.build.installBootLoader = pkgs.writeShellScript "install-systemd-boot.sh" ''
      exec sh ${../scripts/install-boot-loader.sh} "$1" ${
        toString (if cfg.loader.systemd-boot.configurationLimit == null then 0 else cfg.loader.systemd-boot.configurationLimit)
      } ${toString cfg.loader.timeout}
    '';
  };
}
