"""A real redis-server for tests: one per session (and xdist worker), on loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.ports import free_port
from zonemesh.errors import UnavailableError
from zonemesh.runtime.redisserver import find_redis_server, start_redis_server, wait_ready

READY_S = 45.0
"""Generous: two noisy cores, and a cold disk cache."""

PORT_TRIES = 5
"""A free port may be taken by someone else before the server binds it."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    process: subprocess.Popen[bytes]
    port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def version(self) -> tuple[int, ...]:
        return program_version()

    def command(self, line: str) -> bytes:
        """Send one inline command, such as `FLUSHALL` or `CLIENT PAUSE 500`; its first reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(line.encode() + b"\r\n")
            return connection.recv(65_536)


@contextmanager
def running(directory: Path) -> Iterator[RedisServer]:
    """A server of one's own, for a test that stops or kills it."""
    server = _start(directory)
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.process.kill()
        server.process.wait(timeout=10)


def _start(directory: Path) -> RedisServer:
    binary = find_redis_server(os.environ)
    log = directory / "redis.log"
    for attempt in range(PORT_TRIES):
        port = free_port()
        process = start_redis_server(binary, directory=directory, port=port, log=log)
        try:
            wait_ready(process, directory=directory, port=port, log=log, timeout_s=READY_S)
        except UnavailableError:
            process.kill()
            process.wait(timeout=10)
            if attempt == PORT_TRIES - 1:
                raise
        else:
            return RedisServer(process, port, directory)
    raise AssertionError("unreachable")


@cache
def program_version() -> tuple[int, ...]:
    binary = find_redis_server(os.environ)
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said.stdout)
    assert found is not None, said.stdout
    return tuple(map(int, found.groups()))


def needs_redis(*least: int) -> None:
    """Skip the test where the server is older, as the wheel's is; in CI that is a failure."""
    version = program_version()
    if version < least:
        why = f"needs Redis {'.'.join(map(str, least))}, and here is {'.'.join(map(str, version))}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
