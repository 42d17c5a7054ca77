# SPDX-License-Identifier: GPL-3.0-or-later
# users.users: missing accounts are made, existing ones are left as they are (the base system owns its own).
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  user = types.submodule {
    options = {
      isNormalUser = mkOption {
        type = types.bool;
        default = false;
      };
      isSystemUser = mkOption {
        type = types.bool;
        default = false;
      };
      description = mkOption {
        type = types.str;
        default = "";
      };
      group = mkOption {
        type = types.str;
        default = "";
      };
      extraGroups = mkOption {
        type = types.listOf types.str;
        default = [ ];
      };
      openssh.authorizedKeys.keys = mkOption {
        type = types.listOf types.str;
        default = [ ];
      };
    };
  };
  arg = lib.escapeShellArg;
  make = name: u: ''
    getent passwd ${arg name} > /dev/null || useradd ${
      if u.isNormalUser then "--create-home" else "--system"
    } --comment ${arg u.description} ${arg name}
  '';
in
{
  options.users.users = mkOption {
    type = types.attrsOf user;
    default = { };
  };
  config = {
    system.activationScripts.users.text = lib.concatMapAttrsStringsSep "" make (removeAttrs config.users.users [ "root" ]);
    environment.etc = lib.mapAttrs' (
      name: u: lib.nameValuePair "ssh/authorized_keys.d/${name}" { text = lib.concatLines u.openssh.authorizedKeys.keys; }
    ) (lib.filterAttrs (_: u: u.openssh.authorizedKeys.keys != [ ]) config.users.users);
  };
}
