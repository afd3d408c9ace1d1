"""What an agent and its workers tell each other over a socket pair: frames of msgpack.

frame  = length (4 octets, big-endian), payload
first  = `Hello`; then `Update`s to the worker and `Counts` from it
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

import msgspec

from zonecp.dataplane.outbounds import Outbound
from zonemesh.errors import WireError

FRAME_BYTES_MAX: Final = 16 << 20
T = TypeVar("T")


class Hello(msgspec.Struct):
    config: dict[str, Any]
    """As `runtime.config.dump` gives it, and `load` takes it."""

    worker: int
    """Its number, for the log."""

    secret: bytes
    """Of the loop probe."""


class Update(msgspec.Struct, omit_defaults=True):
    """What has changed, and what is so."""

    domains: list[str]
    loaded: bool
    complete: bool
    entries: dict[bytes, bytes | None] = {}
    """None: the name is gone."""

    outbounds: list[Outbound] = []
    """Without endpoints."""

    removed_outbounds: list[str] = []
    outbounds_whole: bool = False
    more: bool = False
    """The agent knows more than it has told."""

    query_log_s: float = 0.0
    """For how much longer queries are to be logged."""

    query_log_sample: int = 1


class Channel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, message: msgspec.Struct) -> None:
        """Raises OSError once the other end is gone."""
        payload = msgspec.msgpack.encode(message)
        self._writer.write(len(payload).to_bytes(4, "big") + payload)
        await self._writer.drain()

    async def receive(self, kind: type[T]) -> T | None:
        """The next message; None once the other end is gone.

        Raises:
            WireError: Not of that kind: the two are not of one version.
        """
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > FRAME_BYTES_MAX:
                raise WireError(f"a frame of {size} bytes")
            payload = await self._reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            return None
        try:
            return msgspec.msgpack.decode(payload, type=kind)
        except msgspec.MsgspecError as error:
            raise WireError(f"malformed {kind.__name__}: {error}") from error

    def close(self) -> None:
        self._writer.close()
