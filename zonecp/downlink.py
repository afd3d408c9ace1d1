"""What global's log says to this zone in particular goes into the zone's own log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgpack

from zonecp.inputs import FromGlobal
from zonecp.state import ZoneState
from zonemesh.ipam import BLOCK, Binding, Block, vip_kind
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.log.writer import Writer
from zonemesh.model import Change, Key, zone_of
from zonemesh.registry import Registry
from zonemesh.seen import Seen
from zonemesh.settings import GLOBAL_KEY, SETTINGS
from zonemesh.travel import SEEN, VERDICT

ADDRESSED = frozenset({BLOCK, SETTINGS, VERDICT})
_BLOCKS_MAX = 1_000


class Downlink:
    """Level-triggered: whenever something addressed may have changed, compare and copy."""

    def __init__(self, state: ZoneState, copy: Registry) -> None:
        self._state = state
        self._copy = copy
        self._news = asyncio.Event()
        self._news.set()
        self._unknown = False

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        """An index of the copy of global's log: only notices that there is something to look at."""
        del key, old, new
        joins = kind == LEGACY_VIP and bool(self._state.registry.table(LEGACY_VIP))
        joins = joins or (kind == SEEN and self._unknown)
        if joins or kind in ADDRESSED:
            self._news.set()

    def look_again(self) -> None:
        self._news.set()

    async def run(self, writer: Writer) -> None:
        """Copy for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            changes = self.pending()
            if changes:
                await writer.submit(FromGlobal(self._copy.cursor, changes))
                if len(changes) > _BLOCKS_MAX:
                    self._news.set()

    def pending(self) -> Sequence[Change]:
        """What is addressed to this zone and not in its own log yet."""
        own, copy = self._state.registry, self._copy
        zone = self._state.zone
        self._unknown = self._is_unknown()
        if self._unknown:
            return []
        changes = [
            Change(BLOCK, key, payload)
            for key, payload in copy.table(BLOCK).items()
            if zone_of(key) == zone
            and own.get(BLOCK, key) != payload
            and not self._state.has_handed_back(key, payload)
        ]
        changes += self._forgotten_blocks()
        settings = copy.get(SETTINGS, GLOBAL_KEY)
        if settings is not None and own.get(SETTINGS, GLOBAL_KEY) != settings:
            changes.append(Change(SETTINGS, GLOBAL_KEY, settings))
        changes += [*self._names(), *self._verdicts()]
        return changes[: _BLOCKS_MAX + 1]

    def _forgotten_blocks(self) -> Iterator[Change]:
        """What this zone has handed back, and global knows nothing of any more."""
        for key, payload in self._state.registry.table(BLOCK).items():
            if self._copy.get(BLOCK, key) is None and Block.unpack(payload).retired:
                yield Change(BLOCK, key, None)

    def _names(self) -> Iterator[Change]:
        """Legacy names from when this zone stood alone, with what global says of each."""
        for key, payload in self._state.registry.table(LEGACY_VIP).items():
            given = self._copy.get(LEGACY_VIP, key)
            if given is not None or not Binding.unpack(payload).live:
                yield Change(LEGACY_VIP, key, given)

    def _verdicts(self) -> Iterator[Change]:
        for key, payload in self._copy.table(VERDICT).items():
            kind, address = msgpack.unpackb(payload)
            if Key.parse(key).mesh == "":
                held = self._state.ledgers[kind].record_of(address)
                if held is not None and zone_of(held[0]) == self._state.zone:
                    yield Change(VERDICT, key, payload)
                continue
            packed = self._state.registry.get(vip_kind(kind), key)
            if packed is not None and Binding.unpack(packed).address == address:
                yield Change(VERDICT, key, payload)

    def _is_unknown(self) -> bool:
        """Whether a zone that stood alone has not been heard by global yet: what that says of a
        zone of this name may be about another one.
        """
        note = self._state.note
        if note is None or not note.alone:
            return False
        seen = Seen.of(self._copy, self._state.zone)
        return seen is None or seen.uid != note.uid
