"""Mesh: a space of services that see one another."""

from __future__ import annotations

from typing import Any

from zonemesh import names
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import Node

MODES = ("Disabled", "Everywhere", "ReachableBackends", "Exclusive")

_SECTIONS = ("mtls", "constraints", "logging", "metrics", "tracing")
"""Of Kuma 2's Mesh: what this system has no part in."""


def _check(mesh: Node, name: str) -> dict[str, Any]:
    mesh.fault_of_name(names.mesh_name_fault(name))
    mesh.strings("skipCreatingInitialPolicies")
    _validate_version_2(mesh)
    return mesh.copy()


def _validate_version_2(mesh: Node) -> None:
    """What Kuma 2 keeps in a Mesh. Sections without a meaning here are kept as they are."""
    if (services := mesh.node("meshServices")) is not None:
        services.choice("mode", MODES)
    networking = mesh.node("networking")
    outbound = networking.node("outbound") if networking is not None else None
    if outbound is not None:
        outbound.boolean("passthrough")
    if (routing := mesh.node("routing")) is not None:
        routing.boolean("zoneEgress")
        routing.boolean("localityAwareLoadBalancing")
        routing.boolean("defaultForbidMeshExternalServiceAccess")
    for section in _SECTIONS:
        mesh.node(section)


def _warnings(spec: Spec, _name: str) -> list[str]:
    """A mesh that is thought to be encrypted and is not must not go unsaid."""
    return [f"{name}: kept, and without effect here" for name in _SECTIONS if spec.get(name)]


KIND = Kind(
    name="Mesh",
    path="meshes",
    short="m",
    singular="Mesh",
    plural="Meshes",
    scope=Scope.GLOBAL,
    flat=True,
    check=_check,
    warnings=_warnings,
    by_global=True,
    by_zone=False,
    down=True,
    hashed=False,
)
