"""Keeps Envoy's DNS listener in step with the names that the agent answers itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final

from zonecp.dataplane.envoy.dnsfilter import NAME, dns_listener, virtual_domains
from zonecp.dataplane.envoy.messages import serialized
from zonecp.dataplane.envoy.store import LISTENER, Ref, Resources
from zonecp.dataplane.resolver import Table

SPACING_S: Final = 0.25
"""Every change replaces the whole listener, and Envoy keeps each former one for its drain time."""

SPACING_FACTOR: Final = 20.0
SLICE: Final = 256


class DnsNames:
    """Makes the listener; `run` is a component for `supervise`."""

    def __init__(
        self,
        table: Table,
        resources: Resources,
        *,
        address: str,
        port: int,
        changed: Callable[[], None],
    ) -> None:
        self.names = 0
        """In the listener."""

        self._table = table
        self._resources = resources
        self._changed = changed
        self._place = (address, port)
        self._dirty = True
        table.watches.append(self)

    def add(self, _key: bytes, /) -> None:
        """A name has changed."""
        self._dirty = True

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            started_s = clock()
            if self._dirty:
                await self._make()
            await asyncio.sleep(max(SPACING_S, SPACING_FACTOR * (clock() - started_s)))

    async def _make(self) -> None:
        self._dirty = False
        domains: list[bytes] = []
        found = iter([*self._table.items()])
        while piece := [*islice(found, SLICE)]:
            domains += virtual_domains(piece)
            await asyncio.sleep(0)
        self.names = len(domains)
        message = dns_listener(*self._place, domains)
        if self._resources.put(Ref(LISTENER, NAME), serialized(message)):
            self._changed()
