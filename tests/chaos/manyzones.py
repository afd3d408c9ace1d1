"""Many zones in one process: the real control planes over real Redis, without REST and disk.

python -m tests.chaos.manyzones URL COUNT: a line of JSON each 0.1 s, {"current": zones whose copy
of global's log is as new as it can be}, until it is ended.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from typing import Any, NoReturn

import structlog
import uvloop

from zonecp.config import MultizoneConfig, ZoneConfig, ZoneNameConfig
from zonecp.zone import Zone
from zonemesh.log.clock import Clock
from zonemesh.log.memory import MemoryStore
from zonemesh.log.redis import RedisStore
from zonemesh.runtime.main import GC_THRESHOLDS
from zonemesh.runtime.sections import RedisConfig
from zonemesh.runtime.supervise import Backoff, supervise
from zonemesh.travel import own_log

CURRENT_S = 1.5
"""A head is read each second."""
_EVERY_S = 0.1


async def main(url: str, count: int) -> None:
    zones = []
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            zone = _zone(url, f"many-{number}")
            zones.append(zone)
            group.create_task(supervise(zone.components(), Backoff(), random.Random()))
        while True:
            lags_s = [zone.ages.lag_s() for zone in zones]
            current = sum(
                zone.state.adopted and lag_s < CURRENT_S
                for zone, lag_s in zip(zones, lags_s, strict=True)
            )
            print(json.dumps({"current": current}), flush=True)
            await asyncio.sleep(_EVERY_S)


def _zone(url: str, name: str) -> Zone:
    config = ZoneConfig(
        redis=RedisConfig(url=url), multizone=MultizoneConfig(zone=ZoneNameConfig(name=name))
    )
    clock = Clock()
    # Leases in it do not end, as the lock of a file does not, however long this process is late.
    own = MemoryStore(lambda: 0.0).log(own_log(name))
    store = RedisStore(url, prefix=config.redis.key_prefix)
    return Zone(config, own, store=store, disk=None, clock=clock, url="")


def _drop(*_: Any) -> NoReturn:
    raise structlog.DropEvent


if __name__ == "__main__":
    structlog.configure(processors=[_drop])
    gc.set_threshold(*GC_THRESHOLDS)
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
