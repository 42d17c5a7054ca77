#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The second stage: what the boot loader's entry names as init=.
systemConfig=@out@
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

echo "<<< NixOS Stage 2 >>>"
mkdir -p /run/nixos
ln -sfn "$systemConfig" /run/booted-system
echo "running activation script..."
"$systemConfig/activate"
echo "starting systemd..."
# The base's /etc/hostname must not win over the system's name; in a container systemd reads its own arguments for this.
exec /lib/systemd/systemd "systemd.hostname=$(cat /proc/sys/kernel/hostname)" "$@"
