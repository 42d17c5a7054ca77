# SPDX-License-Identifier: GPL-3.0-or-later
# A unit that starts well and dies three seconds later: only a look at the health after the switch sees it.
{ ... }:
{
  systemd.services.fleet-agent = {
    description = "An agent that dies soon";
    wantedBy = [ "multi-user.target" ];
    script = ''
      sleep 3
      echo "fleet-agent: lost its way" >&2
      exit 3
    '';
  };
}
