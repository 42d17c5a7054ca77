# SPDX-License-Identifier: GPL-3.0-or-later
{ pkgs, ... }:
{
  boot.kernelPackages = pkgs.linuxPackages_latest;
  environment.systemPackages = [ pkgs.curl ];
  specialisation.offline.configuration = {
    environment.etc."offline".text = "no network, please\n";
  };
}
