"""Redis as deployed, in tests: servers with users, replicas, sentinels, clusters and TLS."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port
from tests.redis_server import PORT_TRIES, READY_S
from zonemesh.errors import UnavailableError
from zonemesh.log.redis import RedisStore
from zonemesh.log.redischecks import Weakness, weaknesses_of
from zonemesh.log.redisfacts import facts_of
from zonemesh.log.redisrights import GLOBAL, Role
from zonemesh.runtime.redisserver import find_redis_server

POLL_S = 0.02
PATIENCE_S = 30.0
HOST = "127.0.0.1"
READY = ("Ready to accept connections", "+monitor master")
USERS = Path(__file__).parents[1] / "deploy" / "redis" / "users.acl"


@dataclass(slots=True)
class Node:
    """One redis-server with a configuration file of its own; started again with `start`."""

    directory: Path
    port: int
    sentinel: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def url(self, user: str = "", scheme: str = "redis") -> str:
        """With a password as in the sample of users."""
        credentials = f"{user}:change-me-{user}@" if user else ""
        return f"{scheme}://{credentials}{self.address}"

    def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            UnavailableError: It ended at once, or did not become ready.
        """
        log = self.directory / "log"
        seen = log.stat().st_size if log.exists() else 0
        arguments = ["--sentinel"] if self.sentinel else []
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [find_redis_server(os.environ), str(self.directory / "conf"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline_s = time.monotonic() + READY_S
        while True:
            said = log.read_bytes()[seen:].decode(errors="replace")
            if any(mark in said for mark in READY):
                return
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise UnavailableError(f"redis-server on {self.port}: {said[-500:]}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None


Settings = Sequence[tuple[str, str]]

DURABLE: Settings = (
    ("bind", HOST),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("save", '""'),
    ("maxmemory-policy", "noeviction"),
    ("repl-diskless-sync-delay", "0"),
)


@contextmanager
def server(directory: Path, *settings: tuple[str, str], tls: bool = False) -> Iterator[Node]:
    """A durable server, with further settings; with `tls` it has no other port."""
    with ExitStack() as stack:
        port_setting = "tls-port" if tls else "port"
        yield _started(directory, (*DURABLE, *settings), port_setting, stack)


@contextmanager
def sentinel(directory: Path, *settings: tuple[str, str], tls: bool = False) -> Iterator[Node]:
    """A sentinel; `settings` say what it watches."""
    with ExitStack() as stack:
        port_setting = "tls-port" if tls else "port"
        settings = (("bind", HOST), *settings)
        yield _started(directory, settings, port_setting, stack, sentinel=True)


def _started(
    directory: Path,
    settings: Settings,
    port_setting: str,
    stack: ExitStack,
    *,
    sentinel: bool = False,
) -> Node:
    directory.mkdir(parents=True)
    for attempt in range(PORT_TRIES):
        node = Node(directory, free_port(), sentinel=sentinel)
        ports = [(port_setting, str(node.port))]
        if port_setting != "port":
            ports.insert(0, ("port", "0"))
        lines = [f"{name} {value}" for name, value in (("dir", str(directory)), *ports, *settings)]
        (directory / "conf").write_text("\n".join(lines) + "\n")
        try:
            node.start()
        except UnavailableError:
            if attempt == PORT_TRIES - 1:
                raise
        else:
            stack.callback(node.kill)
            return node
    raise AssertionError("unreachable")


def users_file(directory: Path) -> Path:
    """A copy of the sample of users: a server may write to it."""
    copy = directory / "users.acl"
    copy.write_text(USERS.read_text())
    return copy


async def until(probe: Callable[[], Awaitable[bool]], patience_s: float = PATIENCE_S) -> None:
    """Ask until it is so: what another process does can only be polled."""
    async with asyncio.timeout(patience_s):
        while True:
            with suppress(UnavailableError, ConnectionError):
                if await probe():
                    return
            await asyncio.sleep(POLL_S)


def answers(store: RedisStore, wanted: bytes, *command: str) -> Callable[[], Awaitable[bool]]:
    """Whether the reply to a command has something in it."""

    async def asked() -> bool:
        return wanted in repr(await store.commands.call(*command)).encode()

    return asked


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(url)
    try:
        yield store
    finally:
        await store.close()


async def weaknesses(url: str, role: Role = GLOBAL) -> list[Weakness]:
    """What a start and `zonemesh doctor` say of a server, errors first."""
    async with store_at(url) as store:
        return weaknesses_of(await facts_of(store.commands, store.keys, role))
