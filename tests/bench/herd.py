"""Many agents come at once to one zone: until when all have the map, and what those that are there
already notice of it.

Run as a script this is the herd itself: so many subscriptions without a revision, opened at once.
An agent that is refused asks again as `zonedp` does. It needs no packages.
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import sys
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import asyncio

    from tests.bench.wire import Connection
    from tests.bench.world import BenchMesh

_HERD = "herd"
_RECV_BYTES = 256 << 10
_RETRY_S = 1.0
_CONNECTIONS = 8
_HEADERS_END = b"\r\n\r\n"
_EVENT_END = b"\n\n"


async def measure(mesh: BenchMesh, agents: int, *, rate: float, seconds: float) -> dict[str, Any]:
    """PUT → delta at a subscriber that is there already, alone and while the herd is served."""
    # Not at the top: the script runs where these are not to be found.
    client = await _Client.open(mesh.urls["west"])
    before = await client.put(rate, "alone", until=_after(seconds))
    rss, cpu_s = mesh.rss_bytes("west"), mesh.cpu_s("west")
    herd = mesh.processes.start_script(_HERD, __file__, mesh.urls["west"], str(agents))
    peak = 0

    def over() -> bool:
        nonlocal peak
        peak = max(peak, mesh.rss_bytes("west"))
        return herd.process.poll() is not None

    during = await client.put(rate, "herd", until=over)
    told = (mesh.directory / f"{_HERD}.log").read_text().splitlines()
    client.close()
    return {
        "agents": agents,
        **json.loads(told[-1]),
        "alone": before,
        "meanwhile": during,
        "cpu_s": round(mesh.cpu_s("west") - cpu_s, 2),
        "rss_growth_mb": round((peak - rss) / 1e6, 1),
    }


def _after(seconds: float) -> Callable[[], bool]:
    end_s = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end_s


class _Client:
    """A subscriber, and connections to write over: all there before the herd."""

    _writer: asyncio.StreamWriter
    _following: asyncio.Task[None]
    _connections: asyncio.Queue[Connection]

    def __init__(self) -> None:
        self._sent_s: dict[bytes, float] = {}
        self._taken_s: list[float] = []

    @classmethod
    async def open(cls, url: str) -> _Client:
        import asyncio

        from tests.bench.wire import Connection

        self = cls()
        host = urlsplit(url)
        reader, self._writer = await asyncio.open_connection(
            host.hostname, host.port, limit=64 << 20
        )
        self._writer.write(_request())
        begun = asyncio.Event()

        async def follow() -> None:
            while line := await reader.readline():
                if line.startswith(b"event: heartbeat"):
                    begun.set()
                elif b'"to":' in line[:200]:
                    now_s = time.perf_counter()
                    for service in [each for each in self._sent_s if each in line]:
                        self._taken_s.append(now_s - self._sent_s.pop(service))

        self._following = asyncio.create_task(follow())
        await begun.wait()
        self._connections = asyncio.Queue()
        for _ in range(_CONNECTIONS):
            self._connections.put_nowait(await Connection.open(url))
        return self

    async def put(self, rate: float, prefix: str, *, until: Callable[[], bool]) -> dict[str, Any]:
        import asyncio

        from tests.bench.propagation import summary

        self._taken_s = []
        begin_s = time.perf_counter()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not until():
                due_s = begin_s + number / rate
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                group.create_task(self._put(f"{prefix}-{number}", due_s))
                number += 1
        async with asyncio.timeout(60):
            while self._sent_s:  # noqa: ASYNC110 -- no hurry
                await asyncio.sleep(0.01)
        return summary(self._taken_s)

    async def _put(self, service: str, due_s: float) -> None:
        from tests.bench.wire import put
        from zonemesh.cli.demo.mesh import dataplane

        connection = await self._connections.get()
        self._sent_s[f'"{service}.svc.mesh.local"'.encode()] = due_s
        await connection.send(put(dataplane(service, "10.9.9.9", 8080)))
        self._connections.put_nowait(connection)

    def close(self) -> None:
        self._following.cancel()
        self._writer.close()
        while not self._connections.empty():
            self._connections.get_nowait().close()


def _request() -> bytes:
    path = "/meshes/default/_vips?watch=true&outbounds=false"
    return f"GET {path} HTTP/1.1\r\nHost: zone\r\n\r\n".encode()


class _Agent:
    def __init__(self, number: int) -> None:
        self.number = number
        self.sock = socket.socket()
        self.tail = b""
        self.headers = False
        self.status = b""

    def take(self, data: bytes) -> bool:
        """Whether the snapshot has come to its end with this."""
        seen = self.tail + data
        if not self.headers:
            at = seen.find(_HEADERS_END)
            if at < 0:
                self.tail = seen
                return False
            self.headers, self.status = True, seen[9:12]
            seen = seen[at + len(_HEADERS_END) :]
        self.tail = seen[-1:]
        return _EVENT_END in seen


def herd(url: str, agents: int) -> None:
    """Print when the last of them had its map, the median, and how often one was refused."""
    address = (urlsplit(url).hostname, urlsplit(url).port)
    selector = selectors.DefaultSelector()
    begin_s = time.perf_counter()
    due = [(begin_s, number) for number in range(agents)]
    done_s: dict[int, float] = {}
    refused, received = 0, 0
    kept = []
    while len(done_s) < agents:
        while due and due[0][0] <= time.perf_counter():
            agent = _Agent(heappop(due)[1])
            agent.sock.connect(address)
            agent.sock.sendall(_request())
            agent.sock.setblocking(False)
            selector.register(agent.sock, selectors.EVENT_READ, agent)
        wait_s = max(0.0, due[0][0] - time.perf_counter()) if due else 1.0
        for key, _ in selector.select(wait_s):
            agent = key.data
            try:
                data = agent.sock.recv(_RECV_BYTES)
            except ConnectionError:
                data = b""
            received += len(data)
            ended = agent.take(data)
            if not data or agent.status not in (b"", b"200"):
                refused += 1
                selector.unregister(agent.sock)
                agent.sock.close()
                heappush(
                    due, (time.perf_counter() + _RETRY_S * (1 + random.random()), agent.number)
                )
            elif ended and agent.number not in done_s:
                done_s[agent.number] = time.perf_counter() - begin_s
                kept.append(agent)
    ordered = sorted(done_s.values())
    print(
        json.dumps(
            {
                "all_current_s": round(ordered[-1], 2),
                "half_current_s": round(ordered[len(ordered) // 2], 2),
                "refused": refused,
                "received_mb": round(received / 1e6),
            }
        )
    )


if __name__ == "__main__":
    herd(sys.argv[1], int(sys.argv[2]))
