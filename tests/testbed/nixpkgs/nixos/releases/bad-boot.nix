# SPDX-License-Identifier: GPL-3.0-or-later
# Good while it runs; once it has been booted, sshd is stopped for good.
{ ... }:
{
  systemd.services.boot-breaker = {
    description = "Breaks a host that has booted this system";
    wantedBy = [ "multi-user.target" ];
    after = [ "sshd.service" ];
    serviceConfig.Type = "oneshot";
    script = ''
      [ "$(readlink -f /run/booted-system)" = "$(readlink -f /run/current-system)" ] || exit 0
      systemctl stop sshd.service
      echo "boot-breaker: sshd is gone" >&2
      exit 1
    '';
  };
}
