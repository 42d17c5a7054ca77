#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# flotilla.nixos on a target: looks at a NixOS system and changes it under a guard. Sent whole on stdin for each verb
# (`sh -s -- VERB ARGUMENTS`); what must outlive the connection is written to /run/flotilla and run there by systemd.
#
# Answers are lines `flotilla KEY VALUE` on stdout; anything else there (a greeting, a profile's echo) is not ours.
# Verbs that begin with an underscore are run by the transient units alone.
#
# A *transaction* is a directory /run/flotilla/tx.ID; /run/flotilla/current points at the one that holds the host.
# It is ended by whoever makes its link `claim`: symlink(2) is atomic, so the confirmation and the deadline cannot both win.
set -eu
LC_ALL=C
export LC_ALL
umask 077
PATH=${PATH:+$PATH:}/run/current-system/sw/bin:/run/wrappers/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

DIR=/run/flotilla
PROFILE=/nix/var/nix/profiles/system
ROOTS=/nix/var/nix/gcroots/auto/flotilla
RESERVE=4194304
# Outlives restarts: what rollbacks left (`left`), and the last one of them (`back`).
STATE=/nix/var/nix/flotilla
SWITCH_LOCK=/run/nixos/switch-to-configuration.lock

# ---- answers

say() {
    printf 'flotilla %s %s\n' "$1" "$2"
}

# The value of each line of stdin, under one key.
say_lines() {
    while IFS= read -r line || [ -n "$line" ]; do
        say "$1" "$line"
    done
}

# An expected refusal: KIND is a word that the controller knows, DETAIL fills its sentence.
refuse() {
    say error "$1"
    say error_detail "${2:-}"
    exit 3
}

# ---- looking

real() {
    readlink -f "$1" 2>/dev/null || :
}

first_line() {
    if [ -r "$1" ]; then head -n 1 "$1"; fi
}

# Seconds since boot: the clock may jump (a board without a battery), this does not.
now() {
    read -r seconds _ </proc/uptime
    printf '%s\n' "${seconds%%.*}"
}

# Seconds that this boot is old. PID 1 began it; a container's clock is that of its machine.
boot_age() {
    began=$(sed 's/^.*) //' /proc/1/stat 2>/dev/null | awk '{ print int($20 / 100) }')
    echo $(($(now) - ${began:-0}))
}

failed_units() {
    systemctl list-units --all --plain --no-legend --full --no-pager 2>/dev/null |
        awk '($3 == "failed" || $4 ~ /^auto-restart/) && $1 !~ /^flotilla-/ { print $1 }' | sort -u
}

active_units() {
    systemctl list-units --plain --no-legend --full --no-pager --state=active --type=service,socket 2>/dev/null |
        awk '$1 !~ /^flotilla-/ && $4 != "exited" { print $1 }' | sort -u
}

# Names of the boot-relevant parts in which two systems differ.
boot_differences() {
    [ -e "$1" ] && [ -e "$2" ] || return 0
    for part in kernel initrd kernel-modules; do
        if [ "$(real "$1/$part")" != "$(real "$2/$part")" ]; then
            echo "$part"
        fi
    done
    if [ "$(cat "$1/kernel-params" 2>/dev/null)" != "$(cat "$2/kernel-params" 2>/dev/null)" ]; then
        echo kernel-params
    fi
}

init_of() {
    sed -n 's|^.*[[:space:]]init=\(/nix/store/[^/[:space:]]*\)/init.*$|\1|p' | head -n 1
}

esp() {
    for place in /boot /efi /boot/efi /boot/EFI; do
        if [ -f "$place/loader/loader.conf" ]; then
            echo "$place"
            return 0
        fi
    done
    return 1
}

# The entry that systemd-boot starts by default: an EFI variable goes before loader.conf; names may hold a pattern.
systemd_boot_default() {
    variable=/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
    wanted=
    if [ -r "$variable" ]; then
        wanted=$(tail -c +5 "$variable" 2>/dev/null | tr -d '\000')
    fi
    if [ -z "$wanted" ]; then
        wanted=$(sed -n 's/^[[:space:]]*default[[:space:]][[:space:]]*\([^[:space:]]*\).*$/\1/p' "$1/loader/loader.conf" | tail -n 1)
    fi
    case $wanted in '' | @* | */*) return 0 ;; esac
    # With boot counting the file is called NAME+TRIES.conf.
    for entry in "$1/loader/entries"/$wanted "$1/loader/entries"/$wanted.conf "$1/loader/entries/${wanted%.conf}"+*.conf; do
        if [ -f "$entry" ]; then
            sed -n 's/^options/options /p' "$entry" | init_of
            return 0
        fi
    done
}

extlinux_default() {
    awk '
        toupper($1) == "DEFAULT" { wanted = $2 }
        toupper($1) == "LABEL" { label = $2 }
        toupper($1) == "APPEND" { append[label] = $0 }
        END { if (wanted in append) print append[wanted] }
    ' "$1" | init_of
}

# "LOADER SYSTEM": what a power cycle would boot, or `unknown`: never a guess.
boot_default() {
    if place=$(esp); then
        found=$(systemd_boot_default "$place")
        echo "systemd-boot ${found:-unknown}"
    elif [ -f /boot/extlinux/extlinux.conf ]; then
        found=$(extlinux_default /boot/extlinux/extlinux.conf)
        echo "extlinux ${found:-unknown}"
    elif [ -d /boot/grub ]; then
        echo "grub unknown"
    else
        echo "unknown unknown"
    fi
}

generation() {
    link=$(readlink "$PROFILE" 2>/dev/null) || return 0
    link=${link##*system-}
    echo "${link%-link}"
}

# The numbers of the profile's generations, the newest last.
generations() {
    for link in "$PROFILE"-*-link; do
        link=${link##*/system-}
        link=${link%-link}
        case $link in '' | *[!0-9]*) ;; *) echo "$link" ;; esac
    done | sort -n
}

free_bytes() {
    df -Pk "$1" 2>/dev/null | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }'
}

# ---- what this connection needs: compared after going back, to know whether a person could get in again

ssh_peer() {
    if [ -n "${SSH_CONNECTION:-}" ]; then
        echo "$SSH_CONNECTION"
        return 0
    fi
    # sudo drops the variable; a process between us and sshd has it.
    process=$$
    while [ "${process:-0}" -gt 1 ]; do
        found=$(tr '\000' '\n' <"/proc/$process/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=//p' | head -n 1)
        if [ -n "$found" ]; then
            echo "$found"
            return 0
        fi
        process=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$process/status" 2>/dev/null)
    done
}

listens() {
    awk -v port=":$(printf '%04X' "$1")" '
        $4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }
    ' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# The link that answers the controller, where its address and sshd's open port can be seen there; nothing where they cannot.
way_link() {
    peer=$1
    command -v ip >/dev/null 2>&1 && [ -n "$peer" ] || return 0
    # shellcheck disable=SC2086  # four words: client, its port, server, its port
    set -- $peer
    if has_address "$3" && listens "$4"; then
        ip -o route get "$1" 2>/dev/null | sed -n 's/^.* dev \([^ ]*\) .*$/\1/p' | head -n 1
    fi
}

has_address() {
    ip -o addr show 2>/dev/null | awk -v a="$1" '{ split($4, p, "/"); if (p[1] == a) f = 1 } END { exit !f }'
}

# `open`, `shut`, or `unknown`: whether the way in that the controller used could be used again. A cable that is cut is not ours.
way_in() {
    link=$(get way_link)
    if [ -z "$link" ]; then
        echo unknown
        return 0
    fi
    flags=$(first_line "/sys/class/net/$link/flags")
    # 1: IFF_UP, set by whoever configures the link.
    if [ $((${flags:-0} & 1)) = 0 ]; then
        echo shut
        return 0
    fi
    if [ "$(cat "/sys/class/net/$link/carrier" 2>/dev/null)" = 0 ]; then
        echo unknown
        return 0
    fi
    # shellcheck disable=SC2046  # four words
    set -- $(get peer)
    if has_address "$3" && listens "$4"; then echo open; else echo shut; fi
}

# ---- transactions

# A value of the transaction. Where there is no room left in /run, what was set aside for this moment is used.
put() {
    write_value "$1" "$2" 2>/dev/null || {
        rm -f "$TX/reserve"
        write_value "$1" "$2"
    }
}

write_value() {
    printf '%s\n' "$2" >"$TX/$1.new" && mv -f "$TX/$1.new" "$TX/$1"
}

get() {
    first_line "$TX/$1"
}

load() {
    ID=$1
    case $ID in '' | *[!A-Za-z0-9-]*) refuse bad_argument "$ID" ;; esac
    TX=$DIR/tx.$ID
    [ -d "$TX" ] || return 1
}

current_id() {
    link=$(readlink "$DIR/current" 2>/dev/null) || return 0
    echo "${link#tx.}"
}

phase() {
    put phase "$1"
}

final() {
    case $1 in confirmed | rolled_back | refused | staged | failed | rebooted) return 0 ;; esac
    return 1
}

# Whether a unit has ended, as systemd says it three times. No answer is none: PID 1 may be restarting, or its bus be busy.
unit_gone() {
    ended=0
    silent=0
    while [ "$ended" -lt 3 ] && [ "$silent" -lt 120 ]; do
        case $(systemctl is-active "flotilla-$1-$ID.service" 2>/dev/null || :) in
            inactive | failed | unknown) ended=$((ended + 1)) ;;
            '') silent=$((silent + 1)) ;;
            *) return 1 ;;
        esac
        sleep 1
    done
}

unit_active() {
    case $(systemctl is-active "flotilla-$1-$ID.service" 2>/dev/null || :) in
        active | activating | deactivating | reloading) return 0 ;;
    esac
    return 1
}

# A unit of the transaction's own: outlives the connection, is not stopped by the new system, is the last to go without memory.
start_unit() {
    name=$1
    verb=$2
    shift 2
    systemd-run --quiet --collect --no-ask-password --unit="flotilla-$name-$ID" --description="flotilla $name $ID" \
        --service-type=exec --property=IgnoreOnIsolate=yes --property=DefaultDependencies=no --property=OOMScoreAdjust=-900 \
        --property=TimeoutStopSec=10 "$@" /bin/sh "$TX/flotilla.sh" "$verb" "$ID" >"$TX/systemd-run" 2>&1 ||
        {
            put reason "$name could not be started: $(head -n 1 "$TX/systemd-run")"
            return 1
        }
}

# Ends the transaction's hold on the host; its directory stays for whoever asks how it ended.
finish() {
    rm -f "$ROOTS-old" "$ROOTS-new" "$TX/reserve"
    if [ "$(current_id)" = "$ID" ]; then rm -f "$DIR/current"; fi
    put ended "$(now)"
    phase "$1"
    logger -t flotilla "transaction $ID: $1 ($(get kind) $(get new))" 2>/dev/null || :
    systemctl stop --no-block "flotilla-guard-$ID.service" 2>/dev/null || :
}

claim() {
    ln -s "$1" "$TX/claim" 2>/dev/null
}

# For the guard, which has to act: where the link cannot be made at all, nobody else can make it either.
claim_or_act() {
    if claim "$1"; then return 0; fi
    rm -f "$TX/reserve"
    claim "$1" || ! [ -L "$TX/claim" ]
}

# Runs a command whose output is kept in a file of the transaction: its first 512 KiB and last 128. A full /run only costs words
# of it: the command itself never sees a write that fails, and who keeps its output open after it has ended is not waited for.
logged() {
    file=$TX/$1
    shift
    status=0
    pipe=$TX/pipe.$$
    rm -f "$pipe"
    if ! mkfifo "$pipe" 2>/dev/null; then
        "$@" >/dev/null 2>&1 </dev/null || status=$?
        return "$status"
    fi
    # Open for both, so that no end waits for the other one to come.
    exec 8<>"$pipe"
    exec 9<"$pipe"
    {
        head -c 524288 >>"$file"
        tail -c 131072 >>"$file"
        cat >/dev/null
    } <&9 2>/dev/null 8>&- 9<&- &
    reader=$!
    "$@" >"$pipe" 2>&1 </dev/null 8>&- 9<&- || status=$?
    exec 8>&- 9<&-
    rm -f "$pipe"
    patience=20
    while kill -0 "$reader" 2>/dev/null && [ "$patience" -gt 0 ]; do
        patience=$((patience - 1))
        sleep 0.1 2>/dev/null || sleep 1
    done
    return "$status"
}

# Takes the host for a new transaction, or says who has it. flock makes the look and the take one step.
take() {
    kind=$1
    owner=$2
    goal=$3
    new=$4
    span=$5
    mkdir -p "$DIR"
    # What lies in it is root's alone, but a user who becomes root has to reach the socket of his copy there.
    chmod 0755 "$DIR"
    exec 9>"$DIR/lock"
    flock -w 20 9 || refuse busy "another flotilla command on this host"
    holder=$(current_id)
    if [ -n "$holder" ] && load "$holder"; then
        if stale; then
            rm -f "$DIR/current"
        else
            report_holder
            refuse held "$(get owner)"
        fi
    fi
    keep_few
    load "$NEW_ID" && refuse bad_argument "$NEW_ID was used before"
    mkdir -m 0700 "$TX"
    # Set aside for going back, which must not fail for want of room for its notes.
    if ! head -c "$RESERVE" /dev/zero >"$TX/reserve" 2>/dev/null; then
        free=$(free_bytes "$DIR")
        rm -rf "$TX"
        refuse run_full "${free:-0} $RESERVE"
    fi
    start=$(now)
    put kind "$kind"
    put owner "$owner"
    put goal "$goal"
    put new "$new"
    put started "$start"
    put deadline "$((start + span))"
    put old "$(real /run/current-system)"
    put old_profile "$(real "$PROFILE")"
    put old_generation "$(generation)"
    put old_boot "$(boot_default)"
    put peer "$(ssh_peer)"
    put way_link "$(way_link "$(get peer)")"
    failed_units >"$TX/baseline"
    active_units >"$TX/active"
    phase taken
    flotilla_text >"$TX/flotilla.sh"
    ln -sfn "tx.$ID" "$DIR/current"
    exec 9>&-
}

# A hold without anybody behind it: no unit runs, and its time is over.
stale() {
    if final "$(get phase)"; then return 0; fi
    for unit in guard activate confirm back; do
        if unit_active "$unit"; then return 1; fi
    done
    # A guarded system that was neither confirmed nor taken back needs a decision, not a successor.
    if [ "$(get kind)" = activate ] && [ "$(get phase)" != taken ]; then return 1; fi
    deadline=$(get deadline)
    [ "$(now)" -ge "${deadline:-0}" ]
}

report_holder() {
    say guard_id "$ID"
    for key in kind owner goal new old phase reason; do
        say "guard_$key" "$(get "$key")"
    done
    deadline=$(get deadline)
    say guard_ends_in "$((${deadline:-0} - $(now)))"
    if unit_active guard; then say guard_armed yes; else say guard_armed no; fi
}

# Loads the transaction that was begun last, ended or not.
last_transaction() {
    # shellcheck disable=SC2012  # the names are our own
    last=$(ls -1dt "$DIR"/tx.* 2>/dev/null | head -n 1)
    [ -n "$last" ] && load "${last##*/tx.}"
}

keep_few() {
    # shellcheck disable=SC2012  # the names are our own
    for old_tx in $(ls -1dt "$DIR"/tx.* 2>/dev/null | tail -n +6); do
        rm -rf "$old_tx"
    done
}

# ---- preflight

need_root() {
    [ "$(id -u)" = 0 ] || refuse not_root "$(id -un 2>/dev/null || id -u)"
    [ -d /run/systemd/system ] || refuse no_systemd
}

need_nixos() {
    [ -x /run/current-system/bin/switch-to-configuration ] || refuse not_nixos
}

need_system() {
    case $1 in
        /nix/store/*/* | *..*) refuse not_a_system "$1" ;;
        /nix/store/?*) ;;
        *) refuse not_a_system "$1" ;;
    esac
    nix-store --check-validity "$1" 2>/dev/null || refuse not_in_store "$1"
    [ -f "$1/nixos-version" ] || refuse not_a_system "$1"
    [ -x "$1/bin/switch-to-configuration" ] || refuse not_a_system "$1"
    platform=$(first_line "$1/system")
    machine=$(uname -m)
    case ${platform%-linux}/$machine in
        /* | "$machine/$machine" | i686/x86_64 | i686/i?86 | armv7l/aarch64 | armv7l/armv8l | armv6l/aarch64 | armv6l/armv7l | armv5tel/armv*) ;;
        powerpc64le/ppc64le | loongarch64/loongarch64) ;;
        *) refuse wrong_platform "$platform $machine" ;;
    esac
}

# Bytes that the boot loader's copies of kernel and initrd would need in /boot, as far as they are not there.
boot_bytes_needed() {
    total=0
    for part in kernel initrd; do
        file=$(real "$1/$part")
        [ -f "$file" ] || continue
        package=${file#/nix/store/}
        copied=${package%%/*}-${file##*/}
        if [ -z "$(find /boot -name "$copied*" 2>/dev/null | head -n 1)" ]; then
            total=$((total + $(wc -c <"$file")))
        fi
    done
    echo "$total"
}

need_boot_space() {
    { esp >/dev/null || [ -d /boot/extlinux ] || [ -d /boot/kernels ]; } || return 0
    needed=$(boot_bytes_needed "$1")
    [ "$needed" -gt 0 ] || return 0
    free=$(free_bytes /boot)
    [ "${free:-0}" -ge "$needed" ] || refuse boot_full "$needed ${free:-0}"
}

need_no_switch() {
    if [ -e "$SWITCH_LOCK" ] && ! flock -n "$SWITCH_LOCK" true 2>/dev/null; then
        refuse switching "$SWITCH_LOCK"
    fi
    case $(systemctl is-active nixos-rebuild-switch-to-configuration.service 2>/dev/null || :) in
        active | activating) refuse switching nixos-rebuild-switch-to-configuration.service ;;
    esac
}

# ---- verb: info [WANTED]

verb_info() {
    [ -e /run/current-system ] || refuse not_nixos
    say running "$(real /run/current-system)"
    say booted "$(real /run/booted-system)"
    say profile "$(real "$PROFILE")"
    say generation "$(generation)"
    found=$(boot_default)
    say loader "${found%% *}"
    say boot_default "${found#* }"
    say boot_id "$(first_line /proc/sys/kernel/random/boot_id)"
    say since "$(stat -c %Y /run/current-system 2>/dev/null || :)"
    say uptime "$(boot_age)"
    say state "$(systemctl is-system-running 2>/dev/null || :)"
    say platform "$(first_line /run/current-system/system)"
    say machine "$(uname -m)"
    say version "$(first_line /run/current-system/nixos-version)"
    say nix_version "$(nix --version 2>/dev/null | awk '{ print $NF }')"
    say revision "$(/run/current-system/sw/bin/nixos-version --configuration-revision 2>/dev/null || :)"
    for place in /run/current-system/specialisation/* "$PROFILE"/specialisation/*; do
        if [ "$(real "$place")" = "$(real /run/current-system)" ]; then say specialisation "${place##*/}"; fi
    done
    boot_differences /run/booted-system /run/current-system | say_lines pending_running
    boot_differences /run/booted-system "$PROFILE" | say_lines pending_profile
    say inhibitors_running "$(tr '\n' ' ' 2>/dev/null </run/current-system/switch-inhibitors || :)"
    if [ -n "${1:-}" ]; then
        if [ -e "$1/nixos-version" ]; then say wanted_present yes; else say wanted_present no; fi
        boot_differences /run/booted-system "$1" | say_lines pending_wanted
        say inhibitors_wanted "$(tr '\n' ' ' 2>/dev/null <"$1/switch-inhibitors" || :)"
        say interface_running "$(first_line /run/current-system/init-interface-version)"
        say interface_wanted "$(first_line "$1/init-interface-version")"
    fi
    failed_units | say_lines failed_unit
    say free_nix "$(free_bytes /nix/store)"
    say free_boot "$(free_bytes /boot)"
    # The state directory is root's; another user learns everything but this.
    if [ "$(id -u)" = 0 ]; then
        holder=$(current_id)
        if [ -n "$holder" ] && load "$holder" && ! stale; then report_holder; fi
        if last_transaction; then
            say last_id "$ID"
            say last_phase "$(get phase)"
            say last_reason "$(get reason)"
            say last_new "$(get new)"
        fi
    else
        say guard_unknown "not root"
    fi
    say end info
}

# ---- verb: activate ID OWNER NEW GOAL ACTIVATION_TIMEOUT CONFIRM_TIMEOUT FORCE LAST_RESORT WAIT [GENERATION [FORMER]]
# FORMER: an owner whose run is over, and whose waiting activation of NEW may be taken up. GENERATION: for a rollback, the one of the profile that is to be current again, or `any` that has NEW; `-`: make a new one.
# goal switch or test: guarded, `switch-to-configuration test`. goal boot: profile and boot loader alone.

is_right() {
    if [ "$2" != boot ] && [ "$(real /run/current-system)" != "$1" ]; then return 1; fi
    if [ "$2" = test ]; then return 0; fi
    if [ "$(real "$PROFILE")" != "$1" ]; then return 1; fi
    default=$(boot_default)
    case ${default#* } in "$1" | unknown) return 0 ;; esac
    return 1
}

held() {
    [ "$(id -u)" = 0 ] || return 1
    holder=$(current_id)
    [ -n "$holder" ] && load "$holder" && ! stale
}

verb_activate() {
    NEW_ID=$1 owner=$2 new=$3 goal=$4 activation=$5 confirmation=$6 force=$7 last_resort=$8 wait=$9 to_generation=${10:--} former=${11:--}
    case $activation$confirmation$wait in *[!0-9]*) refuse bad_argument timeout ;; esac
    need_root
    need_nixos
    say previous "$(real /run/current-system)"
    if held; then
        if inherit "$owner" "$goal/$new" "$former"; then
            resume "$confirmation" "$wait"
            return 0
        fi
        report_holder
        refuse held "$(get owner)"
    fi
    if [ "$force" = no ] && is_right "$new" "$goal"; then
        boot_differences /run/booted-system "$new" | say_lines pending_wanted
        say outcome unchanged
        return 0
    fi
    need_system "$new"
    need_no_switch
    if [ "$goal" != test ]; then need_boot_space "$new"; fi
    boot_differences /run/booted-system "$new" | say_lines pending_wanted
    take "$([ "$goal" = boot ] && echo stage || echo activate)" "$owner" "$goal" "$new" "$((activation + confirmation))"
    put activation "$activation"
    put confirmation "$confirmation"
    put last_resort "$last_resort"
    if [ "$to_generation" != - ]; then put rollback "$to_generation"; fi
    say guard "$ID"
    if [ "$goal" = boot ]; then
        phase staging
        start_unit confirm _stage || give_up start_failed
    else
        inhibited "$new"
        keep_roots
        # Should this shell die on its dead connection before the guard runs, the transaction is still `taken`: nothing to decide.
        start_unit guard _guard --property=Restart=on-failure --property=RestartSec=1 --property=StartLimitIntervalSec=0 ||
            give_up start_failed
        unit_active guard || give_up start_failed
        phase testing
        start_unit activate _test --setenv=NIXOS_INSTALL_BOOTLOADER=0 || give_up start_failed
    fi
    verb_poll "$ID" "$wait"
}

# The same owner asks again for what waits on the host, or the heir of one whose run is over: a rollout that was cut off.
# One heir alone: from then on it is his.
inherit() {
    exec 9>"$DIR/lock"
    flock -w 20 9 || return 1
    case $(get owner) in "$1" | "$3") ;; *) return 1 ;; esac
    [ "$(get goal)/$(get new)" = "$2" ] && [ "$(get kind)" = activate ] && ! [ -L "$TX/claim" ] && unit_active guard || return 1
    put owner "$1"
    exec 9>&-
}

resume() {
    say previous "$(get old)"
    later=$(($(now) + $1))
    if [ "$later" -gt "$(get deadline)" ]; then put deadline "$later"; fi
    verb_poll "$ID" "$2"
}

# Before anything was activated: let go of the host, and say why.
give_up() {
    detail=$(get reason)
    claim abandoned || :
    finish refused
    refuse "$1" "$detail"
}

# Indirect roots through /run: a power cut leaves nothing behind that would keep the systems for ever.
keep_roots() {
    mkdir -p "${ROOTS%/*}"
    for which in old new; do
        ln -sfn "$(get $which)" "$TX/root-$which"
        ln -sfn "$DIR/current/root-$which" "$ROOTS-$which"
    done
}

# The new system's own opinion on being switched to live. Older ones have no `check` and print their usage.
inhibited() {
    interface=$(first_line "$1/init-interface-version")
    if [ "$interface" != "$(first_line /run/current-system/init-interface-version)" ]; then
        say inhibitor "init-interface-version : $(first_line /run/current-system/init-interface-version) -> $interface"
        put reason "the interface of init differs"
        give_up inhibited
    fi
    if timeout -k 5 60 "$1/bin/switch-to-configuration" check >"$TX/check" 2>&1 </dev/null; then
        return 0
    fi
    if grep -qi 'usage:' "$TX/check"; then return 0; fi
    say_lines log <"$TX/check"
    if grep -qi 'inhibit' "$TX/check"; then
        grep -e ' -> ' "$TX/check" | sed 's/^[[:space:]]*//' | say_lines inhibitor
        put reason "$(grep -i inhibit "$TX/check" | head -n 1)"
        give_up inhibited
    fi
    put reason "$(tail -n 1 "$TX/check")"
    give_up check_failed
}

# ---- unit: the activation itself

# Units go on when a command of theirs fails, above all a note that finds no room: each step that matters is looked at.
load_unit() {
    set +e
    load "$1" || exit 0
}

verb__test() {
    load_unit "$1"
    status=0
    logged log "$(get new)/bin/switch-to-configuration" test || status=$?
    put status "$status"
    note_failures
    if [ "$status" = 11 ] || [ "$status" = 100 ]; then
        if [ "$(real /run/current-system)" = "$(get old)" ] && claim untouched; then
            finish refused
            return 0
        fi
    fi
    # From here the time to confirm runs; a switch that took long must not lengthen the time without a proof.
    soon=$(($(now) + $(get confirmation)))
    if [ "$soon" -lt "$(get deadline)" ]; then put deadline "$soon"; fi
    put tested_at "$(now)"
    if ! [ -e "$TX/claim" ] && ! [ -L "$TX/claim" ]; then phase tested; fi
}

# What failed, with its last words: going back would reset it.
note_failures() {
    failed_units >"$TX/failed"
    grep -vxF -f "$TX/baseline" "$TX/failed" | head -n 10 | while IFS= read -r unit; do
        journalctl --unit="$unit" --boot --lines=10 --output=cat --no-pager 2>/dev/null | sed "s|^|$unit |"
    done >"$TX/journal" || :
}

# ---- unit: the guard. At the deadline, or when the one who claimed died over it, goes back.

verb__guard() {
    load_unit "$1"
    PATH=$(get old)/sw/bin:$PATH
    while :; do
        if final "$(get phase)"; then return 0; fi
        claimed=$(readlink "$TX/claim" 2>/dev/null || :)
        case $claimed in
            '')
                deadline=$(get deadline)
                if [ "$(now)" -ge "${deadline:-0}" ] && claim_or_act deadline; then
                    go_back "the deadline passed without a confirmation"
                    return 0
                fi
                ;;
            deadline)
                # Only after a crash of this very unit, which systemd started again.
                go_back "$(get reason)"
                return 0
                ;;
            confirm | back)
                sleep 2
                if unit_gone "$claimed" && ! final "$(get phase)"; then
                    go_back "the ${claimed} step ended before it was done"
                    return 0
                fi
                ;;
        esac
        sleep 1
    done
}

# ---- going back

go_back() {
    rm -f "$TX/reserve"
    put reason "$1"
    phase rolling_back
    old=$(get old)
    PATH=$old/sw/bin:$PATH
    systemctl kill --signal=KILL "flotilla-activate-$ID.service" 2>/dev/null || :
    timeout 15 systemctl stop "flotilla-activate-$ID.service" 2>/dev/null || :
    restore_boot
    # As long as the new system was given, but never so short that a slow board cannot go back.
    limit=$(time_limit 300)
    tries=0
    while :; do
        status=0
        logged back_log timeout -k 10 "$limit" "$old/bin/switch-to-configuration" test || status=$?
        put back_status "$status"
        tries=$((tries + 1))
        # 11: somebody else is switching at this very moment.
        if [ "$status" != 11 ] || [ "$tries" -ge 30 ]; then break; fi
        sleep 2
    done
    if [ "$(real /run/current-system)" != "$old" ]; then
        into_default "the old system could not be started again (exit status $status)"
        return 0
    fi
    failed_units >"$TX/failed_after"
    if ! wait_for_way_in; then
        into_default "the old system runs again but the way in that the controller used is still shut"
        return 0
    fi
    # A rollback that failed may be tried again.
    if [ -z "$(get rollback)" ]; then remember_back "$old" "$(get new)"; fi
    finish rolled_back
}

# Seconds for a step, in a unit: those that the activation was given, but not less than $1, for slow boards.
time_limit() {
    given=$(get activation)
    if [ "${given:-600}" -gt "$1" ]; then echo "${given:-600}"; else echo "$1"; fi
}

# After a confirmation that broke half-way: what the profile and the boot loader named before.
restore_boot() {
    [ -e "$TX/profile_moved" ] || return 0
    before=$(get old_profile)
    if [ -n "$before" ] && [ "$(real "$PROFILE")" != "$before" ]; then
        moved=$(generation)
        logged log timeout -k 10 120 nix-env --profile "$PROFILE" --switch-generation "$(get old_generation)" ||
            logged log timeout -k 10 120 nix-env --profile "$PROFILE" --set "$before"
        # The generation was made a moment ago; left behind, boot loaders would offer it.
        if [ "$(get made_generation)" = "$moved" ]; then
            logged log timeout -k 10 120 nix-env --profile "$PROFILE" --delete-generations "$moved"
        fi
    fi
    # A loader that we can read and that names the old system was not touched, or was put back already.
    if [ "$(boot_default)" != "$(get old_boot)" ] || boot_unknown; then
        logged log env NIXOS_INSTALL_BOOTLOADER=0 timeout -k 10 "$(time_limit 300)" "$before/bin/switch-to-configuration" boot
    fi
    sync_disks
}

boot_unknown() {
    case $(boot_default) in *' unknown') return 0 ;; esac
    return 1
}

# Services, addresses and links need a moment after the switch.
wait_for_way_in() {
    left=30
    while [ "$(way_in)" = shut ]; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}

# The last resort. The boot default was not touched, so a restart ends on a system that was proven.
into_default() {
    if [ "$(get last_resort)" = stay ]; then
        put reason "$(get reason); $1"
        finish failed
        return 0
    fi
    put reason "$(get reason); $1; restarting into the boot default"
    phase rebooting
    logger -t flotilla "transaction $ID: $(get reason)" 2>/dev/null || :
    sync
    systemctl reboot --force 2>/dev/null || :
    sleep 60
    systemctl reboot --force --force 2>/dev/null || reboot -f
}

# ---- unit: confirm, and staging for the next boot. Profile first: boot loaders list what the profile has.

sync_disks() {
    sync -f "$PROFILE" /boot 2>/dev/null || sync
}

last_words() {
    case $status in
        124 | 137) echo "it was not done after $2 s" ;;
        *) tail -n 1 "$TX/$1" 2>/dev/null ;;
    esac
}

# The generation that has a system: the one that was named, the profile's own, or the newest.
generation_with() {
    for number in "$2" "$(generation)" $(generations | sort -rn); do
        case $number in '' | *[!0-9]*) continue ;; esac
        if [ "$(real "$PROFILE-$number-link")" = "$1" ]; then
            echo "$number"
            return 0
        fi
    done
    return 1
}

# After the profile was set: a system that a rollback left is none to go back to, until somebody activates it again.
remember() {
    new=$(get new)
    before=$(get old_profile)
    if [ -z "$(get rollback)" ]; then
        before=
        rm -f "$STATE/back"
    elif [ "$before" = "$new" ]; then
        return 0
    fi
    mkdir -p "$STATE"
    { grep -vxF -e "$new" -e "$before" "$STATE/left" 2>/dev/null; echo "$before"; } | grep . | tail -n 100 >"$STATE/left.new"
    mv -f "$STATE/left.new" "$STATE/left"
    if [ -n "$before" ]; then remember_back "$new" "$before"; fi
}

# Going back again must go no further: says from where the host went back to what its profile names.
remember_back() {
    if [ "$(real "$PROFILE")" != "$1" ]; then return 0; fi
    mkdir -p "$STATE"
    printf '%s\n' "$(generation) $1 $2" >"$STATE/back.new" && mv -f "$STATE/back.new" "$STATE/back"
}

# Names NEW as the one to boot. On failure `reason` says why and the caller puts things back.
make_default() {
    new=$(get new)
    generation_before=$(generation)
    # Without this note nothing could be put back.
    touch "$TX/profile_moved" 2>/dev/null || {
        put reason "there is no room in /run"
        return 1
    }
    limit=$(time_limit 120)
    status=0
    newest=$(generations | tail -n 1)
    if [ -n "$(get rollback)" ] && number=$(generation_with "$new" "$(get rollback)"); then
        set -- --switch-generation "$number"
    else
        set -- --set "$new"
    fi
    logged log timeout -k 10 "$limit" nix-env --profile "$PROFILE" "$@" || status=$?
    if [ "$status" != 0 ]; then
        put reason "the profile could not be set: $(last_words log "$limit")"
        return 1
    fi
    made=$(generation)
    if [ "$made" != "$generation_before" ] && [ "${made:-0}" -gt "${newest:-0}" ]; then put made_generation "$made"; fi
    sync_disks
    logged boot_log timeout -k 10 "$limit" "$new/bin/switch-to-configuration" boot || status=$?
    put boot_status "$status"
    if [ "$status" != 0 ]; then
        put reason "the boot loader could not be set (exit status $status): $(last_words boot_log "$limit")"
        return 1
    fi
    sync_disks
    # An exit status of 0 is no proof: a full /boot has been seen to give it.
    default=$(boot_default)
    case ${default#* } in
        "$new" | unknown) ;;
        *)
            put reason "the boot loader's default is still ${default#* }"
            return 1
            ;;
    esac
}

verb__confirm() {
    load_unit "$1"
    claim confirm || return 0
    phase confirming
    if [ "$(real /run/current-system)" != "$(get new)" ]; then
        go_back "the running system is $(real /run/current-system), not the one to confirm"
        return 0
    fi
    if [ "$(get goal)" != test ]; then
        if ! make_default; then
            go_back "$(get reason)"
            return 0
        fi
        remember
    fi
    finish confirmed
}

verb__stage() {
    load_unit "$1"
    claim confirm || return 0
    if make_default; then
        remember
        finish staged
    else
        restore_boot
        finish failed
    fi
}

verb__back() {
    load_unit "$1"
    claim back || return 0
    go_back "$(get asked)"
}

# ---- verb: poll ID|- WAIT

busy() {
    case $(get phase) in
        taken | testing | confirming | rolling_back | rebooting | staging) return 0 ;;
        # Claimed already: the next phase is about to be written.
        tested) [ -L "$TX/claim" ] ;;
        *) return 1 ;;
    esac
}

say_gone() {
    say phase gone
    say running "$(real /run/current-system)"
    say uptime "$(boot_age)"
}

verb_poll() {
    need_root
    wanted=$1
    if [ "$wanted" = - ]; then wanted=$(current_id); fi
    if [ -z "$wanted" ] || ! load "$wanted"; then
        say_gone
        return 0
    fi
    ends=$(($(now) + $2))
    while busy && [ "$(now)" -lt "$ends" ]; do
        sleep 0.1 2>/dev/null || sleep 1
    done
    waiting=no
    if busy; then waiting=yes; fi
    state=$(get phase)
    say id "$ID"
    for key in kind goal owner old new status back_status boot_status reason; do
        say "$key" "$(get "$key")"
    done
    say claim "$(readlink "$TX/claim" 2>/dev/null || :)"
    say running "$(real /run/current-system)"
    say boot_id "$(first_line /proc/sys/kernel/random/boot_id)"
    say ends_in "$(($(get deadline) - $(now)))"
    if [ "$waiting" = no ]; then
        for key in log boot_log back_log; do
            if [ -f "$TX/$key" ]; then tail -n 200 "$TX/$key" | say_lines "$key"; fi
        done
        say_lines baseline <"$TX/baseline"
        if [ -f "$TX/journal" ]; then say_lines journal <"$TX/journal"; fi
        if [ -f "$TX/failed" ]; then say_lines failed_at_switch <"$TX/failed"; fi
        failed_units | say_lines failed_unit
    fi
    say busy "$waiting"
    say phase "$state"
}

# ---- verb: confirm ID|- NEW WAIT SETTLE [IGNORED UNIT…]
# SETTLE: seconds since the activation for which no unit may have failed.

# Permanent already, or staged for the next boot; or proven with the goal `test`, which keeps nothing.
is_kept() {
    if is_right "$1" boot; then return 0; fi
    last_transaction && [ "$(get goal)/$(get new)/$(get phase)" = "test/$1/confirmed" ] && is_right "$1" test
}

verb_confirm() {
    need_root
    wanted=$1 system=$2 wait=$3 settle=$4
    shift 4
    case $wait$settle in *[!0-9]*) refuse bad_argument "$wait $settle" ;; esac
    if [ "$wanted" = - ]; then wanted=$(current_id); fi
    if [ -z "$wanted" ] || ! load "$wanted" || final "$(get phase)"; then
        if ! held && is_kept "$system"; then
            say outcome unchanged
            return 0
        fi
        say running "$(real /run/current-system)"
        if last_transaction && [ "$(get new)" = "$system" ]; then refuse ended "$(get phase) $(get reason)"; fi
        refuse no_guard "$system"
    fi
    [ "$(get new)" = "$system" ] || refuse other_system "$(get new)"
    case $(get phase) in tested | confirming) ;; *) refuse not_ready "$(get phase)" ;; esac
    say guard "$ID"
    say previous "$(get old)"
    # A second request, because the answer to the first was lost, only waits.
    if [ "$(get phase)" = tested ]; then
        printf '%s\n' "$@" >"$TX/ignored"
        settled=$(($(get tested_at) + settle))
        while
            failed_units | grep -vxF -f "$TX/baseline" | grep -vxF -f "$TX/ignored" >"$TX/late" || :
            ! [ -s "$TX/late" ] && [ "$(now)" -lt "$settled" ] && [ "$(get phase)" = tested ]
        do sleep 0.5 2>/dev/null || sleep 1; done
        if [ -s "$TX/late" ] && ! [ -L "$TX/claim" ]; then
            note_failures
            verb_poll "$ID" 0
            say outcome unhealthy
            return 0
        fi
        # Two requests may get here, the first being one whose connection was lost.
        start_unit confirm _confirm || unit_active confirm || [ -L "$TX/claim" ] || refuse start_failed "$(get reason)"
    fi
    while [ "$(get phase)" = tested ] && unit_active confirm; do sleep 0.1 2>/dev/null || sleep 1; done
    verb_poll "$ID" "$wait"
}

# ---- verb: back ID|- REASON WAIT

verb_back() {
    need_root
    wanted=$1
    if [ "$wanted" = - ]; then wanted=$(current_id); fi
    if [ -z "$wanted" ] || ! load "$wanted"; then
        say_gone
        return 0
    fi
    say guard "$ID"
    if ! final "$(get phase)" && ! [ -L "$TX/claim" ]; then
        put asked "$2" || :
        if start_unit back _back; then
            while ! [ -L "$TX/claim" ] && unit_active back; do sleep 0.1 2>/dev/null || sleep 1; done
        fi
    fi
    verb_poll "$ID" "$3"
}

# ---- verb: dry NEW: what an activation would do

verb_dry() {
    need_root
    need_nixos
    say previous "$(real /run/current-system)"
    if held; then report_holder; fi
    if ! [ -e "$1" ]; then
        say outcome not_there
        return 0
    fi
    need_system "$1"
    boot_differences /run/booted-system "$1" | say_lines pending_wanted
    if is_right "$1" "$2"; then
        say outcome unchanged
        return 0
    fi
    say outcome would_change
    if [ "$2" = boot ]; then return 0; fi
    status=0
    dry=$(timeout -k 5 "${3:-300}" "$1/bin/switch-to-configuration" dry-activate 2>&1 </dev/null) || status=$?
    say status "$status"
    printf '%s\n' "$dry" | say_lines log
}

# ---- verb: generation previous|N: its path
# `previous` is what the profile had before, and where that was gone back to already, that: it goes back once.

# The newest generation before the profile's with another system, but for systems that a rollback left.
before_this() {
    for number in $(generations | sort -rn); do
        path=$(real "$PROFILE-$number-link")
        if [ "$number" -ge "${here:-0}" ] || [ "$path" = "$now_has" ] || ! [ -e "$path" ]; then continue; fi
        if grep -qxF -e "$path" "$STATE/left" 2>/dev/null; then continue; fi
        echo "$number"
        return 0
    done
}

verb_generation() {
    if [ "$1" = previous ]; then
        here=$(generation)
        now_has=$(real "$PROFILE")
        if read -r at system from 2>/dev/null <"$STATE/back" && [ "$at $system" = "$here $now_has" ]; then
            say left "$from"
            number=$here
        else
            number=$(before_this)
        fi
    else
        number=$1
    fi
    case $number in '' | *[!0-9]*) refuse no_generation "$1" ;; esac
    path=$(real "$PROFILE-$number-link")
    [ -e "$path" ] || refuse no_generation "$number"
    say generation "$number"
    say system "$path"
}

# ---- verb: reboot ID OWNER SPAN EXPECTED

verb_reboot() {
    NEW_ID=$1 owner=$2 span=$3 expected=$4
    need_root
    need_nixos
    say boot_id "$(first_line /proc/sys/kernel/random/boot_id)"
    failed_units | say_lines baseline
    need_no_switch
    if [ -n "$expected" ]; then
        default=$(boot_default)
        case ${default#* } in
            "$expected") ;;
            unknown) [ "$(real "$PROFILE")" = "$expected" ] || refuse not_default "$(real "$PROFILE")" ;;
            *) refuse not_default "${default#* }" ;;
        esac
    fi
    take reboot "$owner" reboot "$expected" "$span"
    say guard "$ID"
    sync
    # A moment later, so that this answer gets through.
    systemd-run --quiet --collect --no-ask-password --unit="flotilla-reboot-$ID" --on-active=1 --timer-property=AccuracySec=100ms \
        systemctl reboot >"$TX/systemd-run" 2>&1 || {
        put reason "$(head -n 1 "$TX/systemd-run")"
        give_up start_failed
    }
    phase rebooting
    say phase rebooting
}

verb=${1:-}
[ $# -gt 0 ] && shift
case $verb in
    info | activate | poll | confirm | back | dry | generation | reboot | _guard | _test | _confirm | _stage | _back)
        "verb_$verb" "$@"
        ;;
    *)
        refuse bad_argument "$verb"
        ;;
esac
