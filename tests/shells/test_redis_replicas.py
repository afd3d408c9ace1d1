"""`redis.waitReplicas`: an append waits for replicas a little, and never fails for want of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from tests.chains import chain_of
from tests.redis_deployments import HOST, answers, server, until
from zonemesh.errors import RefusedError
from zonemesh.log.redis import RedisStore
from zonemesh.model import START


@pytest.mark.redis
@pytest.mark.timeout(60)
async def test_an_append_waits_for_its_replica_and_passes_without_it(tmp_path: Path) -> None:
    first, second, third, other = chain_of(4)
    with (
        server(tmp_path / "master") as master,
        server(tmp_path / "replica", ("replicaof", f"{HOST} {master.port}")) as replica,
    ):
        store = RedisStore(master.url(), wait_replicas=1, wait_ms=1_500)
        behind = RedisStore(replica.url())
        try:
            await until(answers(store, b"state=online", "INFO", "replication"))
            log = store.log("global")
            await log.create(first)
            await log.append(second)
            there = [raw.data for raw in await behind.log("global").read(START)]
            assert there == [first.data, second.data]
            assert store.unreplicated == 0

            replica.kill()
            with structlog.testing.capture_logs() as told:
                await log.append(third)
                await log.append(third)  # a retry is done as well
            assert store.unreplicated == 2
            assert [each["event"] for each in told] == ["append_not_replicated"]
            with pytest.raises(RefusedError):
                await log.append(second)
            await log.append(other)
            head = await log.head()
            assert head is not None
            assert head.position == other.entry.position
        finally:
            await store.close()
            await behind.close()
