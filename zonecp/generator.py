"""MeshServices out of Dataplanes, decided in the same entry as the Dataplane's change.

Grouping follows Kuma 2 (each inbound's tag `kuma.io/service`) and Kuma 3 (the Dataplane's label
`kuma.io/workload`, for Dataplanes whose inbounds carry no service tag).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from zonemesh.draft import Draft
from zonemesh.members import (
    DATAPLANE,
    SERVICE_TAG,
    WORKLOAD_LABEL,
    DraftMembers,
    chosen,
    healthy,
    inbounds,
    place,
    service_tags,
    tag_term,
    workload_term,
)
from zonemesh.model import Record
from zonemesh.names import is_dns_label


def groups(key: str, record: Record) -> list[str]:
    """The keys of the services that a Dataplane is grouped into.

    Names that are not DNS labels make no MeshService, as in Kuma.
    """
    names = list(service_tags(record))
    workload = record.labels.get(WORKLOAD_LABEL)
    if not names and workload and inbounds(record):
        names = [workload]
    return [f"{place(key)}/{name}" for name in names if is_dns_label(name)]


def members_of(service: str, members: DraftMembers) -> list[str]:
    """The Dataplanes that may be grouped into a service: some by tag, some by workload."""
    where, name = place(service), service.rpartition("/")[2]
    found = {*members.of(tag_term(where, name)), *members.of(workload_term(where, name))}
    return sorted(found)


def spec_for(
    name: str, members: Sequence[tuple[str, Record]], present: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The spec of a generated service, from the Dataplanes grouped into it (at least one).

    Where Dataplanes disagree about ports, what is stored stays while one of them agrees with it;
    else the oldest decides (by creation time, then name).
    """
    wanted = [_ports(name, record) for _, record in sorted(members, key=_age)]
    stored = None if present is None else present.get("ports")
    ports = stored if stored in wanted else wanted[0]
    by_tag = any(name in service_tags(record) for _, record in members)
    selector: dict[str, Any] = (
        {"dataplaneTags": {SERVICE_TAG: name}}
        if by_tag
        else {"dataplaneLabels": {"matchLabels": {WORKLOAD_LABEL: name}}}
    )
    return {
        "state": "Available" if any(healthy(record) for _, record in members) else "Unavailable",
        "selector": selector,
        "ports": ports,
    }


def state_for(draft: Draft, record: Record, candidates: Sequence[str]) -> str:
    """`Available` if a Dataplane that the service's selector matches is healthy."""
    selector = record.spec.get("selector") or {}
    members = chosen(selector, candidates, partial(draft.get, DATAPLANE))
    return "Available" if any(healthy(member) for _, member in members) else "Unavailable"


def _ports(service: str, record: Record) -> list[dict[str, Any]]:
    """A service's ports: numbers and names once each."""
    by_tag = any(service_tags(record))
    ports: list[dict[str, Any]] = []
    taken: set[int | str] = set()
    for inbound in inbounds(record):
        tags = inbound.get("tags") or {}
        if by_tag and tags.get(SERVICE_TAG) != service:
            continue
        port = inbound["port"]
        name = inbound.get("name") or str(port)
        if port in taken or name in taken:
            continue  # one number at several addresses
        taken.update((port, name))
        ports.append(
            {
                "name": name,
                "port": port,
                "targetPort": port,
                "appProtocol": inbound.get("protocol") or tags.get("kuma.io/protocol") or "tcp",
            }
        )
    return ports


def _age(member: tuple[str, Record]) -> tuple[int, str]:
    key, record = member
    return record.created_ms, key
