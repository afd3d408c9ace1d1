"""MeshInsight: a mesh in numbers. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Kind, Scope

KIND = Kind(
    name="MeshInsight",
    path="mesh-insights",
    short="",
    singular="Mesh Insight",
    plural="Mesh Insights",
    scope=Scope.GLOBAL,
    flat=True,
    validate=lambda spec, _: dict(spec),  # never called: nobody may write it
    by_global=False,
    by_zone=False,
    hashed=False,
    read_only=True,
)
