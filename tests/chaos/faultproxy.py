"""A TCP proxy whose links fail as they are told to: one link per client, each on a port of its own.

Its event loop runs in a thread, so that a test drives it by plain calls. What a link holds back is
delivered later, as TCP does after a partition; what it resets is gone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, TypeVar

T = TypeVar("T")

Way = Literal["up", "down"]
"""Up: from the client to the server."""

HOST = "127.0.0.1"
WAYS: tuple[Way, Way] = ("up", "down")
_CHUNK = 1 << 16
_DONE_S = 30.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: closing sends RST."""


class _Pair:
    """One connection of a client and the one made for it to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = {"down": client, "up": server}
        """By the way of the bytes that are written to it."""
        self.ended: set[Way] = set()
        """Ways that were closed: what is sent on is lost."""

    def reset(self) -> None:
        for writer in self.ends.values():
            with suppress(OSError):  # the other side may have closed it a moment ago
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def half_close(self, way: Way) -> None:
        writer = self.ends[way]
        self.ended.add(way)
        if not writer.is_closing():
            with suppress(OSError):
                writer.write_eof()


class Link:
    """One client's way to a server. Every method may be called from any thread and takes effect
    before it returns.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, target_port: int) -> None:
        self.name = name
        self.port = 0
        self.sent: dict[Way, int] = {"up": 0, "down": 0}
        """Bytes handed on."""
        self._loop = loop
        self._target_port = target_port
        self._refuses = False
        self._delay_s = 0.0
        self._open: dict[Way, asyncio.Event] = {}
        self._pairs: set[_Pair] = set()
        self._flapping: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None

    # Faults

    def heal(self) -> None:
        """No fault any more; what was held back goes on."""
        self._do(self._heal)

    def cut(self) -> None:
        """Connections are reset, new ones too."""
        self._do(self._cut)

    def hold(self, *ways: Way) -> None:
        """Nothing gets through (one way if named); connections stay, new ones are accepted."""

        def hold() -> None:
            for way in ways or WAYS:
                self._open[way].clear()

        self._do(hold)

    def delay(self, seconds: float) -> None:
        """Each piece arrives later, in both ways."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def reset(self) -> None:
        """Connections are reset once; new ones are served."""
        self._do(self._reset)

    def half_close(self, way: Way) -> None:
        """The one at this way's end sees the other's end of file; the other way stays open."""

        def half_close() -> None:
            for pair in self._pairs:
                pair.half_close(way)

        self._do(half_close)

    def flap(self, period_s: float) -> None:
        """Cut and served in turn, until `heal`."""

        async def flap() -> None:
            while True:
                self._cut()
                await asyncio.sleep(period_s)
                self._refuses = False
                await asyncio.sleep(period_s)

        def begin() -> None:
            self._flapping = self._loop.create_task(flap())

        self._do(begin)

    def lead_to(self, port: int) -> None:
        """Another server from now on: connections to the former one are reset."""

        def change() -> None:
            self._target_port = port
            self._reset()

        self._do(change)

    # Within the loop

    def _do(self, action: Callable[[], object]) -> None:
        async def run() -> None:
            action()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(_DONE_S)

    def _heal(self) -> None:
        if self._flapping is not None:
            self._flapping.cancel()
            self._flapping = None
        self._refuses = False
        self._delay_s = 0.0
        for gate in self._open.values():
            gate.set()

    def _cut(self) -> None:
        self._refuses = True
        self._reset()

    def _reset(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    async def start(self, port: int) -> None:
        self._open = {way: asyncio.Event() for way in WAYS}
        self._heal()
        self._server = await asyncio.start_server(self._serve, HOST, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._heal()
        self._refuses = True
        assert self._server is not None
        self._server.close()
        self._reset()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            if self._refuses:
                raise ConnectionRefusedError
            back, server = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            _Pair(client, client).reset()
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, pair, "up"), self._pump(back, pair, "down"))
        except OSError:
            pair.reset()
        finally:
            self._pairs.discard(pair)
            for writer in (client, server):
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, pair: _Pair, way: Way) -> None:
        writer = pair.ends[way]
        while data := await reader.read(_CHUNK):
            await self._open[way].wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            if writer.is_closing() or way in pair.ended:
                return
            self.sent[way] += len(data)
            writer.write(data)
            await writer.drain()
        await self._open[way].wait()
        pair.half_close(way)


class FaultProxy:
    """Links and the thread that they run in. Close it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: dict[str, Link] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="proxy")
        self._thread.start()

    def link(self, name: str, target_port: int, *, port: int = 0) -> Link:
        """The link of this name, made when first asked for."""
        if name not in self._links:
            link = Link(self._loop, name, target_port)
            self._run(link.start(port))
            self._links[name] = link
        return self._links[name]

    def close(self) -> None:
        for link in self._links.values():
            self._run(link.stop())
        self._run(_finished())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_DONE_S)
        self._loop.close()

    def _run(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_DONE_S)


async def _finished() -> None:
    """Let what was reset end."""
    me = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not me]
    _, pending = await asyncio.wait(tasks, timeout=1.0) if tasks else (set(), set())
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
