"""Who claims a zone that another control plane runs, by what the newcomer says beside its stream.

Only what is shown to an operator comes of it: which of the two goes, they decide between themselves
(`zonecp.ownership`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import structlog

from zonemesh.errors import UnavailableError
from zonemesh.log.clock import Clock
from zonemesh.log.port import Store
from zonemesh.travel import CONTENDER, up_log

_LOOK_EVERY_S = 2.0
"""Less than half of what a word beside a stream lasts for."""
SHOWN_S = 600.0
"""How long a claim is shown after it was last heard: the claimant is gone after some seconds."""
_TEXT_MAX = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A control plane that has found another one in its zone."""

    uid: str
    url: str
    owner: str
    """The UID that it found there; its own, if one of the two runs on a copy of a dataDir."""
    first_ms: int
    last_ms: int
    """Wall time of this replica, when it was first and last heard."""


class Contenders:
    """The claims of the last minutes, by zone; a component for `supervise`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._claims: dict[str, Contender] = {}

    def of(self, zone: str) -> Contender | None:
        found = self._claims.get(zone)
        if found is None or self._clock.wall_ms() - found.last_ms > SHOWN_S * 1000:
            return None
        return found

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self._look()
            except UnavailableError as error:
                log.debug("claims_unknown", error=str(error))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        zones = {up_log(zone): zone for zone in sorted(await self._store.zones())}
        for name, payload in (await self._store.said(CONTENDER, sorted(zones))).items():
            self._heard(zones[name], payload)
        for zone in [zone for zone in self._claims if self.of(zone) is None]:
            del self._claims[zone]

    def _heard(self, zone: str, payload: bytes) -> None:
        try:
            about = msgpack.unpackb(payload)
        except (ValueError, msgpack.UnpackException):
            return
        if not isinstance(about, dict):
            return
        now_ms = self._clock.wall_ms()
        uid, url, owner = (_text(about, name) for name in ("uid", "url", "owner"))
        known = self.of(zone)
        if known is not None and (known.uid, known.url, known.owner) == (uid, url, owner):
            self._claims[zone] = replace(known, last_ms=now_ms)
            return
        log.warning("zone_claimed_twice", zone=zone, uid=uid, url=url, owner=owner)
        self._claims[zone] = Contender(
            uid=uid, url=url, owner=owner, first_ms=now_ms, last_ms=now_ms
        )


def _text(about: Mapping[str, Any], name: str) -> str:
    """A stranger's word about itself, as far as it can be shown."""
    value = about.get(name)
    short = isinstance(value, str) and len(value) <= _TEXT_MAX and value.isprintable()
    return str(value) if short else ""
