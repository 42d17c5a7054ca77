# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What a target does before and after a closure is copied to it. Run as root: sh -c "$THIS" closure.sh VERB ARGS
#
#   survey SYSTEM NAME MARK USER TRUSTED LIMIT   store paths on stdin, one a line
#   end MARK…                                    end what copies of these marks have left
#   finish SYSTEM NAME UNIT                      make the GC root, say whether SYSTEM is valid, end UNIT ("": none)
#
# NAME: the GC root's, "" to leave everything as it is (check mode). MARK: processes that carry it in their environment are left
# over from an earlier copy of ours. USER: who logs in, where it is not root: given a nix-daemon of its own, which trusts it if
# TRUSTED is yes, for at most LIMIT seconds. Answers are lines of `KEY VALUE`.
set -eu

PATH=$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin
export PATH
roots=/nix/var/nix/gcroots/flotilla

root() {
    mkdir -p "$roots"
    ln -sfn "$1" "$roots/$2"
    if nix-store --check-validity "$1" 2>/dev/null; then echo "rooted yes"; else echo "rooted no"; fi
}

# The marks of other copies: whether somebody is still at them is for the controller to say.
others() {
    cat /proc/[0-9]*/environ 2>/dev/null | tr '\000' '\n' | sed -n 's/^FLOTILLA_COPY=/copying /p' | sort -u | grep -vxF "copying $1" || true
}

left_over() {
    grep -lsxzF "FLOTILLA_COPY=$1" /proc/[0-9]*/environ | sed 's|/proc/||; s|/environ||'
}

# A copy whose link was cut leaves a nix-daemon that waits for more, and holds the lock of the path that it was writing. Busy ones
# do not listen to TERM; nix takes KILL as it takes a power cut.
end_left_over() {
    for signal in TERM KILL; do
        tries=0
        while [ -n "$(left_over "$1")" ] && [ "$tries" -lt 10 ]; do
            for process in $(left_over "$1"); do
                kill -s "$signal" "$process" 2>/dev/null || true
            done
            sleep 0.1
            tries=$((tries + 1))
        done
    done
}

own_daemon() {
    unit=flotilla-copy-$$-$(date +%s)
    folder=/run/flotilla/$unit
    trust=
    [ "$3" != yes ] || trust="extra-trusted-users = $2"
    systemd-run --quiet --collect --unit="$unit" --property=LimitNOFILE=65536 \
        --property=RuntimeMaxSec="$4" --property=TimeoutStopSec=5 \
        --property=RuntimeDirectory="flotilla/$unit" --property=RuntimeDirectoryMode=0700 \
        --setenv=NIX_DAEMON_SOCKET_PATH="$folder/socket" --setenv=NIX_CONFIG="$trust" --setenv=FLOTILLA_COPY="$1" \
        "$(command -v nix-daemon)"
    tries=0
    until [ -S "$folder/socket" ] || [ "$tries" -ge 100 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    # Until now nobody but root could open it; from now on nobody but root and that user.
    chown "$2" "$folder"
    echo "unit $unit"
}

survey() {
    echo "uid $(id -u)"
    if [ "$(id -u)" != 0 ]; then
        return
    fi
    if ! command -v nix-store >/dev/null; then
        echo "nix none"
        return
    fi
    echo "nix $(nix-store --version)"
    echo "free $(df --output=avail -B1 /nix/store | tail -n 1 | tr -d ' ')"
    missing=$(xargs -r nix-store --check-validity --print-invalid)
    if [ -n "$missing" ]; then
        printf '%s\n' "$missing" | sed 's/^/missing /'
    fi
    if [ -z "$2" ]; then
        return
    fi
    if [ -z "$missing" ]; then
        root "$1" "$2"
        return
    fi
    end_left_over "$3"
    others "$3"
    if [ -n "$4" ]; then
        own_daemon "$3" "$4" "$5" "$6"
    fi
}

finish() {
    if [ -n "$2" ]; then
        root "$1" "$2"
    fi
    if [ -n "$3" ]; then
        systemctl stop "$3" 2>/dev/null || true
    fi
}

verb=$1
shift
case $verb in
survey) survey "$@" ;;
end) for mark; do end_left_over "$mark"; done ;;
finish) finish "$@" ;;
*) exit 64 ;;
esac
