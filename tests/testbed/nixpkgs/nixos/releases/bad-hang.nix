# SPDX-License-Identifier: GPL-3.0-or-later
# An activation script that never ends.
{ ... }:
{
  system.activationScripts.wait-for-token.text = ''
    echo "wait-for-token: waiting for a token to appear" >&2
    exec sleep 86400
  '';
}
