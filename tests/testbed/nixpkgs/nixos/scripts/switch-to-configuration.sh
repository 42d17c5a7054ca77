#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What NixOS's switch-to-configuration-ng does, in POSIX sh: same actions, order, messages on stderr and exit codes.
#   0 done; 1 usage, a failed check or boot loader; 2 the activation script failed; 4 units failed;
#   11 another switch is running; 100 the init interface differs, reboot needed.
set -u
LC_ALL=C
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

toplevel=@out@
action=${1-}
new_units=$toplevel/etc/systemd/system
old_units=/run/current-system/etc/systemd/system
base_units=/usr/lib/systemd/system
state=/run/nixos

usage() {
  cat >&2 << EOT
Usage: $0 [check|switch|boot|test|dry-activate]
check:        run pre-switch checks and exit
switch:       make the configuration the boot default and activate now
boot:         make the configuration the boot default
test:         activate the configuration, but don't make it the boot default
dry-activate: show what would be done if this configuration were activated
EOT
  exit 1
}
die() { echo "Error: $1" >&2; exit "${2-1}"; }
say() { echo "$1" >&2; }
log() { logger -t nixos -- "$1" 2> /dev/null || true; }

case $action in check | switch | boot | test | dry-activate) ;; *) usage ;; esac
[ $# -eq 1 ] || usage
[ "$(id -u)" -eq 0 ] || die "This program must be run as root"
[ -e /etc/NIXOS ] || die "This is not a NixOS installation!"
mkdir -p "$state"
umask 022

exec 9> "$state/switch-to-configuration.lock"
flock -n 9 || die "Could not acquire lock" 11

if [ "${NIXOS_NO_CHECK-}" != 1 ]; then
  @preSwitchCheck@ "$toplevel" "$action" 9>&- || die "Pre-switch checks failed"
fi
[ "$action" != check ] || exit 0

case $action in switch | boot)
  @installBootLoader@ "$toplevel" 9>&- || die "Failed to install bootloader"
  ;;
esac
case $action in switch | boot | test)
  [ "${NIXOS_NO_SYNC-}" = 1 ] || sync -f /nix/store || say "Failed to sync /nix/store"
  ;;
esac
[ "$action" != boot ] || exit 0

if [ "$(cat /run/current-system/init-interface-version 2> /dev/null)" != "$(cat "$toplevel/init-interface-version")" ]; then
  cat >&2 << EOT
Warning: the new NixOS configuration has an ‘init’ that is incompatible with the
current configuration.  The new configuration won't take effect until
you reboot the system.
EOT
  exit 100
fi

# Lists of units, one a line, are files: they survive an interrupted switch where the next run must see them.
work=$(mktemp -d "$state/switch.XXXXXX") || die "Cannot make a working directory in $state"
trap 'rm -rf "$work"' EXIT
for list in stop start reload restart skip hidden before; do : > "$work/$list"; done
add() { grep -qxF -- "$2" "$work/$1" || printf '%s\n' "$2" >> "$work/$1"; }
drop() { grep -vxF -- "$2" "$work/$1" > "$work/.tmp"; mv "$work/.tmp" "$work/$1"; }
has() { grep -qxF -- "$2" "$work/$1"; }
names() { sort -u "$work/$1" | grep -vxF -f "$work/hidden" | paste -sd, | sed 's/,/, /g'; }
announce() {
  shown=$(names "$2")
  [ -z "$shown" ] || say "$1: $shown"
}
# on LIST COMMAND…: systemctl COMMAND with the list's units.
on() {
  list=$1
  shift
  [ ! -s "$work/$list" ] || sort -u "$work/$list" | xargs -d '\n' systemctl --no-ask-password "$@" -- 9>&-
}

active_units() {
  systemctl list-units --all --full --plain --no-legend --no-pager --state=active,activating,reloading,refreshing 9>&- |
    awk '{ print $1 }'
}
# The units that a system's tree has something to say about: unit files, and drop-ins for the base's.
owned() {
  [ ! -d "$1" ] || (cd "$1/" && for f in *; do
    case $f in
      *.wants | *.requires | '*') ;;
      *.d) echo "${f%.d}" ;;
      *) echo "$f" ;;
    esac
  done)
}
# The unit's text as systemd would read it: the file (the tree's or the base's) and its drop-ins.
unit_text() {
  for f in "$1/$2" "$base_units/$2"; do
    if [ -e "$f" ]; then cat "$f"; break; fi
  done
  for f in "$1/$2.d"/*.conf; do
    if [ -e "$f" ]; then echo; cat "$f"; fi
  done
}
# Section and assignment on each line, without what needs no restart.
relevant() {
  unit_text "$1" "$2" | awk '
    /^[ \t]*([#;]|$)/ { next }
    /^\[/ { section = $0; next }
    section == "[Install]" { next }
    section == "[Unit]" && /^(X-Reload-Triggers|CollectMode|Description|Documentation|OnFailure|OnFailureJobMode|OnSuccess|OnSuccessJobMode|RebootArgument|FailureAction|SuccessAction|StartLimitBurst|StartLimitAction|StartLimitInterval|JobTimeoutAction|JobTimeoutRebootArgument)=/ { next }
    { print section " " $0 }'
}
setting() { unit_text "$1" "$2" | sed -n "s/^$3=//p" | tail -n 1; }
is_true() { case $1 in 1 | yes | true | on | True) return 0 ;; *) return 1 ;; esac; }
is_false() { case $1 in 0 | no | false | off | False) return 0 ;; *) return 1 ;; esac; }
# compare UNIT: same, reload or restart.
compare() {
  if [ "$(relevant "$old_units" "$1")" != "$(relevant "$new_units" "$1")" ]; then
    echo restart
  elif [ "$(setting "$old_units" "$1" X-Reload-Triggers)" != "$(setting "$new_units" "$1" X-Reload-Triggers)" ]; then
    echo reload
  else
    echo same
  fi
}

# modified FILE UNIT: what a changed unit needs; FILE is the template where UNIT is an instance.
modified() {
  case $2 in
    # A changed socket stays as it is on NixOS too: nixpkgs#74899.
    *.target | *.slice | *.mount | *.automount | *.socket) return ;;
  esac
  if is_true "$(setting "$new_units" "$1" X-ReloadIfChanged)" && ! has restart "$2"; then
    add reload "$2"
  elif is_false "$(setting "$new_units" "$1" X-RestartIfChanged)" ||
    is_true "$(setting "$new_units" "$1" RefuseManualStop)" || is_true "$(setting "$new_units" "$1" X-OnlyManualStart)"; then
    add skip "$2"
  elif is_false "$(setting "$new_units" "$1" X-StopIfChanged)"; then
    drop reload "$2"
    add restart "$2"
  else
    stop_and_start "$1" "$2"
  fi
}
# A service behind sockets of ours is stopped with them, and the sockets alone are started.
stop_and_start() {
  behind=0
  sockets=$(setting "$new_units" "$1" Sockets)
  case $2 in *.service) ;; *) sockets= ;; esac
  for socket in ${sockets:-"${2%.service}.socket"}; do
    has before "$socket" || continue
    add stop "$socket"
    if [ -e "$new_units/$socket" ]; then
      add start "$socket"
      behind=1
    fi
  done
  [ "$behind" = 1 ] || add start "$2"
  drop reload "$2"
  add stop "$2"
}

for list in start restart reload; do
  [ ! -e "$state/$list-list" ] || cat "$state/$list-list" >> "$work/$list"
done

active_units > "$work/before"
{ owned "$old_units"; owned "$new_units"; } | sort -u > "$work/owned"
while IFS= read -r file; do
  case $file in
    *@.*) instances=$(grep "^$(printf %s "${file%%@.*}" | sed 's/[].[\\*^$]/\\&/g')@..*\.${file##*.}\$" "$work/before") ;;
    *) instances=$(grep -xF -- "$file" "$work/before") ;;
  esac
  [ -n "$instances" ] || continue
  if [ ! -e "$new_units/$file" ] && [ ! -e "$base_units/$file" ] || [ "$(readlink -f "$new_units/$file")" = /dev/null ]; then
    if [ -e "$old_units/$file" ] && ! is_false "$(setting "$old_units" "$file" X-StopOnRemoval)"; then
      for unit in $instances; do add stop "$unit"; done
    fi
    continue
  fi
  case $file in
    *.target) for unit in $instances; do add start "$unit"; add hidden "$unit"; done ;;
    *)
      case $(compare "$file") in
        restart) for unit in $instances; do modified "$file" "$unit"; done ;;
        reload) for unit in $instances; do has restart "$unit" || add reload "$unit"; done ;;
      esac
      ;;
  esac
done < "$work/owned"
# Starting the targets again is what starts the units that the new system adds to them, and those that had failed.
for pull in multi-user.target.wants "$new_units"/*.target.wants "$new_units"/*.target.requires; do
  target=${pull##*/}
  target=${target%.*}
  if has before "$target"; then
    add start "$target"
    add hidden "$target"
  fi
done

restart_systemd=0
[ "$(readlink -f /run/current-system/systemd)" = "$(readlink -f "$toplevel/systemd")" ] || restart_systemd=1

if [ "$action" = dry-activate ]; then
  announce "would stop the following units" stop
  announce "would NOT stop the following changed units" skip
  say "would activate the configuration..."
  "$toplevel/dry-activate" 9>&-
  for list in restart reload; do
    [ ! -e "$state/dry-activation-$list-list" ] || cat "$state/dry-activation-$list-list" >> "$work/$list"
    rm -f "$state/dry-activation-$list-list"
  done
  [ "$restart_systemd" = 0 ] || say "would restart systemd"
  announce "would reload the following units" reload
  announce "would restart the following units" restart
  announce "would start the following units" start
  exit 0
fi

log "switching to system configuration $toplevel"
for list in start restart reload; do sort -u "$work/$list" > "$state/$list-list"; done
exit_code=0

announce "stopping the following units" stop
on stop stop || true
announce "NOT restarting the following changed units" skip

say "activating the configuration..."
"$toplevel/activate" 9>&- || exit_code=2
for list in restart reload; do
  [ ! -e "$state/activation-$list-list" ] || cat "$state/activation-$list-list" >> "$work/$list"
  rm -f "$state/activation-$list-list"
done

if [ "$restart_systemd" = 1 ]; then
  say "restarting systemd..."
  systemctl daemon-reexec 9>&- || exit_code=2
fi
systemctl reset-failed 9>&-
systemctl daemon-reload 9>&- || exit_code=3

announce "reloading the following units" reload
on reload reload || exit_code=4
rm -f "$state/reload-list"
announce "restarting the following units" restart
on restart restart || exit_code=4
rm -f "$state/restart-list"
announce "starting the following units" start
on start start || exit_code=4
rm -f "$state/start-list"

# What is failed now failed in this switch: failures from before were reset.
: > "$work/failed"
: > "$work/new"
systemctl list-units --all --full --plain --no-legend --no-pager --state=failed,auto-restart 9>&- |
  awk '{ print $1, $4 }' > "$work/.suspects"
while read -r unit sub; do
  if [ "$sub" = auto-restart ] && [ "$(systemctl show -p ExecMainStatus --value "$unit" 9>&-)" = 0 ]; then continue; fi
  add failed "$unit"
done < "$work/.suspects"
active_units | sort > "$work/after"
sort "$work/before" | comm -13 - "$work/after" | grep -v -e '\.scope$' -e '\.device$' -e '^run-' -e '^user' > "$work/new"
sort -u "$work/start" "$work/restart" | comm -23 "$work/new" - > "$work/.tmp"
mv "$work/.tmp" "$work/new"
announce "the following new units were started" new
if [ -s "$work/failed" ]; then
  say "warning: the following units failed: $(sort -u "$work/failed" | paste -sd, | sed 's/,/, /g')"
  sort -u "$work/failed" | xargs -d '\n' systemctl status --no-pager --full -- >&2 9>&- || true
  exit_code=4
fi
if [ "$exit_code" = 0 ]; then
  log "finished switching to system configuration $toplevel"
else
  log "switching to system configuration $toplevel failed (status $exit_code)"
fi
exit "$exit_code"
