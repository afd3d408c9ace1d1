"""The map as a hosts file, for a CoreDNS (or anything else) that reads one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, Final

import structlog

from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.resolver import Table

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.1
"""Between two looks whether the map has changed."""

SPACING_FACTOR: Final = 10.0
"""At most a tenth of the time is spent writing."""

RETRY_S: Final = 5.0
"""After a write that failed."""

SLICE: Final = 512
"""Names between two turns of the loop: about 1 ms."""


class HostsFile:
    """Writes the file behind the map's changes; a component for `supervise`."""

    def __init__(self, path: Path, table: Table, state: FeedState) -> None:
        self.writes = 0
        self.failures = 0
        self.names = 0
        """In the last write."""

        self.error: str | None = None
        self._path = path
        self._table = table
        self._state = state
        self._changes = 0
        self._written: int | None = None
        table.watches.append(self)

    def add(self, key: bytes, /) -> None:
        """As `resolver.Watch`."""
        del key
        self._changes += 1

    def status(self) -> dict[str, Any]:
        return {
            "path": str(self._path),
            "names": self.names,
            "writes": self.writes,
            "failures": self.failures,
            "error": self.error,
        }

    async def run(self) -> None:
        while True:
            started_s = time.monotonic()
            failed = self._due() and not await self._write()
            spent_s = time.monotonic() - started_s
            await asyncio.sleep(RETRY_S if failed else max(LOOK_S, SPACING_FACTOR * spent_s))

    def _due(self) -> bool:
        # Before the first map the file stays as it is: an empty one would deny every name.
        return self._table.loaded and self._state.whole and self._written != self._changes

    async def _write(self) -> bool:
        changes = self._changes
        lines = await self._lines()
        try:
            await asyncio.to_thread(_replace, self._path, lines)
        except OSError as error:
            self.failures += 1
            self.error = f"{self._path}: {error.strerror or error}"
            log.warning("hosts_file_not_written", path=str(self._path), error=str(error))
            return False
        self.error = None
        self.writes += 1
        self._written = changes
        return True

    async def _lines(self) -> list[str]:
        head = self._state.head
        mesh, zone = (head.mesh, head.zone) if head is not None else ("", "")
        lines = [f"# Kept by zonedp: mesh {mesh}, zone {zone}. What is changed here is lost.\n"]
        keys = self._table.keys()
        self.names = len(keys)
        for at in range(0, len(keys), SLICE):
            for name, addresses in self._table.named(keys[at : at + SLICE]):
                lines += [f"{_text(address)} {name}\n" for address in addresses]
            await asyncio.sleep(0)
        return lines


def _text(address: bytes) -> str:
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


def _replace(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="ascii") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o644)  # for a CoreDNS of another user, whatever the umask
    temporary.replace(path)
