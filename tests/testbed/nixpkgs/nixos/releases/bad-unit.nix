# SPDX-License-Identifier: GPL-3.0-or-later
# A unit that fails to start: switch-to-configuration answers 4.
{ ... }:
{
  systemd.services.fleet-agent = {
    description = "An agent that cannot start";
    wantedBy = [ "multi-user.target" ];
    serviceConfig.Type = "oneshot";
    script = ''
      echo "fleet-agent: cannot read /etc/fleet-agent.conf" >&2
      exit 3
    '';
  };
}
