# SPDX-License-Identifier: GPL-3.0-or-later
# Every host of the fleet. What differs between machines (disks, boot loader, your ssh key) goes into modules beside this one.
{ pkgs, ... }:
{
  nixpkgs.hostPlatform = "x86_64-linux";
  boot.loader.systemd-boot.enable = true;
  fileSystems."/".device = "/dev/disk/by-label/nixos";
  services.openssh.enable = true;
  environment.systemPackages = [ pkgs.hello ];
  system.stateVersion = "25.05";
}
