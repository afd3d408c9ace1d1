"""What tests of shells share: a zone for agents, a control plane for commands, a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.builders import FakeBackend, with_mesh
from tests.commands import app_of, serving
from tests.fake_zone import FakeZone, fake_zone
from zonemesh.log.redis import RedisStore


@pytest.fixture
async def zone() -> AsyncIterator[FakeZone]:
    async with fake_zone() as one:
        yield one


@pytest.fixture
def backend() -> FakeBackend:
    return with_mesh(FakeBackend())


@pytest.fixture
def url(backend: FakeBackend) -> Iterator[str]:
    with serving(app_of(backend)) as found:
        yield found


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_url)
    yield store
    await store.close()
