"""How users say what becomes of a service in other zones once its own zone is lost: a label."""

from __future__ import annotations

import re
from typing import NamedTuple

LABEL = "zonemesh.io/lost-zone-policy"
"""On a MeshService, or on a Mesh for all of its services that have none."""
_WITHDRAW = re.compile(r"withdraw-([0-9]{1,6})([smh])")
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000}


class Policy(NamedTuple):
    """What is to be done about a lost zone's service; nothing, unless it says so."""

    unavailable: bool = False
    withdraw_after_ms: int | None = None
    """Global's log time, from when the zone was found to be gone."""


KEEP = Policy()


def parse_policy(text: str) -> Policy | None:
    """`keep`, `unavailable` or `withdraw-<number><s|m|h>`; None for anything else."""
    if text == "keep":
        return KEEP
    if text == "unavailable":
        return Policy(unavailable=True)
    found = _WITHDRAW.fullmatch(text)
    if found is None:
        return None
    return Policy(withdraw_after_ms=int(found[1]) * _UNITS_MS[found[2]])


def policy_fault(text: str) -> str | None:
    """What is wrong with a label's value, for whoever applies it."""
    if parse_policy(text) is not None:
        return None
    return (
        f"{text!r} is no policy: must be keep, unavailable or withdraw-<time>, as in withdraw-30s,"
        " withdraw-5m or withdraw-24h"
    )
