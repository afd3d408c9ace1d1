"""ServiceInsight: a `kuma.io/service` and its Dataplanes. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Scope, computed_kind

KIND = computed_kind(
    "ServiceInsight", "service-insights", "Service Insight", scope=Scope.MESH, hashed=False
)
