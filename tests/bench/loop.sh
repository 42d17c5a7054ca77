#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The plain way: build everything, then copy and switch all hosts at once: loop.sh FLAKE HOST…
set -euo pipefail
flake=$1
shift
export NIX_SSHOPTS="-F $FLOTILLA_TESTBED_SSH_CONFIG"
installables=()
for host in "$@"; do installables+=("$flake#nixosConfigurations.$host.config.system.build.toplevel"); done
mapfile -t systems < <(nix build --no-link --print-out-paths "${installables[@]}")

update() {
  local host=$1 system=$2
  nix copy --no-check-sigs --to "ssh-ng://$host" "$system"
  # shellcheck disable=SC2029 # the path is meant to be put in here
  ssh -F "$FLOTILLA_TESTBED_SSH_CONFIG" "$host" \
    "nix-env -p /nix/var/nix/profiles/system --set $system && $system/bin/switch-to-configuration switch"
}

jobs=()
for number in "${!systems[@]}"; do
  host=$(basename "${systems[number]}" | sed -E 's/.*-nixos-system-([^-]+)-.*/\1/')
  update "$host" "${systems[number]}" &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
