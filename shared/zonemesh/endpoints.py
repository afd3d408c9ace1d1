"""What a connection to a service ends at: an inbound of a Dataplane, or its zone's ingresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zonemesh.members import inbound_ready
from zonemesh.model import Record, zone_of

Place = tuple[str, int]
"""Address and port."""
Endpoint = dict[str, Any]
"""As in the feed's outbounds."""


class Ingresses:
    """Where each zone is reached by others."""

    def __init__(self) -> None:
        self._places: dict[str, dict[str, Place]] = {}
        """By zone and key."""

    def put(self, key: str, packed: bytes | None) -> bool:
        """Note the record of a ZoneIngress, None if it is gone; answer whether that matters."""
        zone = zone_of(key)
        there = self._places.get(zone, {})
        place = _advertised(packed)
        if there.get(key) == place:
            return False
        if place is None:
            del there[key]
        else:
            self._places.setdefault(zone, there)[key] = place
        return True

    def of(self, zone: str) -> list[Place]:
        """All of a zone, once each and sorted; none if its Dataplanes are reached directly."""
        return sorted(set(self._places.get(zone, {}).values()))


def endpoint_of(inbound: Mapping[str, Any], dataplane: Record, zone: str, *, here: str) -> Endpoint:
    """An inbound of a Dataplane in `zone`, as the data planes of the zone `here` see it."""
    address = inbound.get("address") or dataplane.spec["networking"]["address"]
    place = address, inbound["port"]
    return _endpoint(place, zone, priority=_priority(zone, here), ready=inbound_ready(inbound))


def reached(
    endpoints: Sequence[Endpoint], zone: str, ingresses: Ingresses, *, here: str
) -> Sequence[Endpoint]:
    """How the zone `here` gets to a service's endpoints in `zone`.

    Another zone with ingresses is reached through these alone; they know what is behind them.
    """
    places = ingresses.of(zone) if endpoints and zone != here else ()
    if not places:
        return endpoints
    ready = any(each["ready"] for each in endpoints)
    priority = _priority(zone, here)
    return [_endpoint(place, zone, priority=priority, ready=ready) for place in places]


def external_endpoint(listed: Mapping[str, Any], zone: str) -> Endpoint:
    """One that a MeshExternalService of a zone, or of global as "", lists; nobody checks it."""
    place = listed["address"], listed["port"]
    return _endpoint(place, zone, priority=listed.get("priority") or 0, ready=True)


def _priority(zone: str, here: str) -> int:
    return 0 if zone == here else 1


def _endpoint(place: Place, zone: str, *, priority: int, ready: bool) -> Endpoint:
    address, port = place
    return {"address": address, "port": port, "zone": zone, "priority": priority, "ready": ready}


def _advertised(packed: bytes | None) -> Place | None:
    """Where a ZoneIngress is reached; None if it does not say (Kuma ignores it then)."""
    networking = {} if packed is None else Record.unpack(packed).spec.get("networking") or {}
    address, port = networking.get("advertisedAddress"), networking.get("advertisedPort")
    return (str(address), int(port)) if address and port else None
