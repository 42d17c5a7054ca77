# SPDX-License-Identifier: GPL-3.0-or-later
# What the boards are there for.
{ pkgs, ... }:
{
  systemd.services.sensor = {
    description = "Reads a sensor";
    wantedBy = [ "multi-user.target" ];
    after = [ "network.target" ];
    path = [ pkgs.hello ];
    serviceConfig.Restart = "on-failure";
    script = ''
      while true; do
        date +%s > /run/sensor-reading
        sleep 60
      done
    '';
  };
}
