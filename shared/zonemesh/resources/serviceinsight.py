"""ServiceInsight: a `kuma.io/service` and its Dataplanes. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Kind, Scope

KIND = Kind(
    name="ServiceInsight",
    path="service-insights",
    short="",
    singular="Service Insight",
    plural="Service Insights",
    scope=Scope.MESH,
    flat=True,
    validate=lambda spec, _: dict(spec),  # never called: nobody may write it
    by_global=False,
    by_zone=False,
    hashed=False,
    read_only=True,
)
