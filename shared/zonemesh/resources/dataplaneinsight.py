"""DataplaneInsight: whether a Dataplane has an agent. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Scope, computed_kind

KIND = computed_kind(
    "DataplaneInsight", "dataplane-insights", "Dataplane Insight", scope=Scope.MESH, by_zone=True
)
