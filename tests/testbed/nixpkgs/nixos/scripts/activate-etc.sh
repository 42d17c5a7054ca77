#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes the new system's etc tree /etc's: /etc/static is the tree, /etc/x is a link to /etc/static/x. Links of ours that
# the tree no longer has go away; a file that is not ours stays, and is named.
set -eu
LC_ALL=C
export LC_ALL
new=$(readlink -f "$1/etc")

wanted=$(cd "$new" && find -L . ! -type d | sed 's|^\./||' | sort)
ours() { cd /etc && find . -path ./static -prune -o -type l -lname '/etc/static/*' -printf '%P\n'; }
present=$(ours | sort)

work=$(mktemp -d /run/nixos-etc.XXXXXX)
trap 'rm -rf "$work"' EXIT
printf '%s\n' "$wanted" > "$work/wanted"
printf '%s\n' "$present" > "$work/present"

ln -sfn "$new" /etc/.static.new
mv -T /etc/.static.new /etc/static

comm -13 "$work/wanted" "$work/present" | while IFS= read -r file; do
  [ -z "$file" ] || rm -f "/etc/$file"
done
comm -23 "$work/wanted" "$work/present" | while IFS= read -r file; do
  [ -n "$file" ] || continue
  if [ -e "/etc/$file" ] || [ -L "/etc/$file" ]; then
    echo "warning: /etc/$file is not managed by this system; leaving it alone" >&2
    continue
  fi
  mkdir -p "$(dirname "/etc/$file")"
  ln -s "/etc/static/$file" "/etc/$file"
done
# Empty directories that only we had filled, such as a unit's drop-ins.
comm -13 "$work/wanted" "$work/present" | while IFS= read -r file; do
  [ -z "$file" ] || rmdir "$(dirname "/etc/$file")" 2> /dev/null || true
done
touch /etc/NIXOS
