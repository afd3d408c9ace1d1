"""MeshInsight: a mesh in numbers. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Scope, computed_kind

KIND = computed_kind(
    "MeshInsight", "mesh-insights", "Mesh Insight", scope=Scope.GLOBAL, hashed=False
)
