# SPDX-License-Identifier: GPL-3.0-or-later
# networkd gives the link no address: status 0, and the host is gone from the network.
{ ... }:
{
  systemd.network.networks."00-bad" = {
    matchConfig.Name = "host0 eth0 en*";
    networkConfig = {
      DHCP = "no";
      LinkLocalAddressing = "no";
    };
  };
}
