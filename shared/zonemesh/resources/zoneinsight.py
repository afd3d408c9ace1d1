"""ZoneInsight: what global knows about a zone's control plane. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Kind, Scope

KIND = Kind(
    name="ZoneInsight",
    path="zone-insights",
    short="",
    singular="Zone Insight",
    plural="Zone Insights",
    scope=Scope.GLOBAL,
    flat=True,
    validate=lambda spec, _: dict(spec),  # never called: nobody may write it
    by_global=False,
    by_zone=False,
    read_only=True,
)
