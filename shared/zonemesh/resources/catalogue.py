"""Every kind there is. A new kind is a module with a `KIND`, and its line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from zonemesh.resources import (
    dataplane,
    dataplaneinsight,
    hostnamegenerator,
    mesh,
    meshexternalservice,
    meshinsight,
    meshmultizoneservice,
    meshservice,
    serviceinsight,
    virtualoutbound,
    zone,
    zoneegress,
    zoneingress,
    zoneinsight,
)
from zonemesh.resources.kind import Kind

# In the order in which a set of documents can be applied: what others refer to comes first.
_ALL = (
    mesh.KIND,
    zone.KIND,
    hostnamegenerator.KIND,
    meshservice.KIND,
    meshexternalservice.KIND,
    meshmultizoneservice.KIND,
    dataplane.KIND,
    virtualoutbound.KIND,
    zoneingress.KIND,
    zoneegress.KIND,
    zoneinsight.KIND,
    meshinsight.KIND,
    serviceinsight.KIND,
    dataplaneinsight.KIND,
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""By name (`MeshService`)."""

BY_PATH: Mapping[str, Kind] = MappingProxyType({kind.path: kind for kind in _ALL})
"""By REST collection (`meshservices`)."""
