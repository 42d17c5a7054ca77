# SPDX-License-Identifier: GPL-3.0-or-later
# Hosts say which commit they were built from. Every commit then changes every system, so it is not for everyone:
# import it in modules/base.nix if you want it.
{ self, ... }:
{
  system.configurationRevision = self.rev or self.dirtyRev or null;
}
