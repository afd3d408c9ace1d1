"""ZoneInsight: what global knows about a zone's control plane. Computed when read, never stored."""

from __future__ import annotations

from zonemesh.resources.kind import Scope, computed_kind

KIND = computed_kind("ZoneInsight", "zone-insights", "Zone Insight", scope=Scope.GLOBAL)
