# SPDX-License-Identifier: GPL-3.0-or-later
# sshd does not come back from its restart: the configuration is broken. switch-to-configuration answers 4.
{ ... }:
{
  services.openssh.extraConfig = "UseQuantumTunnel yes\n";
}
