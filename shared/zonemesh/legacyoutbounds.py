"""What the data planes of one zone get for a legacy name: an outbound per port."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zonemesh.ipam import ipv4_text, ipv6_text
from zonemesh.legacy import Port, inbounds_behind
from zonemesh.legacypool import LEGACY
from zonemesh.members import inbound_ready
from zonemesh.model import Record, zone_of

_PROTOCOL_TAG = "kuma.io/protocol"
_TCP = "tcp"

Outbound = dict[str, Any]
Place = tuple[str, int]
"""Address and port."""


def outbound_ids(key: str) -> str:
    """What all ids of a legacy name's outbounds begin with, and no other's."""
    return f"{key}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a zone knows of Dataplanes, its own and others'."""

    zone: str
    dataplane: Callable[[str], Record | None]
    """The record behind a key; None if there is none, or its zone is not to be served."""
    ingresses: Callable[[str], Sequence[Place]]
    """Where alone another zone is reached; empty if its Dataplanes are reached directly."""


def outbound(key: str, port: Port, address: int, around: Surroundings) -> Outbound:
    """One outbound of the feed, in the shape of every other.

    Args:
        key: The legacy name's.
        port: One of `LegacyIndex.ports`.
        address: What the key is bound to.
        around: As the zone sees it that this is for: its own endpoints come first.
    """
    protocols: set[str] = set()
    by_zone: dict[str, list[dict[str, Any]]] = {}
    for member in port.dataplanes:
        record = around.dataplane(member)
        zone = zone_of(member)
        if record is None:
            continue
        for inbound in inbounds_behind(port, record):
            protocols.add(_protocol(inbound))
            found = _endpoint(_place(inbound, record), zone, ready=inbound_ready(inbound))
            by_zone.setdefault(zone, []).append(found)
    return {
        "id": f"{outbound_ids(key)}{port.port}",
        "kind": LEGACY,
        "vips": [ipv4_text(address), ipv6_text(address)],
        "port": port.port,
        "name": port.service,
        # Of what does not speak alike, only the bytes are common.
        "protocol": protocols.pop() if len(protocols) == 1 else _TCP,
        "zone": "",
        "endpoints": [
            {**each, "priority": 0 if zone == around.zone else 1}
            for zone in sorted(by_zone, key=lambda zone: (zone != around.zone, zone))
            for each in _reached(zone, by_zone[zone], around)
        ],
    }


def _reached(
    zone: str, endpoints: list[dict[str, Any]], around: Surroundings
) -> list[dict[str, Any]]:
    places = around.ingresses(zone) if zone != around.zone else ()
    if not places:
        return endpoints
    # Its ingresses know what is behind them.
    ready = any(each["ready"] for each in endpoints)
    return [_endpoint(place, zone, ready=ready) for place in sorted(places)]


def _endpoint(place: Place, zone: str, *, ready: bool) -> dict[str, Any]:
    address, port = place
    return {"address": address, "port": port, "zone": zone, "ready": ready}


def _place(inbound: Mapping[str, Any], record: Record) -> Place:
    return inbound.get("address") or record.spec["networking"]["address"], inbound["port"]


def _protocol(inbound: Mapping[str, Any]) -> str:
    tagged = (inbound.get("tags") or {}).get(_PROTOCOL_TAG)
    return str(tagged or inbound.get("protocol") or _TCP).lower()
