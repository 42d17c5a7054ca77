#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The machine around one testbed host: runs its systemd-nspawn, and again as long as the host asks for a reboot.
# Usage: supervisor.sh STATE CGROUP LINK COMMAND…   STATE: the host's state directory. CGROUP: its cgroup. LINK: its end of the cable here.
set -eu

state=$1 cgroup=$2 link=$3
shift 3
reboot=133 # systemd-nspawn's exit status when the host has called reboot(2)

# record NAME PID: remember a process by its id and start time.
record() {
    stat=$(cat "/proc/$2/stat") || return 0
    # shellcheck disable=SC2086  # the fields after the command's name are numbers
    set -- "$1" "$2" ${stat##*) }
    printf '%s %s\n' "$2" "${22}" >"$state/$1.pid.new"
    mv "$state/$1.pid.new" "$state/$1.pid"
}

# A cable that was cut stays cut when the host reboots.
cut_again() {
    [ -e "$state/link-down" ] || return 0
    tries=0
    until ip -oneline link show up dev "$link" 2>/dev/null | grep -q .; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || return 0
        sleep 0.05
    done
    ip link set "$link" down
}

# Each boot has a fresh cgroup below the host's own, so that one stroke at that one (cgroup.kill) is a power cut.
boot() {
    if [ -d "$cgroup/machine" ]; then
        find "$cgroup/machine" -depth -type d -exec rmdir {} +
    fi
    mkdir "$cgroup/machine"
    sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup/machine" "$@" 9>&- &
    record nspawn $!
    cut_again 9>&- &
    wait %1
}

# One supervisor per host, also when a killed run started one that has only now come this far. Its children do not hold the lock.
exec 9>"$state/supervisor.lock"
flock --nonblock 9 || exit 0
mkdir -p "$cgroup/supervisor"
echo $$ >"$cgroup/supervisor/cgroup.procs"
record supervisor $$
while status=0 && { boot "$@" || status=$?; } && [ "$status" -eq "$reboot" ]; do
    echo "supervisor: the host asked for a reboot"
done
echo "supervisor: the host is off (systemd-nspawn ended with $status)"
