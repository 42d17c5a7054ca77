# SPDX-License-Identifier: GPL-3.0-or-later
# system.activationScripts: OUT/activate and OUT/dry-activate. A snippet that fails is named, the others still run, and
# the script's status says so at the end; /run/current-system moves in any case, as on NixOS.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  snippet = types.coercedTo types.str (text: { inherit text; }) (
    types.submodule {
      options = {
        text = mkOption {
          type = types.lines;
          default = "";
        };
        deps = mkOption {
          type = types.listOf types.str;
          default = [ ];
        };
        supportsDryActivation = mkOption {
          type = types.bool;
          default = false;
        };
      };
    }
  );
  snippets = config.system.activationScripts;
  visit =
    done: name:
    if builtins.elem name done then
      done
    else
      builtins.foldl' visit done (snippets.${name} or { deps = [ ]; }).deps ++ [ name ];
  ordered = builtins.foldl' visit [ ] (builtins.attrNames snippets);
  run = name: ''
    (
    set -eu
    ${snippets.${name}.text}
    )
    snippet=$?
    if [ "$snippet" -ne 0 ]; then
      printf "Activation script snippet '%s' failed (%s)\n" ${lib.escapeShellArg name} "$snippet" >&2
      status=$snippet
    fi
  '';
  head = action: ''
    #!/bin/sh
    systemConfig=@out@
    NIXOS_ACTION=${action}
    export systemConfig NIXOS_ACTION
    PATH=/usr/sbin:/usr/bin:/sbin:/bin
    export PATH
    umask 022
    status=0
  '';
in
{
  options.system.activationScripts = mkOption {
    type = types.attrsOf snippet;
    default = { };
  };
  config = {
    system.activationScripts = {
      etc.text = ''
        sh ${../scripts/activate-etc.sh} "$systemConfig"
      '';
      hostname.text = lib.optionalString (config.networking.hostName != "") ''
        [ "$(cat /proc/sys/kernel/hostname)" = ${config.networking.hostName} ] || hostname ${config.networking.hostName}
      '';
      var.text = ''
        mkdir -p /var/empty /run/nixos /nix/var/nix/gcroots
        ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
        ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
      '';
    };
    system.build.activate = ''
      ${head "activate"}
      ${lib.concatMapStrings run ordered}
      ln -sfn "$systemConfig" /run/.current-system.new
      mv -T /run/.current-system.new /run/current-system
      exit "$status"
    '';
    system.build.dryActivate = ''
      ${head "dry-activate"}
      ${lib.concatMapStrings run (builtins.filter (name: snippets.${name}.supportsDryActivation) ordered)}
      exit "$status"
    '';
  };
}
