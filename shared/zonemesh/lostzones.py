"""What becomes of a zone's services in the others while global does not hear from it.

A policy is declared by a label on a MeshService, or on its Mesh for all that declare none. It is
applied to what global has decided about the zone (`zone.seen`), so that whoever stands at the same
position of global's log serves the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from zonemesh.lostpolicy import KEEP, LABEL, Policy, parse_policy
from zonemesh.members import MESH_SERVICE
from zonemesh.model import Key, Record, zone_of
from zonemesh.registry import Registry
from zonemesh.seen import Seen
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN

MESH = "Mesh"
_LABEL = LABEL.encode()


class Effect(Enum):
    """What other zones do with a service."""

    SERVED = "Served"
    UNAVAILABLE = "Unavailable"
    """Its names resolve, and none of its endpoints is ready."""
    WITHDRAWN = "Withdrawn"
    """It has no name; its address stays its own."""


class Standing(NamedTuple):
    """What global has decided about a zone."""

    online: bool = True
    lost_ms: int = 0
    """The longest declared time that it has been gone for."""


ONLINE = Standing()


def declared(payload: bytes | None) -> Policy | None:
    """What a stored record declares; what cannot be read declares nothing."""
    if payload is None or _LABEL not in payload:  # next to none: this spares decoding the others
        return None
    text = Record.unpack(payload).labels.get(LABEL)
    return None if text is None else parse_policy(text)


def standing_of(seen: bytes | None) -> Standing:
    """How a zone stands by its packed `zone.seen`; one that global never met is not lost."""
    if seen is None:
        return ONLINE
    found = Seen.unpack(seen)
    return ONLINE if found.online else Standing(online=False, lost_ms=found.lost_ms)


def effect_of(policy: Policy, standing: Standing) -> Effect:
    if standing.online:
        return Effect.SERVED
    after_ms = policy.withdraw_after_ms
    if after_ms is not None and after_ms <= standing.lost_ms:
        return Effect.WITHDRAWN
    return Effect.UNAVAILABLE if policy.unavailable else Effect.SERVED


def effect_in(registry: Registry, key: str, payload: bytes | None) -> Effect:
    """What becomes of a MeshService, by a registry that has its zone's and its mesh's records."""
    standing = standing_of(registry.get(SEEN, zone_key(zone_of(key))))
    if standing.online:
        return Effect.SERVED
    mesh = registry.get(MESH, Key("", "", "", key.partition("/")[0]).packed)
    return effect_of(declared(payload) or declared(mesh) or KEEP, standing)


def effects_in(registry: Registry, zone: str) -> Counter[Effect]:
    """How many of a zone's services come to what; looks at all services, if the zone is lost."""
    found: Counter[Effect] = Counter()
    if standing_of(registry.get(SEEN, zone_key(zone))).online:
        return found
    for key, payload in registry.table(MESH_SERVICE).items():
        if zone_of(key) == zone:
            found[effect_in(registry, key, payload)] += 1
    return found


def as_served(record: Record, effect: Effect) -> Record:
    """A MeshService as it is shown where its zone's loss has an effect on it."""
    if effect is Effect.SERVED:
        return record
    return replace(record, spec={**record.spec, "state": "Unavailable"})


class LostZones(NamedTuple):
    """Zones that global has lost, and what meshes want done about it."""

    zones: Mapping[str, Standing] = {}
    policies: Mapping[str, Policy] = {}
    """By mesh, where one declares something."""

    def with_zone(self, zone: str, standing: Standing) -> LostZones:
        others = {name: each for name, each in self.zones.items() if name != zone}
        return self._replace(zones=others if standing.online else {**others, zone: standing})

    def with_mesh(self, mesh: str, policy: Policy | None) -> LostZones:
        others = {name: each for name, each in self.policies.items() if name != mesh}
        return self._replace(policies=others if policy is None else {**others, mesh: policy})

    def effect(self, key: str, payload: bytes | None) -> Effect:
        """What becomes of a MeshService; of a Dataplane (no payload), what its mesh wants."""
        standing = self.zones.get(zone_of(key))
        if standing is None:
            return Effect.SERVED
        policy = declared(payload) or self.policies.get(key.partition("/")[0], KEEP)
        return effect_of(policy, standing)

    def by_mesh(self, zone: str) -> dict[str, Effect]:
        """What meshes want of a zone's Dataplanes, where that is not to serve them."""
        standing = self.zones.get(zone, ONLINE)
        found = {mesh: effect_of(policy, standing) for mesh, policy in self.policies.items()}
        return {mesh: effect for mesh, effect in found.items() if effect is not Effect.SERVED}


class Withdrawals:
    """An index: after which times anything is declared to be withdrawn."""

    def __init__(self) -> None:
        self._declared: Counter[int] = Counter()
        self._times_ms: list[int] = []

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del key
        if kind not in (MESH, MESH_SERVICE):
            return
        for payload, step in ((old, -1), (new, 1)):
            policy = declared(payload)
            if policy is not None and policy.withdraw_after_ms is not None:
                self._count(policy.withdraw_after_ms, step)

    def _count(self, after_ms: int, step: int) -> None:
        self._declared[after_ms] += step
        if self._declared[after_ms] == 0:
            del self._declared[after_ms]
        if (after_ms in self._declared) != (after_ms in self._times_ms):
            self._times_ms = sorted(self._declared)

    def reached(self, gone_ms: int) -> int:
        """The longest declared time that is over after so long; 0 if none is."""
        count = bisect_right(self._times_ms, gone_ms)
        return self._times_ms[count - 1] if count else 0
