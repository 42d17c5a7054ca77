# SPDX-License-Identifier: GPL-3.0-or-later
# An activation script that fails: switch-to-configuration answers 2.
{ ... }:
{
  system.activationScripts.secrets.text = ''
    echo "secrets: cannot decrypt /etc/secrets/fleet.age: no identity matched" >&2
    exit 1
  '';
}
