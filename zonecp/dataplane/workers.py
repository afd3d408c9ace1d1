"""Further processes that answer DNS on the same port (SO_REUSEPORT), each with the agent's map.

The agent alone follows the zone: what it is told goes on to each worker, in pieces and as it
changes. A worker that ends is started anew; the kernel gives its queries to the others meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import structlog

from zonecp.dataplane.counts import GAUGES, Counts
from zonecp.dataplane.outbounds import Change, Outbound, Outbounds
from zonecp.dataplane.querylog import Wanted
from zonecp.dataplane.relay import Channel, Hello, Update
from zonecp.dataplane.resolver import Table
from zonemesh.errors import UnavailableError, WireError
from zonemesh.runtime.supervise import Component

log = structlog.get_logger(__name__)

PIECE: Final = 512
"""Names or outbounds in one update: about 0.2 ms to encode."""

BEAT_S: Final = 1.0
"""An update at least so often, also where nothing has changed."""

STOP_S: Final = 2.0


class Workers:
    """All but the agent's own process; components for `supervise`."""

    def __init__(
        self,
        count: int,
        *,
        hello: Callable[[], dict[str, Any]],
        secret: bytes,
        table: Table,
        outbounds: Outbounds | None,
        query_log: Callable[[], Wanted],
    ) -> None:
        """Args:
        count: How many.
        hello: The configuration for them, once the agent's port is bound.
        secret: Of the loop probe.
        table: What they are to know.
        outbounds: The same, if SRV is answered.
        query_log: What is to be logged.
        """
        self.restarts = 0
        self._workers = [_Worker(index, table, outbounds, query_log) for index in range(count)]
        self._hello = hello
        self._secret = secret

    @property
    def running(self) -> int:
        return sum(worker.running for worker in self._workers)

    def components(self) -> dict[str, Component]:
        return {f"worker-{worker.number}": self._keeping(worker) for worker in self._workers}

    def counts(self) -> Iterable[Counts]:
        """As of at most a second ago; what ended workers counted included."""
        for worker in self._workers:
            yield worker.ended
            yield worker.counts

    def _keeping(self, worker: _Worker) -> Component:
        async def run() -> None:
            try:
                await worker.run(Hello(self._hello(), worker.number, self._secret))
            except UnavailableError:
                self.restarts += 1
                raise

        return run


class _Worker:
    def __init__(
        self,
        index: int,
        table: Table,
        outbounds: Outbounds | None,
        query_log: Callable[[], Wanted],
    ) -> None:
        self.number = index + 2
        """The agent itself is the first."""

        self.running = False
        self.counts = Counts()
        self.ended = Counts()
        self._table = table
        self._outbounds = outbounds
        self._query_log = query_log
        self._touched = _Touched()
        if outbounds is not None:
            outbounds.listen(self._touched.outbounds_changed)

    async def run(self, hello: Hello) -> None:
        """Start it, and tell it what changes.

        Raises:
            UnavailableError: It has ended; to be called again.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "zonecp.dataplane", "worker", str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C is the agent's, and its end is the worker's
                )  # fmt: skip
            except OSError as error:
                ours.close()
                raise UnavailableError(f"worker {self.number}: {error}") from error
        channel = Channel(*await asyncio.open_connection(sock=ours))
        self._touched.begin(self._table.keys(), self._outbounds or ())
        self._table.watches.append(self._touched)
        try:
            await channel.send(hello)
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(channel))
                await self._hear(channel)
                telling.cancel()
        except* (OSError, WireError) as error:
            log.warning("worker_lost", worker=self.number, error=str(error.exceptions[0]))
        finally:
            self.running = False
            self._table.watches.remove(self._touched)
            self._touched.end()
            self._count_ended()
            channel.close()
            status = await _ended(process)
        raise UnavailableError(f"worker {self.number} has ended with status {status}")

    async def _hear(self, channel: Channel) -> None:
        while (counts := await channel.receive(Counts)) is not None:
            self.counts = counts
            self.running = True  # it counts once it has its sockets

    async def _tell(self, channel: Channel) -> None:
        while True:
            await self._touched.wait(BEAT_S)
            wanted = self._query_log()
            left_s = wanted.until_s - time.monotonic()
            entries = self._table.pick(self._touched.take(PIECE))
            outbounds, removed = self._touched.take_outbounds(PIECE, self._outbounds)
            more = self._touched.more
            whole = self._outbounds is not None and self._outbounds.whole
            await channel.send(
                Update(
                    domains=self._table.domains,
                    loaded=self._table.loaded,
                    complete=self._table.complete,
                    entries=entries,
                    outbounds=outbounds,
                    removed_outbounds=removed,
                    outbounds_whole=whole and not more,
                    more=more,
                    query_log_s=max(left_s, 0.0),
                    query_log_sample=wanted.sample,
                )
            )

    def _count_ended(self) -> None:
        for gauge in GAUGES:
            self.counts.numbers.pop(gauge, None)
        self.ended.add(self.counts)
        self.counts = Counts()


class _Touched:
    """What a worker has not been told yet."""

    def __init__(self) -> None:
        self._outbound_ids: dict[str, None] = {}
        self._keys: dict[bytes, None] = {}
        self._news = asyncio.Event()
        self._listening = False

    def begin(self, keys: Iterable[bytes], outbounds: Iterable[Outbound]) -> None:
        self._keys = dict.fromkeys(keys)
        self._outbound_ids = dict.fromkeys(outbound.id for outbound in outbounds)
        self._listening = True
        self._news.set()

    def end(self) -> None:
        self._listening = False
        self._keys.clear()
        self._outbound_ids.clear()

    def add(self, key: bytes, /) -> None:
        self._keys[key] = None
        self._news.set()

    def outbounds_changed(self, change: Change) -> None:
        if self._listening:
            self._outbound_ids.update(dict.fromkeys(each.id for each in change.put))
            self._outbound_ids.update(dict.fromkeys(each.id for each in change.removed))
            self._news.set()

    @property
    def more(self) -> bool:
        return bool(self._keys or self._outbound_ids)

    async def wait(self, timeout_s: float) -> None:
        if not self.more:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()

    def take(self, count: int) -> list[bytes]:
        return [self._keys.popitem()[0] for _ in range(min(count, len(self._keys)))]

    def take_outbounds(
        self, count: int, outbounds: Outbounds | None
    ) -> tuple[list[Outbound], list[str]]:
        """Those that are there, without endpoints; and those that are gone."""
        if outbounds is None:
            return [], []
        ids = [self._outbound_ids.popitem()[0] for _ in range(min(count, len(self._outbound_ids)))]
        found = [outbounds.get(each) for each in ids]
        put = [Outbound(id=each.id, kind=each.kind, vips=each.vips, port=each.port, name=each.name)
               for each in found if each is not None]  # fmt: skip
        gone = [each for each, outbound in zip(ids, found, strict=True) if outbound is None]
        return put, gone


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Its status; one that does not end by itself once its socket is closed is killed."""
    try:
        async with asyncio.timeout(STOP_S):
            return await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        return await process.wait()
