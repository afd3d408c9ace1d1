"""The agent as an Envoy's management server: aggregated, incremental xDS over gRPC on a socket."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from zonecp.dataplane.envoy import ads
from zonecp.dataplane.envoy.store import TYPE_LABELS, Ref, Resources
from zonemesh.errors import ConfigError

log = structlog.get_logger(__name__)

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
STREAMS_MAX: Final = 4
"""An Envoy that drains, the one after it, and room for a mistake."""

SOCKET_MODE: Final = 0o660


class Connection:
    """One Envoy's stream."""

    def __init__(self, number: int, resources: Resources, counts: ads.Counts) -> None:
        self.number = number
        self.node = ""
        self.stream = ads.Stream(resources, counts)
        self.woken = asyncio.Event()
        self.nonces: dict[str, float] = {}
        """Of responses that wait for an answer, and since when; one per type."""

    @property
    def sent_s(self) -> float | None:
        """Since when the oldest of them waits."""
        return min(self.nonces.values(), default=None)


class AdsServer:
    """Serves streams while `run` does; the last Envoy that came is the one that counts."""

    def __init__(
        self,
        path: Path,
        resources: Resources,
        *,
        decided: Callable[[Collection[Ref]], None],
        attached: Callable[[], None],
        detached: Callable[[], None],
        sent: Callable[[float], None] = lambda _: None,
        answered: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Tell what happens.

        Args:
            path: Of the socket; one that is left from before is replaced.
            resources: What is served.
            decided: Called with what the Envoy that counts has accepted or rejected.
            attached: Another Envoy counts now.
            detached: None does any more.
            sent: Called with the time at which responses have been written.
            answered: Called with the seconds that Envoy took to answer one.
        """
        self.counts = ads.Counts()
        self.streams = 0
        """Opened so far."""

        self.path = path
        self._resources = resources
        self._decided = decided
        self._attached = attached
        self._detached = detached
        self._sent = sent
        self._answered = answered
        self._connections: list[Connection] = []
        resources.listen(self._changed)

    @property
    def current(self) -> Connection | None:
        return self._connections[-1] if self._connections else None

    @property
    def client(self) -> ads.Stream | None:
        return self._connections[-1].stream if self._connections else None

    def wake(self) -> None:
        """Send what has changed."""
        for connection in self._connections:
            connection.woken.set()

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            ConfigError: The socket cannot be made.
        """
        # It tells of every Envoy that goes, as we do.
        logging.getLogger("grpclib.server").setLevel(logging.WARNING)
        server = Server([self])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_socket():  # left from before
                self.path.unlink()
            await server.start(path=str(self.path))
            self.path.chmod(SOCKET_MODE)
        except OSError as error:
            raise ConfigError(
                [f"envoy.socket: {self.path}: {os.strerror(error.errno or 0)}"]
            ) from error
        log.info("xds_listening", path=str(self.path))
        try:
            await server.wait_closed()
        finally:
            server.close()
            with suppress(OSError):
                self.path.unlink()

    # For grpclib

    def __mapping__(self) -> dict[str, Handler]:
        return {
            METHOD: Handler(
                self._serve,
                Cardinality.STREAM_STREAM,
                discovery_pb2.DeltaDiscoveryRequest,
                discovery_pb2.DeltaDiscoveryResponse,
            )
        }

    async def _serve(self, stream: Any) -> None:
        if len(self._connections) >= STREAMS_MAX:
            log.warning("envoy_refused", streams=len(self._connections))
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{STREAMS_MAX} Envoys are connected")
        self.streams += 1
        connection = Connection(self.streams, self._resources, self.counts)
        self._connections.append(connection)
        log.info("envoy_attached", stream=connection.number)
        self._attached()
        writer = asyncio.create_task(self._write(stream, connection))
        try:
            async for message in stream:
                self._read(message, connection)
                connection.woken.set()
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
            self._connections.remove(connection)
            log.info("envoy_detached", stream=connection.number, node=connection.node)
            if not self._connections:
                self._detached()

    def _read(self, message: Any, connection: Connection) -> None:
        if message.HasField("node") and not connection.node:
            connection.node = message.node.id
        request = _request(message)
        label = TYPE_LABELS.get(request.type_url, request.type_url)
        decided = connection.stream.request(request)
        if request.nonce and (sent_s := connection.nonces.pop(request.nonce, None)) is not None:
            self._answered(asyncio.get_running_loop().time() - sent_s)
        if request.error is not None:
            log.warning("envoy_rejected", type=label, detail=request.error[: ads.TEXT_MAX])
        if decided and connection is self.current:
            self._decided(decided)

    async def _write(self, stream: Any, connection: Connection) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await connection.woken.wait()
            connection.woken.clear()
            for response in connection.stream.responses():
                connection.nonces[response.nonce] = clock()
                await stream.send_message(_message(response))
                self._sent(clock())

    def _changed(self, ref: Ref) -> None:
        for connection in self._connections:
            connection.stream.changed(ref)


def _request(message: Any) -> ads.Request:
    return ads.Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
    )


def _message(response: ads.Response) -> Any:
    return discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url,
        nonce=response.nonce,
        resources=[
            discovery_pb2.Resource(
                name=sent.name,
                version=sent.version,
                resource=any_pb2.Any(type_url=response.type_url, value=sent.payload),
            )
            for sent in response.resources
        ],
        removed_resources=response.removed,
    )
