"""Scenarios run on virtual time, and say what happened when they fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
import structlog

from tests.scenarios.loglines import note_log
from tests.scenarios.virtualtime import VirtualLoop
from tests.scenarios.world import World


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], VirtualLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[note_log], cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An empty world; what went wrong unseen in it fails the test."""
    made = World()
    yield made
    await made.close()


@pytest.fixture
async def make_world() -> AsyncIterator[Callable[..., World]]:
    """Worlds with other than the usual settings."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(**options))
        return worlds[-1]

    yield make
    for each in worlds:
        await each.close()
