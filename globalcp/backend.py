"""What the REST layer reads from and writes to on a global replica."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from globalcp.contenders import Contender
from globalcp.quota import Use
from globalcp.state import GlobalState
from zonemesh import labels, multizone, status
from zonemesh.agents import AgentNote
from zonemesh.generators import Generators
from zonemesh.hostnames import Outcome
from zonemesh.ipam import Binding, vip_kind
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.lostzones import Effect, as_served, effect_in, effects_in
from zonemesh.members import DATAPLANE, MESH_SERVICE, Members, selected
from zonemesh.model import Key, Record
from zonemesh.resources.catalogue import KINDS
from zonemesh.resources.kind import Kind
from zonemesh.rest.backend import Found
from zonemesh.rest.document import rfc3339
from zonemesh.rest.plane import (
    PlaneBackend,
    describe_pools,
    describe_reader,
    describe_registry,
)
from zonemesh.rivals import Known, Rivals
from zonemesh.seen import Seen
from zonemesh.settings import Settings
from zonemesh.travel import up_log
from zonemesh.wire import known

_MESH = "Mesh"
_ZONE = "Zone"


class GlobalBackend(PlaneBackend):
    """`rest.backend.Backend` over a replica's registry; writes go through the leader's writer."""

    on_global = True
    zone = ""
    federated = False

    def __init__(
        self,
        state: GlobalState,
        members: Members,
        follower: Follower,
        leadership: Callable[[], Leadership],
        *,
        settings: Settings,
        format_held_back_by: Callable[[], Sequence[str]] = tuple,
        zone_ages_s: Callable[[], Mapping[str, float]] = dict,
        about: Callable[[], Mapping[str, Any]] = dict,
        contender: Callable[[str], Contender | None] = lambda _: None,
    ) -> None:
        """`settings`: those that this replica brings should it come to lead; `zone_ages_s`: how
        old what this replica knows of each zone is; `about`: what the process says of itself in
        `GET /_state`; `format_held_back_by`: who cannot read what a leader could write the log in.
        """
        super().__init__(state.registry, leadership)
        self._state = state
        self._zone_ages_s = zone_ages_s
        self._about = about
        self._contender = contender
        self._members = members
        self._settings = settings
        generators = Generators()
        state.registry.add_index(generators)
        self._rivals = Rivals(
            KINDS, generators, origins=self.origins, lookup=self._known, reaches=self._reaches
        )
        self._follower = follower
        self._format_held_back_by = format_held_back_by

    def get(self, kind: Kind, key: Key) -> Record | None:
        packed = self._state.registry.get(kind.name, key.packed)
        if packed is None:
            return None
        return as_served(Record.unpack(packed), self._effect(kind, key))

    def _effect(self, kind: Kind, key: Key) -> Effect:
        """What the other zones do with a service whose own zone may be lost."""
        if kind.name != MESH_SERVICE:
            return Effect.SERVED
        registry = self._state.registry
        return effect_in(registry, key.packed, registry.get(kind.name, key.packed))

    def keys(self, kind: Kind, mesh: str | None) -> Iterable[str]:
        table = self._state.registry.table(kind.name)
        if mesh is None:
            return table
        return (key for key in table if key.startswith(f"{mesh}/"))

    def origins(self, kind: Kind) -> Iterable[tuple[str, str]]:
        yield "", ""
        for zone in self._state.zones():
            yield zone, ""
        yield from self._namespaces.of(kind.name)

    def unread(self) -> str | None:
        known = self._state.registry.incarnation != ""
        return None if known else "global's log has not been read yet"

    def mesh_exists(self, mesh: str) -> bool:
        return self._state.registry.get(_MESH, Key("", "", "", mesh).packed) is not None

    def status(self, kind: Kind, found: Found) -> Mapping[str, Any] | None:
        """With the hostnames that it has at home, or for what was made here in the first zone."""
        if not kind.pool:
            return None
        zone = found.key.zone or next(iter(self._state.zones()), "")
        packed = self._state.registry.get(vip_kind(kind.name), found.key.packed)
        return status.of_service(
            kind.name,
            binding=None if packed is None else Binding.unpack(packed),
            outcomes=self._rivals.outcomes(kind, found.key, zone) if zone else (),
            shortage=self._state.shortages.get((kind.name, found.key.zone)),
            members=lambda: self.members(found),
            matched=lambda: self._matched(found),
            agent=self.connected,
            effect=self._effect(kind, found.key),
        )

    def _matched(self, found: Found) -> list[Key]:
        """The MeshServices of its mesh that a MeshMultiZoneService stands for."""
        wanted = multizone.match_labels(found.record.spec)
        if not wanted:  # selects nothing, as in Kuma
            return []
        kind = KINDS["MeshService"]
        # Nearly every selector asks for a name, which spares decoding all other services.
        end = f"/{wanted[labels.DISPLAY_NAME]}" if labels.DISPLAY_NAME in wanted else ""
        matched = []
        for packed, payload in self._state.registry.table(kind.name).items():
            if packed.startswith(f"{found.key.mesh}/") and packed.endswith(end):
                key = Key.parse(packed)
                shown = labels.of_record(kind, key, Record.unpack(payload), self.zone)
                if multizone.matches(wanted, shown):
                    matched.append(key)
        return sorted(matched)

    def members(self, found: Found) -> list[tuple[str, Record]]:
        selector = found.record.spec.get("selector") or {}
        dataplanes = self._state.registry.table(DATAPLANE)
        return list(selected(found.key.packed, selector, self._members, dataplanes))

    def address(self, kind: Kind, key: Key, zone: str) -> int | None:
        if key.zone not in ("", zone) and (
            not self._enabled(key.zone) or self._effect(kind, key) is Effect.WITHDRAWN
        ):
            return None
        packed = self._state.registry.get(vip_kind(kind.name), key.packed)
        binding = None if packed is None else Binding.unpack(packed)
        return binding.address if binding is not None and binding.live else None

    def insight(self, zone: str) -> Mapping[str, Any] | None:
        seen = Seen.of(self._state.registry, zone)
        if seen is None:
            return None
        return zone_insight(
            zone,
            seen,
            self.zone_lag_s(zone),
            effects=effects_in(self._state.registry, zone),
            use=self._state.use(zone),
            contender=self._contender(zone),
        )

    def connected(self, key: str) -> AgentNote | None:
        return AgentNote.of(self._state.registry, key)

    def outcomes(self, kind: Kind, found: Found) -> Mapping[str, Sequence[Outcome]]:
        return {
            zone: self._rivals.outcomes(kind, found.key, zone)
            for zone in self._zones()
            if self._reaches(kind, found.key, zone)
        }

    def _zones(self) -> list[str]:
        """Those that were heard of, and those that are only expected."""
        declared = (Key.parse(packed).name for packed in self._state.registry.table(_ZONE))
        return sorted({*self._state.zones(), *declared})

    def _reaches(self, kind: Kind, key: Key, zone: str) -> bool:
        """Whether a service is known in a zone, as global sends it (Kuma's KDS)."""
        if key.zone in ("", zone):
            return bool(key.zone) or kind.down
        return kind.across and self._enabled(key.zone)

    def _enabled(self, zone: str) -> bool:
        packed = self._state.registry.get(_ZONE, Key("", "", "", zone).packed)
        return packed is None or Record.unpack(packed).spec.get("enabled") is not False

    def _known(self, kind: Kind, key: Key) -> Known | None:
        record = self.get(kind, key)
        if record is None:
            return None
        packed = self._state.registry.get(vip_kind(kind.name), key.packed)
        if packed is None:
            return Known(record, None, waits=True)
        bound = Binding.unpack(packed)
        return Known(record, bound.order, waits=not bound.live)

    def zone_lag_s(self, zone: str) -> float | None:
        """Age of what is merged of a zone; None while it is not known."""
        age_s = self._zone_ages_s().get(zone)
        return None if age_s is None else round(age_s, 3)

    def own_lag_s(self) -> float | None:
        """Age of this replica's copy of the log; None until that is known.

        For its writer 0: nothing is newer. But while the store does not take its entry, nobody
        else has what it has.
        """
        writer = self._leadership().writer
        return self._follower.lag_s if writer is None else writer.blocked_s

    def describe(self) -> Mapping[str, Any]:
        registry = self._state.registry
        zones = self._state.zones()
        return {
            **describe_registry(registry),
            "term": registry.position.term,
            "lag_s": self.own_lag_s(),
            "leader": self._leadership().writer is not None,
            "leader_url": self._leadership().leading_url,
            "settings": self._describe_settings(),
            "formats": {
                "log": registry.format,
                "readable": list(known()),
                "heldBackBy": list(self._format_held_back_by()),
            },
            **describe_reader(self._follower),
            **self._about(),
            "pools": describe_pools(self._state.ledgers, ["", *zones], self._state.settings),
            "sizes": {
                pool: sum(size for _, size in self._state.settings.pool(pool).blocks())
                for pool in self._state.ledgers
            },
            "shortages": [
                {"pool": pool, "zone": zone, "why": why}
                for (pool, zone), why in sorted(self._state.shortages.items())
            ],
            "zones": {
                zone: self._describe_zone(zone, seen)
                for zone in zones
                if (seen := Seen.of(registry, zone)) is not None
            },
        }

    def _describe_settings(self) -> Mapping[str, Any]:
        settings, draining = self._state.settings, self._state.draining()
        return {
            "pools": {name: list(cidrs) for name, cidrs in settings.pools.items()},
            "former": {name: list(cidrs) for name, cidrs in settings.former.items()},
            "draining": {
                pool: sum(held for (name, _), held in draining.items() if name == pool)
                for pool in sorted({name for name, _ in draining})
            },
            "differs": {
                name: {"mesh": mesh, "configured": configured}
                for name, (mesh, configured) in self._state.differs(self._settings).items()
            },
        }

    def _describe_zone(self, zone: str, seen: Seen) -> dict[str, Any]:
        contender = self._contender(zone)
        return {
            "cursor": str(self._state.registry.cursors.get(up_log(zone), "")),
            "enabled": self._enabled(zone),
            **(self.insight(zone) or {})["zonemesh"],
            **({"claimed_by": _claimed_by(contender)} if contender else {}),
            "version": seen.version,
        }


def zone_insight(
    zone: str,
    seen: Seen,
    lag_s: float | None,
    *,
    effects: Mapping[Effect, int],
    use: Use,
    contender: Contender | None = None,
) -> dict[str, Any]:
    """Kuma's ZoneInsight, with what Kuma has not under `zonemesh`.

    `effects`: how many of its services come to what in other zones while it is lost.
    """
    counters = {
        "responsesSent": str(seen.records),
        "responsesAcknowledged": str(seen.records),
        "responsesRejected": str(seen.rejected + seen.conflicts + seen.refused),
    }
    subscription: dict[str, Any] = {
        "id": seen.uid or zone,
        "globalInstanceId": "globalcp",
        "zoneInstanceId": seen.uid,
        "connectTime": rfc3339(seen.connected_ms),
        "status": {
            "lastUpdateTime": rfc3339(seen.updated_ms or seen.connected_ms),
            "total": counters,
            "stat": {},
        },
        "version": {"kumaCp": {"version": seen.version, "kumaCpGlobalCompatible": True}},
        "config": '{"store":{"type":"log"}}',
    }
    if not seen.online and seen.disconnected_ms is not None:
        subscription["disconnectTime"] = rfc3339(seen.disconnected_ms)
    return {
        "subscriptions": [subscription],
        "zonemesh": {
            "online": seen.online,
            "state": seen.state,
            "since": rfc3339(seen.since_ms),
            "servicesUnavailable": effects.get(Effect.UNAVAILABLE, 0),
            "servicesWithdrawn": effects.get(Effect.WITHDRAWN, 0),
            "uid": seen.uid,
            "url": seen.url,
            "lagSeconds": lag_s,
            "zoneLagSeconds": None if seen.lag_ms is None else seen.lag_ms / 1000,
            "entries": seen.entries,
            "records": seen.records,
            "rejectedRecords": seen.rejected,
            "bindingConflicts": seen.conflicts,
            "refusedRecords": seen.refused,
            "refusal": seen.refusal,
            "services": use.services,
            "servicesMax": use.quota.services,
            "bytes": use.bytes,
            "bytesMax": use.quota.bytes,
            **({} if contender is None else {"claimedBy": _claimed_by(contender)}),
        },
    }


def _claimed_by(contender: Contender) -> dict[str, Any]:
    return {
        "uid": contender.uid,
        "url": contender.url,
        "owner": contender.owner,
        "firstTime": rfc3339(contender.first_ms),
        "lastTime": rfc3339(contender.last_ms),
    }
