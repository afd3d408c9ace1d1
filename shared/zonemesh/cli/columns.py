"""What a table shows of each kind: kumactl's columns, and more of them in the wide form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from zonemesh import labels
from zonemesh.cli import output
from zonemesh.cli.catalogue import Row
from zonemesh.cli.output import Cell

Document = Mapping[str, Any]


class Column(NamedTuple):
    title: str
    cell: Callable[[Document], Cell]


def columns(row: Row, now: datetime, *, wide: bool) -> list[Column]:
    """A kind's columns; ages are as of `now`."""
    found = [Column("MESH", lambda document: str(document.get("mesh", "")))] * row.in_mesh
    found.append(Column("NAME", lambda document: str(document.get("name", ""))))
    if row.name == "Dataplane":
        found += [Column("TAGS", tags), Column("ADDRESS", address)]
    found.append(Column("AGE", lambda document: output.age(document.get("modificationTime"), now)))
    if not wide:
        return found
    found += _WIDE.get(row.name, _WIDE_OTHERS)
    if row.name == "Zone":
        found.append(Column("SINCE", lambda document: zone_since(document, now)))
        found.append(Column("SERVICES ELSEWHERE", zone_effects))
    return found


def cells(shown: Sequence[Column], document: Document) -> list[Cell]:
    """One row of a table."""
    return [column.cell(document) for column in shown]


def tags(dataplane: Document) -> Cell:
    """Every tag of a Dataplane's inbounds and gateway, `name=value`, each once."""
    networking = dataplane.get("networking") or {}
    parts = [*(networking.get("inbound") or ()), networking.get("gateway") or {}]
    pairs = {
        f"{name}={value}": None
        for part in parts
        for name, value in (part.get("tags") or {}).items()
    }
    return tuple(sorted(pairs))


def address(dataplane: Document) -> str:
    networking = dataplane.get("networking") or {}
    return str(networking.get("advertisedAddress") or networking.get("address") or "")


def vips(service: Document) -> Cell:
    return tuple(str(each.get("ip")) for each in (service.get("status") or {}).get("vips") or ())


def hostnames(service: Document) -> Cell:
    given = (service.get("status") or {}).get("addresses") or ()
    return tuple(dict.fromkeys(str(each.get("hostname")) for each in given))


def zone(document: Document) -> str:
    """Where a resource was made."""
    shown = document.get("labels") or {}
    return str(shown.get(labels.ZONE) or shown.get(labels.ORIGIN, ""))


def service_state(service: Document) -> str:
    """Its state, and why it has no address if it has none."""
    state = str((service.get("spec") or {}).get("state", ""))
    for condition in (service.get("status") or {}).get("conditions") or ():
        if condition.get("status") == "False":
            state += f" ({condition.get('reason')})"
    return state


def dataplane_state(dataplane: Document) -> str:
    """How many of its inbounds take connections: `Ready 1/2`."""
    inbounds = (dataplane.get("networking") or {}).get("inbound") or ()
    ready = sum(_ready(inbound) for inbound in inbounds)
    return f"{'Ready' if ready or not inbounds else 'NotReady'} {ready}/{len(inbounds)}"


def _ready(inbound: Document) -> bool:
    healthy = (inbound.get("health") or {}).get("ready", True)
    return bool(healthy) and inbound.get("state", "Ready") == "Ready"


def zone_state(overview: Document) -> str:
    """As Kuma has it: a disabled zone counts as offline. "" where there is no insight."""
    enabled = (overview.get("zone") or overview).get("enabled", True)
    if not enabled:
        return "Offline (disabled)"
    insight = overview.get("zoneInsight")
    if insight is None:
        return ""
    state = (insight.get("zonemesh") or {}).get("state")
    if state:
        return str(state).capitalize()
    return "Online" if open_subscription(insight) else "Offline"


def zone_since(overview: Document, now: datetime) -> str:
    """For how long its state has been what it is."""
    since = ((overview.get("zoneInsight") or {}).get("zonemesh") or {}).get("since")
    return "" if since is None else output.age(since, now)


def zone_effects(overview: Document) -> str:
    """What other zones do with its services while it is lost: `2 unavailable, 1 withdrawn`."""
    told = (overview.get("zoneInsight") or {}).get("zonemesh") or {}
    counts = (
        (told.get("servicesUnavailable"), "unavailable"),
        (told.get("servicesWithdrawn"), "withdrawn"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def open_subscription(insight: Document) -> bool:
    return any(
        each.get("connectTime") and not each.get("disconnectTime")
        for each in insight.get("subscriptions") or ()
    )


def zone_lag(overview: Document) -> str:
    """Age of what global has of a zone."""
    lag_s = ((overview.get("zoneInsight") or {}).get("zonemesh") or {}).get("lagSeconds")
    return "" if lag_s is None else f"{lag_s:.1f}s"


def _template(generator: Document) -> str:
    return str((generator.get("spec") or {}).get("template", ""))


_ZONE = Column("ZONE", zone)
_SERVICE: Sequence[Column] = (
    Column("VIP", vips),
    Column("HOSTNAMES", hostnames),
    _ZONE,
    Column("STATE", service_state),
)
_WIDE_OTHERS: Sequence[Column] = (_ZONE,)
_WIDE: Mapping[str, Sequence[Column]] = {
    "MeshService": _SERVICE,
    "MeshExternalService": _SERVICE,
    "MeshMultiZoneService": _SERVICE,
    "Dataplane": (_ZONE, Column("STATE", dataplane_state)),
    "Zone": (Column("STATE", zone_state), Column("LAG", zone_lag)),
    "HostnameGenerator": (_ZONE, Column("TEMPLATE", _template)),
}
