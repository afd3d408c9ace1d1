"""Saying for a zone that was shut down that it is gone for good: the last entry of its stream.

Said by an operator's command and not by a process that stops: whoever restarts a zone, or one of
its replicas, does not leave. Should the zone be alive after all, its next entry is online again.
"""

from __future__ import annotations

import asyncio
import secrets

from zonemesh.errors import ConfigError, RefusedError
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Head, Log, Store
from zonemesh.model import Position
from zonemesh.travel import up_log
from zonemesh.wire import NO_HASH, UP_ENTRY_BYTES_MAX, Entry, decode

_LOOK_S = 0.2


async def leave(store: Store, zone: str, clock: Clock, *, watch_s: float) -> Position:
    """Append the goodbye of a zone of which no process runs; answers where it stands.

    To say it twice changes nothing.

    Args:
        store: Global's.
        zone: The zone's name.
        clock: As of whoever writes.
        watch_s: How long the zone must be silent to be taken for stopped: some heartbeats.

    Raises:
        ConfigError: There is no such zone, or it runs.
        UnavailableError: The store does not answer.
    """
    stream = store.log(up_log(zone))
    head = await stream.head()
    if head is None:
        raise ConfigError(
            [f"zone {zone}: nothing of it is in this Redis, so it has nothing to say"]
        )
    await _watch(stream, zone, head, clock.mono_s() + watch_s, clock)
    newest = await _newest(stream, zone, head)
    if newest.note.get("leave") is True:
        return newest.position
    appender = Appender(
        stream,
        writer=secrets.token_hex(8),
        clock=clock,
        place=head.place,
        log_time_ms=newest.log_time_ms,
        bytes_max=UP_ENTRY_BYTES_MAX,
    )
    # With all that whoever resumes the stream reads from its newest entry.
    base = list(newest.position) if newest.note.get("full") else newest.note.get("base")
    note = {"leave": True, "uid": head.owner, "base": base}
    try:
        sealed = await appender.open(head.position.term + 1, src=newest.src, note=note)
    except RefusedError as error:
        raise _alive(zone) from error
    return sealed.entry.position


async def _watch(stream: Log, zone: str, head: Head, until_s: float, clock: Clock) -> None:
    while clock.mono_s() < until_s:
        await asyncio.sleep(_LOOK_S)
        if await stream.head() != head:
            raise _alive(zone)


async def _newest(stream: Log, zone: str, head: Head) -> Entry:
    for raw in await stream.read(head.position.before(), count=1):
        sealed, _ = decode(raw.data, NO_HASH)
        return sealed.entry
    raise ConfigError([f"zone {zone}: its stream has lost its newest entry; start the zone first"])


def _alive(zone: str) -> ConfigError:
    return ConfigError(
        [f"zone {zone} is running, and is online again with whatever it says next: stop it first"]
    )
