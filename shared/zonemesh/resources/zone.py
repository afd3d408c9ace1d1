"""Zone: a zone as its operator sees it on global, and whether it is meant to take part."""

from __future__ import annotations

from typing import Any

from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import Node, Violations, dns_label_name


def _validate(spec: Spec, name: str) -> dict[str, Any]:
    violations = Violations()
    zone = Node(spec, "", violations)
    dns_label_name(violations, name)
    zone.boolean("enabled")  # absent means true, and stays absent
    violations.raise_if_any()
    return zone.copy()


KIND = Kind(
    name="Zone",
    path="zones",
    short="z",
    singular="Zone",
    plural="Zones",
    scope=Scope.GLOBAL,
    flat=True,
    validate=_validate,
    by_global=True,
    by_zone=False,
    rfc1035_name=True,
)
