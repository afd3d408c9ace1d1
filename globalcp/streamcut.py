"""Zones' streams kept within bounds in Redis: what is merged goes first, then what is not."""

from __future__ import annotations

import asyncio

import structlog

from zonemesh.errors import UnavailableError, WrongKeyError
from zonemesh.log.port import Store
from zonemesh.registry import Registry
from zonemesh.travel import up_log

STREAM_BYTES_MAX = 256 << 20
"""More than global's two snapshots lie apart, so that no stream in use comes near it."""
_LOOK_EVERY_S = 5.0

log = structlog.get_logger()


class StreamCutter:
    """Cuts a zone's stream that takes more than its share of Redis.

    A zone whose entries are cut away unread is met as after any gap: it publishes a snapshot, which
    holds the outcome of all it wrote, and the stream goes on from there.
    """

    def __init__(self, store: Store, registry: Registry, bytes_max: int) -> None:
        self._store = store
        self._registry = registry
        self._bytes_max = bytes_max
        self._unmeasured = False
        self.cut = 0
        """Times that entries which were not merged were cut away."""

    async def run(self) -> None:
        """Look at all streams, for ever.

        Raises:
            UnavailableError: The store does not answer.
        """
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for zone in await self._too_large(sorted(await self._store.zones())):
                try:
                    await self._shorten(zone)
                except WrongKeyError as error:
                    log.warning("zone_not_trimmed", zone=zone, error=str(error))

    async def _too_large(self, zones: list[str]) -> list[str]:
        names = {up_log(zone): zone for zone in zones}
        try:
            sizes = await self._store.sizes(list(names))
        except UnavailableError as error:
            if not self._unmeasured:
                self._unmeasured = True
                log.warning("zone_streams_not_measured", error=str(error))
            return []
        self._unmeasured = False
        return [names[name] for name, size in sizes.items() if size > self._bytes_max]

    async def _shorten(self, zone: str) -> None:
        stream = self._store.log(up_log(zone))
        head = await stream.head()
        if head is None:
            return
        cursor = self._registry.cursors.get(stream.name)
        if cursor is not None and cursor.incarnation == head.incarnation:
            removed = await stream.trim(cursor.position)
            log.info("zone_stream_shortened", zone=zone, entries=removed)
            if not await self._too_large([zone]):
                return
        removed = await stream.trim(head.position)
        self.cut += 1
        log.warning("zone_stream_cut", zone=zone, entries=removed, bytes_max=self._bytes_max)
