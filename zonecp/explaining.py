"""Why a name resolves in this zone or does not: the map's own rules, told for one name.

Whoever holds a name is known at once; who else wanted it is not kept anywhere, so that every
service of the mesh is considered. That is done one by one (`Inquiry.consider`), for the asker to
let others have turns in between: 100,000 services take some three seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from zonecp.legacyclaims import LegacyClaims, endpoints, legacy_title
from zonemesh import names
from zonemesh.generators import Generators
from zonemesh.hostnames import GENERATOR_KIND, Outcome, Reason
from zonemesh.hostnames import KINDS as BY_STRENGTH
from zonemesh.ipam import Binding, ipv4_text, ipv6_text, vip_kind
from zonemesh.legacymap import Named
from zonemesh.legacypool import LEGACY
from zonemesh.lostpolicy import LABEL
from zonemesh.lostzones import Effect
from zonemesh.members import DATAPLANE
from zonemesh.model import Key, Record, ServiceRef, zone_of
from zonemesh.reach import reach_of
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.seen import Seen
from zonemesh.vipmap import TTL_S, VipMap

NEAR_MAX = 5
NEAR_RATIO_MIN = 0.6
"""Of `difflib`, which takes this for "close"."""
LAG_MAX_S = 10.0
"""Beyond it what is known of other zones is said to be old; the age at which alerts fire."""


class Verdict(StrEnum):
    RESOLVES = "Resolves"
    TRIMMED = "Trimmed"
    """It resolves for others; the data plane asked about may not reach the service."""
    NO_ADDRESS = "NoAddress"
    """A service holds the name and has no address yet."""
    PENDING = "Pending"
    """It has one; the map is being brought up to date."""
    WITHDRAWN = "Withdrawn"
    """Its services are of zones that are disabled, or lost for too long: nothing is served."""
    UNKNOWN = "Unknown"
    """No generator makes this name of any service."""
    INVALID = "Invalid"
    """Not a name that anything could have."""
    UNKNOWN_MESH = "UnknownMesh"
    NOT_READY = "NotReady"
    """This control plane has no complete map yet."""


class ZoneState(StrEnum):
    LOCAL = "Local"
    GLOBAL = "Global"
    """Made on the global control plane, so of no zone."""
    ONLINE = "Online"
    OFFLINE = "Offline"
    DISABLED = "Disabled"
    UNKNOWN = "Unknown"


class ZoneSight(NamedTuple):
    """What this zone knows of another."""

    state: ZoneState
    silent_s: float | None
    """For how long global has not heard of it; None where nothing is known."""


class Trimming(NamedTuple):
    """What a data plane's `reachableBackends` do to a name."""

    trimmed: bool
    why: str


class Question(NamedTuple):
    mesh: str
    name: str
    """As asked for: in any case, with or without the root's dot."""
    dataplane: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a zone's control plane answers from."""

    vipmap: VipMap
    own: Registry
    copy: Registry
    shortages: Mapping[str, str]
    """Pool -> why it had no address left for a service of this zone."""
    mesh_exists: Callable[[str], bool]
    lag_s: Callable[[], float]
    ready: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class _Claim:
    """One service's best try for the name."""

    ref: ServiceRef
    outcome: Outcome
    withdrawn: bool = False
    """Of a disabled or lost zone: it would have competed."""

    @property
    def holds(self) -> bool:
        return self.outcome.generated and not self.withdrawn


@dataclass
class Inquiry:
    """One question. Let it consider all `services`, then ask for the `answer`."""

    view: View
    question: Question
    _name: str = field(init=False)
    _parts: frozenset[str] = field(init=False)
    _matcher: SequenceMatcher[str] = field(init=False)
    _claims: list[_Claim] = field(default_factory=list)
    _near: list[tuple[float, ServiceRef]] = field(default_factory=list)
    """A heap of the nearest, the farthest of them first."""
    _zone_states: dict[str, ZoneSight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._name = self.question.name.strip().lower().removesuffix(".")
        parts = self._name.split(".")
        self._parts = frozenset(parts)
        self._matcher = SequenceMatcher(autojunk=False)
        self._matcher.set_seq2(parts[0])

    def services(self) -> Iterator[ServiceRef]:
        """Those of the mesh, as they are when this is called; what comes and goes is left out."""
        vipmap = self.view.vipmap
        mesh = f"{self.question.mesh}/"
        # Copied here, as keys alone: with 100,000 of them anything more would be a stall.
        tables = [
            (kind, list(registry.table(kind)), registry is self.view.own)
            for kind in BY_STRENGTH
            for registry in (self.view.own, self.view.copy)
        ]
        return (
            ServiceRef(kind, key)
            for kind, keys, own in tables
            for key in keys
            if key.startswith(mesh) and (zone_of(key) == vipmap.zone) is own
        )

    def consider(self, ref: ServiceRef) -> None:
        """Look at one service; one that has gone meanwhile adds nothing."""
        name = ref.key.rpartition("/")[2]
        withdrawn = self._why_withdrawn(ref) is not None
        outcomes = self._withheld(ref) if withdrawn else self.view.vipmap.outcomes(ref)
        tries = [each for each in outcomes if each.hostname == self._name]
        if tries:
            best = min(tries, key=lambda outcome: outcome.generator.rank)
            self._claims.append(_Claim(ref, best, withdrawn))
            return
        score = self._likeness(name)
        if score >= NEAR_RATIO_MIN and self.view.vipmap.record(ref) is not None:
            heapq.heappush(self._near, (score, ref))
            if len(self._near) > NEAR_MAX:
                heapq.heappop(self._near)

    def answer(self) -> dict[str, Any]:
        """All that is known, as the JSON document of `_explain`."""
        self._claims.sort(key=lambda claim: (not claim.holds, claim.ref))
        verdict, why = self._verdict()
        near = [ref for _, ref in sorted(self._near, key=lambda each: (-each[0], each[1]))]
        refs = [claim.ref for claim in self._claims] + near
        resolves = verdict is Verdict.RESOLVES
        named = self._published() if resolves else None
        return {
            "mesh": self.question.mesh,
            "zone": self.view.vipmap.zone,
            "name": self._name,
            "resolves": resolves,
            "verdict": verdict,
            "why": why,
            "vips": [] if named is None else _texts(named.address),
            "ttl": None if named is None else TTL_S,
            "candidates": self._candidates(),
            "failures": [failure for ref in refs for failure in self._failures(ref)],
            "near": [self._described(ref) for ref in near],
            "zones": self._zones(refs),
            "dataplane": self._dataplane(),
            "warnings": self._warnings(),
            "lag_s": round(self.view.lag_s(), 3),
        }

    @property
    def _legacy(self) -> LegacyClaims:
        return LegacyClaims(self.view.vipmap, self.question.mesh, self._name)

    # What decides

    def _verdict(self) -> tuple[Verdict, str]:
        mesh = self.question.mesh
        if not self.view.mesh_exists(mesh):
            return Verdict.UNKNOWN_MESH, f"mesh {mesh} does not exist here"
        if (reason := self.view.ready()) is not None:
            return Verdict.NOT_READY, f"no map is served yet: {reason}"
        named = self._published()
        if named is None:
            return self._why_not()
        if (trimming := self._trimming()).trimmed:
            return Verdict.TRIMMED, f"Dataplane {self.question.dataplane}: {trimming.why}"
        holder = self._holder
        given = f", by generator {holder.outcome.generator.name}" if holder else ""
        return Verdict.RESOLVES, f"{_title(named.kind, named.key)} holds it{given}"

    def _why_not(self) -> tuple[Verdict, str]:
        """Why the map does not have the name."""
        legacy = self._legacy.holder
        if legacy is not None and self._holder is None:
            return self._why_not_legacy(legacy)
        if (fault := names.hostname_fault(self._name)) is not None:
            return Verdict.INVALID, fault
        if not self._claims:
            nobody = "no generator makes this name of any service known here"
            also = self._legacy.why_none()
            return Verdict.UNKNOWN, nobody if also is None else f"{nobody}, and {also}"
        title, holder = _title(*self._claims[0].ref), self._holder
        if all(claim.withdrawn for claim in self._claims):
            why = self._why_withdrawn(self._claims[0].ref)
            return Verdict.WITHDRAWN, f"{title} would have it, and its {why}"
        if holder is None:
            return Verdict.PENDING, "who holds it has just changed: ask again"
        if self.view.vipmap.address(holder.ref) is None:
            return Verdict.NO_ADDRESS, f"{title} holds it and {self._addressless(holder.ref)}"
        return Verdict.PENDING, f"{title} holds it; the map is being brought up to date"

    def _why_not_legacy(self, holder: ServiceRef) -> tuple[Verdict, str]:
        title = _title(*holder)
        if self.view.vipmap.address(holder) is None:
            return Verdict.NO_ADDRESS, f"{title} holds it and has no address yet"
        return Verdict.PENDING, f"{title} holds it; the map is being brought up to date"

    def _published(self) -> Named | None:
        # Not by index, which would make a map for whatever mesh somebody asks for.
        return self.view.vipmap.published.get(self.question.mesh, {}).get(self._name)

    @property
    def _holder(self) -> _Claim | None:
        return self._claims[0] if self._claims and self._claims[0].holds else None

    def _addressless(self, ref: ServiceRef) -> str:
        zone = Key.parse(ref.key).zone
        if zone != self.view.vipmap.zone:
            return f"has no address yet: {f'zone {zone}' if zone else 'global'} binds it"
        shortage = self.view.shortages.get(ref.kind)
        return f"has no address: {shortage}" if shortage else "has no address yet"

    def _warnings(self) -> list[str]:
        """What is wrong beside the verdict."""
        found = []
        lag_s = self.view.lag_s()
        if lag_s > LAG_MAX_S:
            found.append(f"what this zone knows of others is {lag_s:.0f} s old")
        if self._holder is not None:
            found += self._about_holder(self._holder.ref)
        elif (legacy := self._legacy.holder) is not None:
            found += [*self._about_endpoints(legacy), *self._legacy.warnings()]
        dataplane = self.question.dataplane
        if dataplane is not None and self._dataplane_record(dataplane) is None:
            found.append(f"Dataplane {dataplane} is not registered in this zone")
        return found

    def _about_holder(self, ref: ServiceRef) -> Iterable[str]:
        zone = Key.parse(ref.key).zone
        state, silent_s = self._zone(zone)
        silence = f"global has not heard of it for {silent_s or 0:.0f} s"
        if state is ZoneState.UNKNOWN:
            yield f"global tells nothing of zone {zone}"
        elif state is ZoneState.OFFLINE:
            if self.view.vipmap.others.effect(ref) is Effect.UNAVAILABLE:
                yield f"zone {zone} is offline, and by its policy ({LABEL}) not used: {silence}"
            else:
                yield f"zone {zone} is offline, its endpoints may be old: {silence}"
        elif (silent_s or 0) > LAG_MAX_S:
            yield f"zone {zone} is stale: {silence}"
        yield from self._about_endpoints(ref)

    def _about_endpoints(self, ref: ServiceRef) -> Iterable[str]:
        if self.view.vipmap.address(ref) is not None:
            found = endpoints(self.view.vipmap, ref)
            if found["total"] == 0:
                yield "no data plane stands behind it: connections will fail"
            elif found["ready"] == 0:
                yield "none of its endpoints is ready"

    # What is told of services

    def _described(self, ref: ServiceRef) -> dict[str, Any]:
        key = Key.parse(ref.key)
        address = self.view.vipmap.address(ref)
        return {
            "kind": ref.kind,
            "name": f"{key.name}.{key.namespace}" if key.namespace else key.name,
            "zone": key.zone,
            "service": KINDS[ref.kind].kri(key),
            "vips": [] if address is None else _texts(address),
            "names": self.view.vipmap.hostnames(ref),
            "endpoints": endpoints(self.view.vipmap, ref),
        }

    def _candidates(self) -> list[dict[str, Any]]:
        """All that want the name, the holder first."""
        stronger = None if self._holder is None else _title(*self._holder.ref)
        found = [self._candidate(claim) for claim in self._claims]
        found += self._legacy.candidates(stronger)
        return sorted(found, key=lambda each: not each["holds"])

    def _candidate(self, claim: _Claim) -> dict[str, Any]:
        generator = claim.outcome.generator
        return {
            **self._described(claim.ref),
            "generator": generator.name,
            "template": generator.template.text,
            "holds": claim.holds,
            "why": "" if claim.holds else self._why_lost(claim),
        }

    def _why_withdrawn(self, ref: ServiceRef) -> str | None:
        """Why a service has no name here that it would have; None if it may have."""
        zone = zone_of(ref.key)
        if self._zone(zone).state is ZoneState.DISABLED:
            return f"zone {zone} is disabled: nothing of it is served"
        if self.view.vipmap.others.effect(ref) is Effect.WITHDRAWN:
            return f"zone {zone} is lost, and by its policy ({LABEL}) it is withdrawn"
        return None

    def _why_lost(self, loser: _Claim) -> str:
        """The first rule that decides between the two: kind, address, generator, service."""
        winner = self._holder
        if loser.withdrawn:
            return str(self._why_withdrawn(loser.ref))
        if winner is None:
            return loser.outcome.message
        who = _title(*winner.ref)
        if winner.ref.kind != loser.ref.kind:
            assert BY_STRENGTH.index(winner.ref.kind) < BY_STRENGTH.index(loser.ref.kind)
            return f"{who} has it: {winner.ref.kind} goes before {loser.ref.kind}"
        waits, answers = map(self.view.vipmap.address, (loser.ref, winner.ref))
        if waits is None and answers is not None:
            return f"{who} has it: this one has no address to answer with yet"
        ours, theirs = loser.outcome.generator, winner.outcome.generator
        if theirs.rank < ours.rank:
            rule = "is older"
            if theirs.origin != ours.origin:
                rule = "is of this zone, the other global's"
            elif theirs.created_ms == ours.created_ms:
                rule = "comes first by name"
            return f"{who} has it: its generator {theirs.name} {rule}"
        return f"{who} has it: {self._why_later(loser.ref, winner.ref)}"

    def _withheld(self, ref: ServiceRef) -> list[Outcome]:
        """What generators would make of a service that has no name here."""
        key, record = Key.parse(ref.key), self.view.vipmap.record(ref)
        if record is None:
            return []
        return self._generators.made(KINDS[ref.kind], key, record, self.view.vipmap.zone)

    @cached_property
    def _generators(self) -> Generators:
        """All that are known here."""
        found = Generators()
        for registry in (self.view.own, self.view.copy):
            for key, packed in registry.table(GENERATOR_KIND).items():
                found.put(key, Record.unpack(packed))
        return found

    def _why_later(self, loser: ServiceRef, winner: ServiceRef) -> str:
        ours, theirs = self._order(loser), self._order(winner)
        if theirs is None:
            return "it was registered first, and global has merged neither yet"
        if ours is None:
            return f"global has merged it (order {theirs}), and not yet this one"
        return f"global merged it first (order {theirs}, this one {ours})"

    def _order(self, ref: ServiceRef) -> int | None:
        for registry in (self.view.copy, self.view.own):
            packed = registry.get(vip_kind(ref.kind), ref.key)
            order = None if packed is None else Binding.unpack(packed).order
            if order is not None:
                return order
        return None

    def _failures(self, ref: ServiceRef) -> Iterable[dict[str, Any]]:
        """Generators that select a service and could make no name of it."""
        key = Key.parse(ref.key)
        for outcome in self.view.vipmap.outcomes(ref):
            if outcome.reason is Reason.TEMPLATE_ERROR:
                yield {
                    "kind": ref.kind,
                    "name": key.name,
                    "zone": key.zone,
                    "generator": outcome.generator.name,
                    "message": outcome.message,
                }

    def _likeness(self, display: str) -> float:
        """How near a service's name is to what was asked for, 0 to 1."""
        if display in self._parts:
            return 1.0
        self._matcher.set_seq1(display)
        for bound in (self._matcher.real_quick_ratio, self._matcher.quick_ratio):
            if bound() < NEAR_RATIO_MIN:  # upper bounds, and much cheaper
                return 0.0
        return self._matcher.ratio()

    # What is told of zones and data planes

    def _zones(self, refs: Sequence[ServiceRef]) -> dict[str, dict[str, Any]]:
        zones = {Key.parse(ref.key).zone for ref in refs}
        return {zone: self._zone(zone)._asdict() for zone in sorted(zones - {""})}

    def _zone(self, zone: str) -> ZoneSight:
        if zone not in self._zone_states:
            self._zone_states[zone] = self._look_at_zone(zone)
        return self._zone_states[zone]

    def _look_at_zone(self, zone: str) -> ZoneSight:
        if zone in ("", self.view.vipmap.zone):
            return ZoneSight(ZoneState.LOCAL if zone else ZoneState.GLOBAL, 0.0)
        packed = self.view.copy.get("Zone", Key("", "", "", zone).packed)
        seen = Seen.of(self.view.copy, zone)
        if seen is None:
            return ZoneSight(ZoneState.UNKNOWN, None)
        state = ZoneState.ONLINE if seen.online else ZoneState.OFFLINE
        if packed is not None and Record.unpack(packed).spec.get("enabled") is False:
            state = ZoneState.DISABLED
        silent_ms = max(0, self.view.copy.log_time_ms - seen.last_ms)
        return ZoneSight(state, silent_ms / 1000)

    def _dataplane(self) -> dict[str, Any] | None:
        """What the data plane asked about sees of the name."""
        name = self.question.dataplane
        if name is None:
            return None
        known = self._dataplane_record(name) is not None
        return {"name": name, "known": known, **self._trimming()._asdict()}

    def _trimming(self) -> Trimming:
        """Whether the data plane's own feed leaves out the service that holds the name."""
        name = self.question.dataplane
        record = None if name is None else self._dataplane_record(name)
        reach = None if record is None else reach_of(self.view.vipmap.zone, record)
        named = self._published()
        if reach is None:
            return Trimming(trimmed=False, why="it may reach every service of its mesh")
        if named is None:
            return Trimming(
                trimmed=False, why="it may reach what its Dataplane names; nothing is served here"
            )
        title = _title(named.kind, named.key)
        if reach.allows(named.kind, named.key, self._labels_of):
            return Trimming(trimmed=False, why=f"its Dataplane names {title} as reachable")
        return Trimming(trimmed=True, why=f"its Dataplane does not name {title} as reachable")

    def _labels_of(self, kind: str, key: str) -> Mapping[str, str]:
        return self.view.vipmap.labels(ServiceRef(kind, key))

    def _dataplane_record(self, name: str) -> Record | None:
        key = Key(self.question.mesh, self.view.vipmap.zone, "", name)
        packed = self.view.own.get(DATAPLANE, key.packed)
        return None if packed is None else Record.unpack(packed)


def _texts(address: int) -> list[str]:
    return [ipv4_text(address), ipv6_text(address)]


def _title(kind: str, key: str) -> str:
    if kind == LEGACY:
        return legacy_title(key)
    _, zone, namespace, name = Key.parse(key)
    shown = f"{name}.{namespace}" if namespace else name
    return f"{kind} {shown} of {f'zone {zone}' if zone else 'global'}"
