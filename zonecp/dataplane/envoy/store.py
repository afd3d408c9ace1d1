"""The resources that an Envoy is to have, by type and name, each with its version. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

_PREFIX: Final = "type.googleapis.com/envoy.config."
CLUSTER: Final = f"{_PREFIX}cluster.v3.Cluster"
ENDPOINTS: Final = f"{_PREFIX}endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = f"{_PREFIX}listener.v3.Listener"

TYPES: Final = (CLUSTER, ENDPOINTS, LISTENER)
"""In the order in which changes are sent: what is referred to comes before what refers to it."""

TYPE_LABELS: Final = {CLUSTER: "cluster", ENDPOINTS: "endpoints", LISTENER: "listener"}

VERSION_BYTES: Final = 8


class Ref(NamedTuple):
    """Names one resource."""

    type_url: str
    name: str


class Resource(NamedTuple):
    version: str
    """A digest of the payload: an Envoy that outlives its agent keeps what has not changed."""

    number: int
    """Of the change that brought it, counted over all resources of this process."""

    since: int
    """Of the change since which there has been such a resource."""

    payload: bytes
    """The message, serialized."""


Listener = Callable[[Ref], None]


class Resources:
    """One writer, any number of streams that are told what changes."""

    def __init__(self) -> None:
        self.number = 0
        """Of the last change."""

        self.complete = False
        """False: what is absent may only not be known yet, and no Envoy is told that it is gone.

        An agent that was killed may have on disk less than the Envoy that it takes over has.
        """

        self._by_type: dict[str, dict[str, Resource]] = {each: {} for each in TYPES}
        self._listeners: list[Listener] = []

    def get(self, ref: Ref) -> Resource | None:
        return self._by_type[ref.type_url].get(ref.name)

    def of(self, type_url: str) -> dict[str, Resource]:
        """All of a type, by name; not to be changed."""
        return self._by_type[type_url]

    def refs(self) -> Iterator[Ref]:
        for type_url, found in self._by_type.items():
            for name in found:
                yield Ref(type_url, name)

    def put(self, ref: Ref, payload: bytes) -> bool:
        """Set a resource. Returns whether that changed anything."""
        before = self.get(ref)
        version = blake2b(payload, digest_size=VERSION_BYTES).hexdigest()
        if before is not None and before.version == version:
            return False
        self.number += 1
        since = self.number if before is None else before.since
        self._by_type[ref.type_url][ref.name] = Resource(version, self.number, since, payload)
        self._tell((ref,))
        return True

    def remove(self, refs: Iterable[Ref]) -> None:
        gone = [ref for ref in refs if self._by_type[ref.type_url].pop(ref.name, None) is not None]
        self.number += bool(gone)
        self._tell(gone)

    def listen(self, listener: Listener) -> None:
        """Call it with every resource that was put or removed, from now on."""
        self._listeners.append(listener)

    def _tell(self, refs: Iterable[Ref]) -> None:
        for ref in refs:
            for listener in self._listeners:
                listener(ref)
