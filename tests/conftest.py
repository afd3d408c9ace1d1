"""Fixtures and settings that every folder of tests shares."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from tests.coredns_server import find_coredns
from tests.patience import SLOWER
from tests.redis_server import RedisServer, running

# `ci` repeats the same examples, so that no change fails by luck; no deadline on two noisy cores.
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("nightly", deadline=None, print_blob=True, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Timeouts end what hangs, and nothing that is only slow."""
    for item in items:
        mark = item.get_closest_marker("timeout")
        if mark is not None:
            item.add_marker(pytest.mark.timeout(SLOWER * mark.args[0]), append=False)


# pytest-asyncio 1.5 asks for the main thread's loop between tests. Where there is none it makes one
# and leaves it open, which some later, innocent test is then blamed for.
@pytest.fixture(scope="session", autouse=True)
def _main_loop() -> Iterator[None]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


# Synchronous: an async fixture can then fetch it with `request.getfixturevalue`.
@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The demo's choice of server (PATH, else the wheel's), one per xdist worker."""
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The session's server, emptied."""
    assert redis_server.command("FLUSHALL") == b"+OK\r\n"
    return redis_server.url


@pytest.fixture
def no_blocking() -> Iterator[BlockBuster]:
    """Within this test, a blocking call on the event loop raises `BlockingError`."""
    with blockbuster_ctx() as blocker:
        # redis-py reads its own version from disk on every new connection.
        for function in blocker.functions.values():
            function.can_block_in("redis/utils.py", "get_lib_version")
        yield blocker


@pytest.fixture(scope="session")
def coredns_program() -> Path:
    """A real CoreDNS; see `tests.coredns_server`."""
    return find_coredns()
