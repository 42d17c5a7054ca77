#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# As systemd-boot's installer does: an entry for each generation of the system profile, kernels and initrds copied to the
# boot partition, and the default is the entry whose system is the given one. A system that no generation holds gets no
# entry, and then the default stays as it is.
set -eu
LC_ALL=C
export LC_ALL
default=$1
limit=$2
timeout=$3
boot=/boot
profile=/nix/var/nix/profiles/system

mkdir -p "$boot/loader/entries" "$boot/EFI/nixos"
keep=$(mktemp -d /run/nixos-boot.XXXXXX)
trap 'rm -rf "$keep"' EXIT
: > "$keep/entries"
: > "$keep/files"

generations() {
  for link in "$profile"-*-link; do
    [ -L "$link" ] || continue
    number=${link#"$profile"-}
    echo "${number%-link}"
  done | sort -n | if [ "$limit" -gt 0 ]; then tail -n "$limit"; else cat; fi
}

# The name on the boot partition: the store path's and the file's, as in HASH-linux-6.12-bzImage.efi.
boot_name() {
  source=$(readlink -f "$1")
  directory=$(dirname "$source")
  echo "$(basename "$directory")-$(basename "$source").efi"
}

# plan ID TITLE SYSTEM: remember what this entry needs, write nothing yet.
plan() {
  printf '%s\n' "$1.conf" >> "$keep/entries"
  kernel=$(boot_name "$3/kernel")
  initrd=$(boot_name "$3/initrd")
  printf '%s\n' "$kernel" "$initrd" >> "$keep/files"
  printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$kernel" "$initrd" >> "$keep/plan"
}

# copy SOURCE NAME
copy() {
  [ ! -e "$boot/EFI/nixos/$2" ] || return 0
  if ! cp -L "$1" "$boot/EFI/nixos/.$2.tmp"; then
    rm -f "$boot/EFI/nixos/.$2.tmp"
    return 1
  fi
  mv "$boot/EFI/nixos/.$2.tmp" "$boot/EFI/nixos/$2"
}

replace() {
  cat > "$1.tmp" || { rm -f "$1.tmp"; return 1; }
  mv "$1.tmp" "$1"
}

write_entry() {
  id=$1 title=$2 system=$3 kernel=$4 initrd=$5
  copy "$system/kernel" "$kernel"
  copy "$system/initrd" "$initrd"
  replace "$boot/loader/entries/$id.conf" << EOT
title $title
sort-key nixos
version ${id#nixos-} NixOS $(cat "$system/nixos-version")
linux /EFI/nixos/$kernel
initrd /EFI/nixos/$initrd
options init=$system/init $(cat "$system/kernel-params")
EOT
  if [ "$(readlink -f "$system")" = "$(readlink -f "$default")" ]; then
    replace "$boot/loader/loader.conf" << EOT
timeout $timeout
default $id.conf
editor 0
EOT
  fi
}

: > "$keep/plan"
for number in $(generations); do
  system=$(readlink -f "$profile-$number-link")
  [ -e "$system/kernel" ] || continue
  plan "nixos-generation-$number" "NixOS" "$system"
  for child in "$system"/specialisation/*; do
    [ -e "$child/kernel" ] || continue
    plan "nixos-generation-$number-specialisation-${child##*/}" "NixOS (${child##*/})" "$(readlink -f "$child")"
  done
done

# Room first: entries and kernels of generations that are gone.
for entry in "$boot"/loader/entries/nixos-*.conf; do
  [ ! -e "$entry" ] || grep -qxF "${entry##*/}" "$keep/entries" || rm -f "$entry"
done
for file in "$boot"/EFI/nixos/*.efi; do
  [ ! -e "$file" ] || grep -qxF "${file##*/}" "$keep/files" || rm -f "$file"
done
tab=$(printf '\t')
while IFS=$tab read -r id title system kernel initrd; do
  write_entry "$id" "$title" "$system" "$kernel" "$initrd"
done < "$keep/plan"
