"""A follower that is told to end does, whatever its log's client makes of a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.log.memory import MemoryLog, MemoryStore
from zonemesh.log.port import Raw
from zonemesh.model import Position
from zonemesh.registry import Registry

pytestmark = pytest.mark.looptime


class Deaf(MemoryLog):
    """Loses a cancellation, as a client between two timeouts of its own may."""

    async def read(
        self, after: Position, *, block_s: float = 0.0, count: int = 512
    ) -> Sequence[Raw]:
        with suppress(asyncio.CancelledError):
            return await super().read(after, block_s=block_s, count=count)
        return ()


async def test_a_cancellation_that_was_lost_ends_a_follower_all_the_same() -> None:
    store = MemoryStore(asyncio.get_running_loop().time)
    log = Deaf(store, "global")
    await Appender(log, writer="w", clock=Clock()).create("one", term=1)
    follower = Follower(log, Registry(), clock=Clock(), on_entries=lambda _: None)
    running = asyncio.ensure_future(follower.run())
    await asyncio.sleep(3.2)  # within a read that waits

    running.cancel()

    done, _ = await asyncio.wait([running], timeout=5.0)
    assert done == {running}
