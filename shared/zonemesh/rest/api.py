"""What every handler of the API gets from the composition root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest.backend import Backend
from zonemesh.rest.counting import Counting

BODY_BYTES_MAX = 1024 * 1024
"""One resource as a client sends it, and one line of `_bulk`; 413 above it. A log entry holds at
most 1 MiB too, and packed records are shorter than their JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    backend: Backend
    counting: Counting
    kinds: Mapping[str, Kind]
    """By name; see `zonemesh.resources.catalogue`."""
    paths: Mapping[str, Kind]
    """By REST collection, Kuma's aliases included."""
    config_dump: Mapping[str, Any]
    """The effective configuration, secrets masked."""
    version: str
    """This build's own version."""
    instance: str
    """This process: random, and in `GET /` and in the headers of proxied writes."""
    cluster: str = ""
    """`clusterId` of `GET /`."""
    read_only: bool = False
    """`apiServer.readOnly`: every write is answered 405."""
    origin_required: bool = False
    """Refuse writes without `kuma.io/origin: zone` on a federated zone, as Kuma does by default."""

    def kind_at(self, path: str, scope: Scope | None = None) -> Kind:
        """The kind of a collection.

        Raises:
            HTTPNotFound: None, or one of the other scope: no such route.
        """
        kind = self.paths.get(path)
        if kind is None or (scope is not None and kind.scope is not scope):
            raise web.HTTPNotFound
        return kind

    def writable(self, kind: Kind) -> bool:
        backend = self.backend
        return not self.read_only and kind.writable(
            on_global=backend.on_global, federated=backend.federated
        )


API = web.AppKey("api", Api)
