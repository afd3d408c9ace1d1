"""What the data planes of one zone get for a legacy name: an outbound per port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zonemesh.endpoints import Endpoint, Ingresses, endpoint_of, reached
from zonemesh.ipam import ipv4_text, ipv6_text
from zonemesh.legacy import Port, inbounds_behind
from zonemesh.legacypool import LEGACY
from zonemesh.model import Record, zone_of

_PROTOCOL_TAG = "kuma.io/protocol"
_TCP = "tcp"

Outbound = dict[str, Any]


def outbound_ids(key: str) -> str:
    """What all ids of a legacy name's outbounds begin with, and no other's."""
    return f"{key}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a zone knows of Dataplanes, its own and others'."""

    zone: str
    dataplane: Callable[[str], Record | None]
    """The record behind a key; None if there is none, or its zone is not to be served."""
    ingresses: Ingresses


def outbound(key: str, port: Port, address: int, around: Surroundings) -> Outbound:
    """One outbound of the feed, in the shape of every other.

    Args:
        key: The legacy name's.
        port: One of `LegacyIndex.ports`.
        address: What the key is bound to.
        around: As the zone sees it that this is for: its own endpoints come first.
    """
    protocols: set[str] = set()
    by_zone: dict[str, list[Endpoint]] = {}
    for member in port.dataplanes:
        record = around.dataplane(member)
        zone = zone_of(member)
        if record is None:
            continue
        for inbound in inbounds_behind(port, record):
            protocols.add(_protocol(inbound))
            found = endpoint_of(inbound, record, zone, here=around.zone)
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
            each
            for zone in sorted(by_zone, key=lambda zone: (zone != around.zone, zone))
            for each in reached(by_zone[zone], zone, around.ingresses, here=around.zone)
        ],
    }


def _protocol(inbound: Mapping[str, Any]) -> str:
    tagged = (inbound.get("tags") or {}).get(_PROTOCOL_TAG)
    return str(tagged or inbound.get("protocol") or _TCP).lower()
