"""Zone: a zone as its operator sees it on global, and whether it is meant to take part."""

from __future__ import annotations

from typing import Any

from zonemesh.resources.kind import Kind, Scope
from zonemesh.resources.validation import Node, dns_label_name


def _check(zone: Node, name: str) -> dict[str, Any]:
    dns_label_name(zone, name)
    zone.boolean("enabled")  # absent means true, and stays absent
    return zone.copy()


KIND = Kind(
    name="Zone",
    path="zones",
    short="z",
    singular="Zone",
    plural="Zones",
    scope=Scope.GLOBAL,
    flat=True,
    check=_check,
    by_global=True,
    by_zone=False,
    rfc1035_name=True,
)
