"""Labels: what a client may set, what is kept of it, and what is computed where it is read.

Some labels say where a resource is seen from: `kuma.io/origin` is the last hop, so that one service
of west reads `zone` in west and on global, and `global` in east. They are never stored.

A place is named by its zone throughout; "" is the global control plane.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from zonemesh import names
from zonemesh.errors import Violation
from zonemesh.lostpolicy import LABEL, policy_fault
from zonemesh.model import Key, Record
from zonemesh.resources.kind import Kind, Scope

DISPLAY_NAME = "kuma.io/display-name"
ENV = "kuma.io/env"
KDS_SYNC = "kuma.io/kds-sync"
MANAGED_BY = "kuma.io/managed-by"
MESH = "kuma.io/mesh"
ORIGIN = "kuma.io/origin"
SERVICE = "kuma.io/service"
WORKLOAD = "kuma.io/workload"
ZONE = "kuma.io/zone"
GRACE_STARTED_AT = "kuma.io/deletion-grace-period-started-at"
NAMESPACE = "k8s.kuma.io/namespace"
SERVICE_NAME = "k8s.kuma.io/service-name"
IS_HEADLESS = "k8s.kuma.io/is-headless-service"
POD_NAME = "statefulset.kubernetes.io/pod-name"

UNIVERSAL = "universal"
KUBERNETES = "kubernetes"
FROM_GLOBAL = "global"
FROM_ZONE = "zone"

RESERVED_PREFIXES = ("kuma.io/", "k8s.kuma.io/")
"""Labels of these are the system's: never propagated from Dataplanes to services."""

_COMPUTED = (DISPLAY_NAME, MESH, ORIGIN, ZONE)
_PART_MAX = 63
_PART = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_NONE: Mapping[str, str] = MappingProxyType({})


def shown(kind: Kind, key: Key, stored: Mapping[str, str], here: str) -> dict[str, str]:
    """All labels of a resource as they read at a place: those stored, and the computed ones.

    Cheap (under 1 µs): it runs for every service that names are made for.
    """
    labels = dict(stored)
    labels[DISPLAY_NAME] = key.name
    labels[ORIGIN] = origin(key.zone, here)
    if kind.scope is Scope.MESH:
        labels[MESH] = key.mesh
    if key.zone and kind.by_zone:
        labels[ZONE] = key.zone
        labels.setdefault(ENV, UNIVERSAL)
    if key.namespace:
        labels[NAMESPACE] = key.namespace
    return labels


def of_record(kind: Kind, key: Key, record: Record, here: str) -> dict[str, str]:
    """`shown` for a stored record."""
    return shown(kind, key, record.labels, here)


def computed(kind: Kind, key: Key, here: str, env: str = UNIVERSAL) -> dict[str, str]:
    """The computed labels alone; `env` is what the resource's zone runs on."""
    return shown(kind, key, _NONE if env == UNIVERSAL else {ENV: env}, here)


def origin(zone: str, here: str) -> str:
    """The last hop from `zone`, where a resource was made, to `here`, where it is read."""
    if here:
        return FROM_ZONE if zone == here else FROM_GLOBAL
    return FROM_ZONE if zone else FROM_GLOBAL


def shown_name(kind: Kind, key: Key, here: str) -> str:
    """What a resource is called at a place: hashed wherever it was not made (Kuma's KDS naming)."""
    return synced_name(key, here) if kind.hashed else key.name


def synced_name(key: Key, here: str) -> str:
    """`shown_name` for the kinds whose copies are renamed: all that get names, and generators."""
    if key.zone == here:
        return key.name
    return names.hashed_name(key.mesh, key.name, key.zone, key.namespace)


def stored(labels: Mapping[str, str]) -> dict[str, str]:
    """What is kept of a client's valid labels: all that a reader could not compute."""
    kept = {name: value for name, value in labels.items() if name not in _COMPUTED}
    if kept.get(ENV) == UNIVERSAL:
        del kept[ENV]
    return kept


def faults(raw: Any, kind: Kind, key: Key, *, here: str, origin_required: bool) -> list[Violation]:
    """What is wrong with the labels of a document.

    Args:
        raw: The document's `labels`, parsed but not checked; None if it has none.
        kind: The resource's kind.
        key: The key that it is to be stored under.
        here: The zone that is asked to store it; "" on global.
        origin_required: Whether `kuma.io/origin: zone` must be there, for kinds with a `spec`:
            on a zone that follows a global control plane, unless that check is configured away.

    Returns:
        Every fault, in the order of the labels.
    """
    if raw is None:
        raw = _NONE
    elif not isinstance(raw, dict):
        return [Violation("labels", "must be an object")]
    found = [fault for name, value in raw.items() for fault in _syntax_faults(name, value)]
    for name, reason in _place_faults(raw, kind, key, here):
        found.append(Violation(_field(name), reason))
    if origin_required and not kind.flat and raw.get(ORIGIN) != FROM_ZONE:
        found.append(Violation(_field(ORIGIN), "the origin label must be set to 'zone'"))
    return found


def _place_faults(
    labels: Mapping[str, Any], kind: Kind, key: Key, here: str
) -> Iterator[tuple[str, str]]:
    """Labels that say something else about the resource than its key does."""
    zone, mesh, workload = labels.get(ZONE), labels.get(MESH), labels.get(WORKLOAD)
    if here and zone is not None and zone != here:
        yield ZONE, f"the zone label must be set to '{here}'"
    if kind.scope is Scope.MESH and mesh is not None and mesh != key.mesh:
        yield MESH, f"the mesh label must be set to '{key.mesh}'"
    if not here and labels.get(ORIGIN, FROM_GLOBAL) != FROM_GLOBAL:
        yield ORIGIN, "the origin label must be set to 'global'"
    if kind.name == "Dataplane" and isinstance(workload, str):
        if not here:
            yield WORKLOAD, "cannot be set on a global control plane"
        elif (fault := names.dns_label_fault(workload)) is not None:
            yield WORKLOAD, fault


def _syntax_faults(name: Any, value: Any) -> Iterator[Violation]:
    if not isinstance(name, str):
        yield Violation("labels", f"{name!r} must be a string")
        return
    if (reason := _key_fault(name)) is not None:
        yield Violation(_field(name), reason)
    if not isinstance(value, str):
        yield Violation(_field(name), "must be a string")
    elif len(value) > _PART_MAX:
        yield Violation(_field(name), f"must be no more than {_PART_MAX} characters")
    elif value and not _PART.fullmatch(value):
        yield Violation(
            _field(name),
            "a valid label must be an empty string or consist of alphanumeric characters, '-', "
            "'_' or '.', and must start and end with an alphanumeric character",
        )
    elif name == LABEL and (reason := policy_fault(value)) is not None:
        yield Violation(_field(name), reason)


def _key_fault(key: str) -> str | None:
    """Kubernetes' qualified names: an optional DNS subdomain and a slash, then the name."""
    prefix, slash, name = key.rpartition("/")
    if slash and not names.is_hostname(prefix):
        return "prefix part must be a lowercase RFC 1123 subdomain"
    if not name:
        return "name part must be non-empty"
    if len(name) > _PART_MAX:
        return f"name part must be no more than {_PART_MAX} characters"
    if not _PART.fullmatch(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start "
            "and end with an alphanumeric character"
        )
    return None


def _field(name: str) -> str:
    return f'labels["{name}"]'
