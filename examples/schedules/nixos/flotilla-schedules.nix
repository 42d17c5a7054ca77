# SPDX-License-Identifier: GPL-3.0-or-later
# For a controller that is a NixOS machine itself: a service and a timer per entry of `schedules`.
{ pkgs, lib, ... }:
let
  fleet = "/srv/fleet";
  # An environment with ansible-core and the collection, such as the virtual environment of the README.
  ansible = "/opt/flotilla";
  schedules = {
    canary = { when = "Mon 03:15"; run = "rollout.yml -l canary -e flotilla_update=true"; };
    stable = { when = "Thu 03:15"; run = "promote.yml -e from=canary -e to=stable"; };
    late = { when = "*:0/30"; run = "catchup.yml"; };
  };
in
{
  systemd.services = lib.mapAttrs' (name: entry: lib.nameValuePair "flotilla-${name}" {
    description = "Flotilla: ${entry.run}";
    path = [ pkgs.git pkgs.nix pkgs.openssh ];
    environment.ANSIBLE_NOCOLOR = "1";
    script = "exec ${ansible}/bin/ansible-playbook ${entry.run} -e flotilla_wait=1800 -e flotilla_result_file=$STATE_DIRECTORY/${name}.json";
    serviceConfig = {
      Type = "oneshot";
      User = "flotilla";
      StateDirectory = "flotilla";
      WorkingDirectory = fleet;
      KillSignal = "SIGINT";
      TimeoutStopSec = "15min";
    };
  }) schedules;
  systemd.timers = lib.mapAttrs' (name: entry: lib.nameValuePair "flotilla-${name}" {
    wantedBy = [ "timers.target" ];
    timerConfig = { OnCalendar = entry.when; RandomizedDelaySec = "10min"; Persistent = true; };
  }) schedules;
}
