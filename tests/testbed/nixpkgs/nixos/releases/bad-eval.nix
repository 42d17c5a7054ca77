# SPDX-License-Identifier: GPL-3.0-or-later
# An evaluation error on every host.
{ pkgs, ... }:
{
  environment.systemPackages = [ pkgs.openssl_1_1 ];
}
