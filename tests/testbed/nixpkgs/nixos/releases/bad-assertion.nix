# SPDX-License-Identifier: GPL-3.0-or-later
# A failed assertion, on hosts with PostgreSQL only.
{ config, ... }:
{
  assertions = [
    {
      assertion = !config.services.postgresql.enable;
      message = "PostgreSQL 13 has reached its end of life. Set services.postgresql.package to a newer one.";
    }
  ];
}
