"""What declares a kind: everything REST, sync, VIPs and the catalogue need to know about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from zonemesh.model import Key
from zonemesh.resources.validation import Node, Violations

Spec = Mapping[str, Any]


def _no_warnings(_spec: Spec, _name: str) -> list[str]:
    return []


class Scope(StrEnum):
    MESH = "Mesh"
    GLOBAL = "Global"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind's declaration. A new kind is one module with one of these, listed in `catalogue`."""

    name: str
    """`MeshService`: what `type` says."""
    path: str
    """`meshservices`: the REST collection."""
    short: str
    """`msvc`: used in KRIs; "" where Kuma has none."""
    singular: str
    plural: str
    """Display names of the catalogue: `Mesh Service`, `Mesh Services`."""
    scope: Scope
    flat: bool
    """Spec fields stand beside the metadata instead of under `spec` (Kuma's older kinds)."""
    check: Callable[[Node, str], dict[str, Any]]
    """(spec as the client sent it, name) -> the spec to store, defaults applied.

    Notes every fault in the node. Unknown fields are tolerated and kept. What it asks the node for
    is the kind's JSON Schema as well (`schema.schema_of`).
    """
    warnings: Callable[[Spec, str], list[str]] = _no_warnings
    """(spec as `validate` made it, name) -> what was accepted and most likely is not meant.

    For what Kuma lets pass, and what therefore exists: each names its field, as violations do, and
    what comes of it.
    """
    by_global: bool
    """May be written on a global control plane."""
    by_zone: bool
    """May be written on a zone that follows a global control plane."""
    up: bool = False
    """A zone's own ones are copied to global."""
    down: bool = False
    """Global's own ones are copied to zones."""
    across: bool = False
    """A zone's own ones reach other zones (through global)."""
    hashed: bool = True
    """Synced copies are shown under a hashed name (Kuma's SkipKDSHash is the opposite)."""
    rfc1035_name: bool = False
    """Names must be DNS labels starting with a letter."""
    pool: bool = False
    """Its objects get a VIP, from the pool named as the kind."""
    read_only: bool = False

    def validate(self, spec: Spec, name: str) -> dict[str, Any]:
        """The spec to store.

        Raises:
            ValidationError: Every fault, its field relative to the document (`spec.ports[0]` for
                kinds that are not flat).
        """
        violations = Violations()
        stored = self.check(Node(spec, "" if self.flat else "spec", violations), name)
        violations.raise_if_any()
        return stored

    def kri(self, key: Key, section: str = "") -> str:
        """Kuma's resource identifier: one name for the same resource on every control plane."""
        return f"kri_{self.short}_{key.mesh}_{key.zone}_{key.namespace}_{key.name}_{section}"

    def writable(self, *, on_global: bool, federated: bool) -> bool:
        """Whether PUT and DELETE are allowed on a control plane of that role."""
        if self.read_only:
            return False
        if on_global:
            return self.by_global
        return self.by_zone or not federated


def computed_kind(
    name: str, path: str, title: str, *, scope: Scope, by_zone: bool = False, hashed: bool = True
) -> Kind:
    """A kind that no log has: made of others' records when it is read, and written by nobody.

    `title`: its display name; `by_zone`: its objects are shown with a zone.
    """
    return Kind(
        name=name,
        path=path,
        short="",
        singular=title,
        plural=f"{title}s",
        scope=scope,
        flat=True,
        check=lambda spec, _: spec.copy(),  # never called
        by_global=False,
        by_zone=by_zone,
        hashed=hashed,
        read_only=True,
    )
