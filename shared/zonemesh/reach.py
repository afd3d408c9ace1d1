"""What one data plane may reach: what its Dataplane says of backends, asked of each service.

`transparentProxying.reachableBackends` (Kuma: absent is everything, no refs is nothing, a name is
one of this zone's or of global's, labels may be anyone's) and Kuma 2's `reachableServices`, values
of `kuma.io/service`, which here are taken for the names of services in any zone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zonemesh.members import DATAPLANE
from zonemesh.model import Key, Record
from zonemesh.registry import Registry

Labels = Callable[[str, str], Mapping[str, str]]
"""(kind, packed key) -> all labels of a service as shown in this zone."""


@dataclass(frozen=True, slots=True)
class Reach:
    """One data plane's, as its Dataplane was when this was made."""

    zone: str
    refs: Sequence[Mapping[str, Any]] | None
    """None: everything."""
    services: frozenset[str] | None
    """None: everything."""

    def allows(self, kind: str, key: str, labels: Labels, port: int | None = None) -> bool:
        """Whether a service, and of it a port if one is given, may be reached."""
        parsed = Key.parse(key)
        if self.services is not None and parsed.name in self.services:
            return True
        if self.refs is None:
            return self.services is None
        return any(self._refers(ref, kind, parsed, labels, port) for ref in self.refs)

    def _refers(
        self, ref: Mapping[str, Any], kind: str, key: Key, labels: Labels, port: int | None
    ) -> bool:
        if ref.get("kind") != kind or (port is not None and ref.get("port") not in (None, port)):
            return False
        if ref.get("name"):
            here = key.zone in ("", self.zone)
            return (
                here and ref["name"] == key.name and (ref.get("namespace") or "") == key.namespace
            )
        wanted = ref.get("labels") or {}
        found = labels(kind, key.packed)
        return all(found.get(name) == value for name, value in wanted.items())


def reach_of(zone: str, record: Record) -> Reach | None:
    """None: the data plane may reach everything, and needs no feed of its own."""
    networking = record.spec.get("networking") or {}
    proxying = networking.get("transparentProxying") or {}
    backends, services = proxying.get("reachableBackends"), proxying.get("reachableServices")
    if backends is None and not services:
        return None
    refs = None if backends is None else tuple(backends.get("refs") or ())
    return Reach(zone, refs, frozenset(services) if services else None)


class Reaching:
    """What a subscriber may reach, as its Dataplane is now; read again only when that changes."""

    def __init__(self, zone: str, registry: Registry, dataplane: str | None) -> None:
        self._zone = zone
        self._registry = registry
        self._dataplane = dataplane
        self._packed: bytes | None = None
        self._reach: Reach | None = None

    def __call__(self) -> Reach | None:
        if self._dataplane is None:
            return None
        packed = self._registry.get(DATAPLANE, self._dataplane)
        if packed != self._packed:
            self._packed = packed
            found = None if packed is None else reach_of(self._zone, Record.unpack(packed))
            if found != self._reach:
                self._reach = found
        return self._reach
