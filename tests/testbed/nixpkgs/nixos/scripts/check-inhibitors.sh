#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The pre-switch check of system.switch.inhibitors: a key whose value differs from the running system's refuses a live switch.
set -eu
new=$1/switch-inhibitors
current=/run/current-system/switch-inhibitors

case $2 in boot | dry-activate) exit 0 ;; esac
[ -e "$current" ] && [ -e "$new" ] || exit 0

pairs() {
  { tr -d '{}\n' < "$1"; echo; } | tr ',' '\n' | sed -n 's/^"\([^"]*\)":"\([^"]*\)"$/\1 \2/p'
}
changes=$(
  { pairs "$current" | sed 's/^/old /'; pairs "$new" | sed 's/^/new /'; } |
    awk '$1 == "old" { old[$2] = $3 } $1 == "new" && ($2 in old) && old[$2] != $3 { print $2 " : " old[$2] " -> " $3 }'
)
[ -n "$changes" ] || exit 0
cat << EOT
There are changes to critical components of the system:

$changes

Switching into this system is not recommended.
You probably want to run 'nixos-rebuild boot' and reboot your system instead.

If you really want to switch into this configuration directly, then
you can set NIXOS_NO_CHECK=1 to ignore pre-switch checks.

WARNING: doing so might cause the switch to fail or your system to become unstable.
EOT
exit 1
