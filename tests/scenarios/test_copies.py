"""The copy on disk of a log that lives elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.copykeeper import CopyKeeper
from zonemesh.log.memory import MemoryStore
from zonemesh.log.sqlite import SqliteLog
from zonemesh.model import Change
from zonemesh.registry import Registry

ROWS = 20_000


async def test_a_copy_whose_rewriting_is_broken_off_is_still_one(tmp_path: Path) -> None:
    disk = SqliteLog(tmp_path / "global.db", "global", durable=False)
    original = MemoryStore(asyncio.get_running_loop().time).log("global")
    registry = Registry()
    keeper = CopyKeeper(disk, registry)
    appender = Appender(original, writer="a", clock=Clock())
    sealed = await appender.create("inc", term=1)
    for part in range(10):
        registry.apply(sealed)
        keeper.applied([sealed])
        rows = [Change("X", f"default/w//{part}-{n}", b"x") for n in range(ROWS // 10)]
        sealed = await appender.commit(changes=rows)
    await keeper.flush()
    held = registry.digest

    for turns in range(0, 40, 3):
        registry.apply(
            await appender.commit(changes=[Change("X", "default/w//new", b"%d" % turns)])
        )
        keeper.replaced()
        flushing = asyncio.ensure_future(keeper.flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        loaded = Registry()

        assert await CopyKeeper(disk, loaded).load()
        assert loaded.digest in {held, registry.digest}

    await keeper.flush()
    loaded = Registry()
    assert await CopyKeeper(disk, loaded).load()
    assert loaded.digest == registry.digest
    await disk.close()
