"""DataplaneInsight: whether a Dataplane has an agent. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Kind, Scope

KIND = Kind(
    name="DataplaneInsight",
    path="dataplane-insights",
    short="",
    singular="Dataplane Insight",
    plural="Dataplane Insights",
    scope=Scope.MESH,
    flat=True,
    validate=lambda spec, _: dict(spec),  # never called: nobody may write it
    by_global=False,
    by_zone=True,  # shown with its Dataplane's zone
    read_only=True,
)
