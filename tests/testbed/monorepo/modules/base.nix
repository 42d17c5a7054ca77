# SPDX-License-Identifier: GPL-3.0-or-later
# Every host of the fleet.
{ lib, pkgs, ... }:
{
  imports = [ ./fleet.nix ];

  services.openssh.enable = true;
  services.openssh.settings.PermitRootLogin = lib.mkDefault "prohibit-password";
  environment.systemPackages = [ pkgs.hello ];
  environment.etc."fleet".text = "This host belongs to the example fleet.\n";
  system.stateVersion = "25.05";
}
