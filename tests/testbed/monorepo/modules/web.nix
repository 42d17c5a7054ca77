# SPDX-License-Identifier: GPL-3.0-or-later
# A web server, and a page on port 8080 that says which system answers.
{ pkgs, ... }:
{
  services.nginx.enable = true;
  services.nginx.config = ''
    # nginx ${pkgs.nginx.version}
    events { }
    http { server { listen 80; root /srv/www; } }
  '';

  systemd.sockets.status-page = {
    description = "The status page";
    wantedBy = [ "sockets.target" ];
    listenStreams = [ "8080" ];
    socketConfig.Accept = true;
  };
  systemd.services."status-page@" = {
    description = "The status page";
    serviceConfig.StandardInput = "socket";
    serviceConfig.StandardError = "journal";
    script = ''
      printf 'HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n%s\n' "$(cat /run/current-system/nixos-version)"
    '';
  };
}
