"""Long work in slices, so that other requests get a turn in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

SLICE = 2_000
"""Keys looked at before other requests get a turn: some 5 ms."""
RECORDS_SLICE = 500
"""Records counted before the same: each must be decoded, at some 10 µs."""

T = TypeVar("T")


async def slices(items: Sequence[T], size: int = SLICE) -> AsyncGenerator[Sequence[T]]:
    """Parts of a long sequence, with a turn for other requests between them."""
    for start in range(0, len(items), size):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + size]
