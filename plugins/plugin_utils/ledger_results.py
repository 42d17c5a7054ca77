# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: what the ledger says of a group, as the modules return it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils.ledger import Deferral, Growing, Proof, as_dict, iso, last_rollouts
from ..module_utils.ledger_record import Standing
from ..module_utils.update_group import UpdateGroup

#: A group of which nothing is known.
NOTHING: Mapping[str, Any] = {
    "changed": False,
    "failed": False,
    "known_good": None,
    "known_good_ref": None,
    "soaking": None,
    "growing": None,
    "deferred": [],
    "rollouts": [],
}


def standing_result(group: UpdateGroup, standing: Standing, *, last: int) -> dict[str, Any]:
    """A group's result. last: how many of its rollouts to give, newest first."""
    return {
        "known_good": standing.known_good and _proof(standing.known_good),
        "known_good_ref": standing.ref,
        "soaking": standing.soaking and _proof(standing.soaking),
        "growing": standing.growing and _growing(standing.growing),
        "deferred": [_deferral(late) for late in standing.deferred],
        "rollouts": [as_dict(rollout) for rollout in last_rollouts(standing.rollouts, group.name, last)],
    }


def _proof(proof: Proof) -> dict[str, Any]:
    return {
        "commit": proof.commit,
        "proven": iso(proof.proven),
        "since": iso(proof.good_from),
        "soak": proof.soak,
        "systems": dict(proof.systems),
    }


def _growing(growing: Growing) -> dict[str, Any]:
    return {"commit": growing.commit, "systems": dict(growing.systems), "missing": dict(growing.missing)}


def _deferral(late: Deferral) -> dict[str, Any]:
    return {
        "host": late.host,
        "since": iso(late.since),
        "commit": late.commit,
        "system": late.system,
        "reason": late.reason,
        "missed": late.missed,
    }
