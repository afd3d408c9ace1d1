"""`--services N`: many services through west's bulk endpoint, until all resolve in east."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator

import aiohttp

from zonemesh.cli.demo.mesh import dataplane, line, name_in
from zonemesh.cli.demo.story import Loading, StepFailedError, Story

CHUNK = 500
"""Documents handed to the connection at a time."""

LOOK_S = 0.1
STALL_S = 15.0
"""Without any progress for so long, something is wrong."""

ASKED = 100
"""Names asked for at the end, beside the last one."""


async def load(story: Story) -> str:
    total = story.services
    loading = story.loading = Loading(total)
    started_s = time.monotonic()
    before = await _in_east(story)
    async with asyncio.TaskGroup() as group:
        group.create_task(_post(story, loading))
        await _arrive(story, loading, before)
    await _ask(story, total)
    took_s = time.monotonic() - started_s
    story.figures["load_s"] = round(took_s, 2)
    return f"{total:,} registered in west, all resolvable in east after {took_s:.1f} s"


async def _post(story: Story, loading: Loading) -> None:
    url = f"{story.mesh.urls['west']}/_bulk"
    timeout = aiohttp.ClientTimeout(total=None, sock_read=STALL_S)
    refused: str | None = None
    try:
        async with story.mesh.session.post(
            url, data=_lines(loading.total), timeout=timeout
        ) as response:
            async for raw in response.content:
                result = json.loads(raw)
                if result.get("status") in (200, 201):
                    loading.registered += 1
                else:
                    refused = refused or raw.decode().strip()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise StepFailedError(f"west's bulk endpoint: {error!r}") from error
    if refused is not None:
        raise StepFailedError(f"west refused {loading.total - loading.registered}, e.g. {refused}")


async def _lines(total: int) -> AsyncIterator[bytes]:
    for start in range(1, total + 1, CHUNK):
        numbers = range(start, min(start + CHUNK, total + 1))
        yield b"".join(
            line(dataplane(f"load-{n}", f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 8080))
            for n in numbers
        )


async def _arrive(story: Story, loading: Loading, before: int) -> None:
    moved_s = time.monotonic()
    while loading.resolvable < loading.total:
        seen = min(await _in_east(story) - before, loading.total)
        if seen > loading.resolvable:
            loading.resolvable, moved_s = seen, time.monotonic()
        elif time.monotonic() - moved_s > STALL_S:
            raise StepFailedError(
                f"east stands at {loading.resolvable:,} of {loading.total:,} for {STALL_S:g} s"
            )
        await asyncio.sleep(LOOK_S)


async def _in_east(story: Story) -> int:
    """Services of west with an address, as east's control plane has them."""
    state = await story.mesh.state("east") or {"global": {"records": {}}}
    return int(state["global"]["records"].get("vip.MeshService", 0))


async def _ask(story: Story, total: int) -> None:
    """The last one and a sample of the others, of east's agent."""
    numbers = {total, *random.sample(range(1, total + 1), min(ASKED, total))}
    deadline_s = time.monotonic() + STALL_S
    for number in numbers:
        name = name_in("east", f"load-{number}")
        while (await story.mesh.resolve("east", name)).address is None:
            if time.monotonic() > deadline_s:
                raise StepFailedError(f"{name} does not resolve in east")
            await asyncio.sleep(LOOK_S)
