# SPDX-License-Identifier: GPL-3.0-or-later
# system.build.toplevel: the files and names that a NixOS system has.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (config.boot.kernelPackages) kernel;
  inherit (config.system) build;
  name = "nixos-system-${config.system.name}-${config.system.nixos.label}";
  bootspec = {
    "org.nixos.bootspec.v1" = {
      system = config.nixpkgs.hostPlatform.system;
      label = "NixOS ${config.system.nixos.label} (Linux ${kernel.modDirVersion})";
      kernel = "${kernel}/${kernel.kernelFile}";
      kernelParams = config.boot.kernelParams;
      initrd = "${build.initrd}/initrd";
      toplevel = "@out@";
      init = "@out@/init";
    };
    "org.nixos.specialisation.v1" = builtins.mapAttrs (_: child: { "org.nixos.bootspec.v1".toplevel = "${child}"; }) build.specialisations;
  };
  files = {
    activate = build.activate;
    dryActivate = build.dryActivate;
    bootspec = builtins.toJSON bootspec;
    inhibitors = builtins.toJSON config.system.switch.inhibitors;
    params = toString config.boot.kernelParams;
  };
  sw = pkgs.buildEnv {
    name = "system-path";
    paths = config.environment.systemPackages;
  };
  firmware = pkgs.buildEnv {
    name = "firmware";
    paths = config.hardware.firmware;
  };
  toplevel =
    pkgs.runCommand name
      (
        files
        // {
          passAsFile = builtins.attrNames files;
          extraDependencies = config.system.extraDependencies;
        }
      )
      ''
        mkdir -p "$out/bin" "$out/specialisation"
        fill() {
          sed -e "s|@out@|$out|g" -e 's|@preSwitchCheck@|${build.preSwitchCheck}|' \
            -e 's|@installBootLoader@|${build.installBootLoader}|' "$2" > "$out/$1"
        }
        fill activate "$activatePath"
        fill dry-activate "$dryActivatePath"
        fill boot.json "$bootspecPath"
        fill bin/switch-to-configuration ${../scripts/switch-to-configuration.sh}
        fill init ${../scripts/init.sh}
        chmod 755 "$out/activate" "$out/dry-activate" "$out/bin/switch-to-configuration" "$out/init"
        cp "$inhibitorsPath" "$out/switch-inhibitors"
        cp "$paramsPath" "$out/kernel-params"
        printf %s ${lib.escapeShellArg config.system.nixos.label} > "$out/nixos-version"
        printf %s ${config.nixpkgs.hostPlatform.system} > "$out/system"
        printf 'systemd %s' ${toString config.system.initInterfaceVersion} > "$out/init-interface-version"
        printf %s ${lib.escapeShellArg (toString config.system.configurationRevision)} > "$out/configuration-revision"
        echo "$extraDependencies" > "$out/extra-dependencies"
        printf '#!/bin/sh\nexit 0\n' > "$out/append-initrd-secrets"
        chmod 755 "$out/append-initrd-secrets"
        ln -s ${kernel}/${kernel.kernelFile} "$out/kernel"
        ln -s ${build.initrd}/initrd "$out/initrd"
        ln -s ${build.modules} "$out/kernel-modules"
        ln -s ${firmware} "$out/firmware"
        ln -s ${config.systemd.package} "$out/systemd"
        ln -s ${sw} "$out/sw"
        ln -s ${build.etc}/etc "$out/etc"
        ${lib.concatMapAttrsStringsSep "" (child: system: ''
          ln -s ${system} "$out/specialisation/${child}"
        '') build.specialisations}
      '';
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
  checked =
    if failed != [ ] then
      throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (message: "- ${message}") failed}"
    else
      toplevel;
in
{
  config.system.build.toplevel = builtins.foldl' (value: message: lib.warn message value) checked config.warnings;
}
