"""What tests of the agent's shells share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fake_zone import FakeZone, fake_zone


@pytest.fixture
async def zone() -> AsyncIterator[FakeZone]:
    async with fake_zone() as one:
        yield one
