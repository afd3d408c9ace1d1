"""What a zone's control plane decides: inputs and state in, changes out. No clock, no I/O.

A decision works on a draft: first every input is put into it, then what follows from the inputs is
brought up to date once (services of changed Dataplanes, their addresses), so that many inputs of
one entry cost one regeneration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgpack

from zonecp import generator, propagation
from zonecp.inputs import Adopt, Begin, FromGlobal, Heard, Input, Proven, Tick
from zonecp.unproven import Marks
from zonemesh.agents import AGENT, AgentNote, Agents
from zonemesh.binding import Binder, binds_in
from zonemesh.deciding import Deciding, Decision, Delete, Now, Put, Written
from zonemesh.draft import Draft
from zonemesh.errors import PoolExhaustedError, TooLargeError
from zonemesh.forgetting import Forgetting
from zonemesh.hostnames import GENERATOR_KIND, default_zone_generators
from zonemesh.ipam import BLOCK, Binding, Block, Ledger, Pool, pool_of, vip_kind
from zonemesh.leasing import emptied, forgettable, grants, is_handed_back
from zonemesh.legacy import Naming
from zonemesh.legacybinding import LegacyBindings
from zonemesh.legacypool import LEGACY, LEGACY_VIP
from zonemesh.members import (
    DATAPLANE,
    GENERATOR,
    MANAGED_BY,
    MESH_SERVICE,
    DraftMembers,
    Members,
    UserServices,
    candidates,
    generated,
    inbounds,
    place,
    terms,
)
from zonemesh.model import Change, Key, Record
from zonemesh.registry import Index, Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings, zone_key
from zonemesh.travel import CANARY, GLOBAL_LOG, GRACE, VERDICT, ZONE_STATE
from zonemesh.wire import UP_ENTRY_BYTES_MAX

RECORD_BYTES_MAX = 64 << 10
"""What one record may take, with the services that follow from it."""
ENTRY_BYTES = 96 << 10
"""When it is filled so far, a decision takes no further input."""
ENTRY_BYTES_MAX = UP_ENTRY_BYTES_MAX - RECORD_BYTES_MAX - (16 << 10)
"""When it is filled so far, nothing is looked at again: the last thing looked at, and the envelope,
still fit into one up entry."""
SERVICE_BYTES = 600
"""What a generated service without ports takes: itself, its binding, a note of its grace period."""
PORT_BYTES = 64
RESTATED_MAX = 2_000
"""Services that one decision looks at again, some 50 ms."""
BIRTH = "birth"
"""Counter of the bindings made here."""


@dataclass(frozen=True, slots=True)
class ZoneNote:
    """What a zone's log says about the zone itself."""

    uid: str
    adopted: bool
    continues: str = ""
    """The cursor up to which another incarnation of this log, lost since, is held in this one."""
    alone: bool = False
    """It was never part of a mesh: what a global has under its name is another zone's."""

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb((self.uid, self.adopted, self.continues, self.alone))
        return packed

    @classmethod
    def of(cls, registry: Registry | Draft, zone: str) -> ZoneNote | None:
        packed = registry.get(ZONE_STATE, zone_key(zone))
        return None if packed is None else cls(*msgpack.unpackb(packed))


class ZoneState:
    """A zone's own registry with the indexes that decisions need."""

    def __init__(self, zone: str, *, federated: bool, naming: Naming | None = None) -> None:
        """`naming`: how a zone without a global makes legacy names; the others take global's."""
        self.zone = zone
        self.federated = federated
        self.registry = Registry()
        self.members = Members()
        self.user_services = UserServices()
        self.ledgers = {name: Ledger(name) for name, kind in KINDS.items() if kind.pool}
        self.shortages: dict[str, str] = {}
        """Pool -> why a service was left without an address, as of the last try."""
        self.overdue: set[str] = set()
        """Services whose state is to be looked at again."""
        self.legacy = (
            None
            if federated
            else LegacyBindings(self.registry, naming or Naming(), self.ledgers.values())
        )
        self.forgetting = Forgetting()
        self.agents = Agents()
        self.cleanup_ms: int | None = None
        """Log time after which a Dataplane goes whose agent is gone; None: it stays."""
        self.led_since_ms = 0
        """Log time at which this leader began: nobody's absence is reckoned from before."""
        indexes: list[Index] = [
            self.members,
            self.user_services,
            self.agents,
            *self.ledgers.values(),
        ]
        for index in indexes:
            self.registry.add_index(index)

    def other_ledgers(self, pool: str) -> list[Ledger]:
        """Those of all pools but one: what they hold, that one does not give out."""
        found = [ledger for name, ledger in self.ledgers.items() if name != pool]
        return found if self.legacy is None else [*found, self.legacy.ledger]

    @property
    def note(self) -> ZoneNote | None:
        return ZoneNote.of(self.registry, self.zone)

    @property
    def adopted(self) -> bool:
        """Whether this zone knows all that was ever bound for it, so that it may bind more."""
        note = self.note
        return note is not None and note.adopted

    def legacy_claims(self) -> dict[str, bytes]:
        """Where this zone has legacy names that it gave addresses to itself, and global does not
        know of yet.
        """
        if not self.federated:
            return {}
        table = self.registry.table(LEGACY_VIP)
        return {key: packed for key, packed in table.items() if Binding.unpack(packed).live}

    @property
    def knows_pools(self) -> bool:
        """Whether these are the mesh's: until global has said, all that is known is the usual."""
        return not self.federated or self.registry.get(SETTINGS, GLOBAL_KEY) is not None

    def has_handed_back(self, key: str, payload: bytes) -> bool:
        """Whether a lease that global tells of is one that this zone has given up already."""
        block, pool = Block.unpack(payload), Key.parse(key).namespace
        ledger = self.ledgers.get(pool)
        if block.retired or ledger is None or not self.knows_pools:
            return False
        return is_handed_back(self.settings.pool(pool), ledger, block)

    @property
    def settings(self) -> Settings:
        """Global's where the zone has them, with the zone's own grace period."""
        own = self.registry.get(SETTINGS, zone_key(self.zone))
        settings = Settings() if own is None else Settings.unpack(own)
        shared = self.registry.get(SETTINGS, GLOBAL_KEY)
        if shared is None:
            return settings
        return replace(
            Settings.unpack(shared), grace_ms=settings.grace_ms, propagate=settings.propagate
        )

    def decide(self, inputs: Sequence[Input], now: Now) -> Decision:
        """Decide the next entry; consumes as many inputs as fit into one."""
        return _Deciding(self, now).run(inputs)


class _Deciding(Deciding):
    """One decision in the making."""

    def __init__(self, state: ZoneState, now: Now) -> None:
        super().__init__(state.registry, now)
        self._state = state
        self._zone = state.zone
        self._members = DraftMembers(state.members)
        self._regroup: set[str] = set()
        self._follow_bytes = 0
        self._looks_around = False
        """Whether what only time or the last entry changed is looked at."""
        self._reselect: set[str] = set()
        """Services of users that may select a Dataplane that came, changed or went."""
        self._restate: set[str] = set()
        self._settings = state.settings
        self._marks = Marks(self._draft, state.registry, state.zone)
        self._binder = Binder(
            self._draft,
            state.ledgers,
            state.zone,
            log_time_ms=now.log_time_ms,
            settings=self._settings,
            short=partial(_short, state.shortages),
            chooses=state.adopted,
        )

    def run(self, inputs: Sequence[Input]) -> Decision:
        decision = self._decision
        self._looks_around = not inputs  # there is more of something
        self._consume(
            inputs,
            alone=Adopt,
            full=lambda: self._draft.bytes + self._follow_bytes >= ENTRY_BYTES,
        )
        if self._looks_around:
            self._expire_due()
            self._forget_lost()
        for service in sorted(self._regroup):
            self._regenerate(service)
        self._restate_services()
        for pool in self._state.ledgers:
            self._bind_waiting(pool)
        self._bind_legacy()
        if self._looks_around and self._state.adopted:
            self._forget_rested()
            self._hand_back()
        decision.more = self._marks.forget(ENTRY_BYTES) or decision.more
        decision.changes = self._draft.changes()
        return decision

    # Inputs

    def _handle(self, item: Input) -> Any:
        match item:
            case Put():
                return self._put_by_user(item)
            case Delete():
                return self._delete(item)
            case Tick():
                return self._tick(item)
            case FromGlobal():
                return self._from_global(item)
            case Adopt():
                return self._adopt(item)
            case Heard():
                return self._heard(item)
            case Begin() | Proven():
                return self._of_term(item)

    def _put_by_user(self, item: Put) -> Written:
        if item.kind == MESH_SERVICE:
            # The state is the control plane's: a client's copy of it neither sets nor resets it.
            packed = self._draft.get(item.kind, item.key.packed)
            state = "Unavailable" if packed is None else Record.unpack(packed).spec.get("state")
            item = replace(item, spec={**item.spec, "state": state})
        return self._put(item)

    def _put(self, item: Put) -> Written:
        key = item.key.packed
        self._marks.note(item.kind, key, gone=False)
        revised = self._revised(item)
        if revised is None:
            return self._unchanged()
        old, record = revised
        _check_size(item.kind, key, record)
        self._store(item.kind, key, old, record)
        return self._written(created=old is None)

    def _delete(self, item: Delete) -> Written:
        self._store(item.kind, item.key.packed, self._existing(item), None)
        self._marks.note(item.kind, item.key.packed, gone=True)
        return self._written(created=False)

    def _store(self, kind: str, key: str, old: Record | None, new: Record | None) -> None:
        self._draft.set(kind, key, None if new is None else new.pack())
        if kind == DATAPLANE:
            if new is None:
                self._draft.set(AGENT, key, None)
            self._members.note(key, [] if new is None else terms(key, new))
            self._follow_dataplane(key, old, new)
        elif kind == MESH_SERVICE:
            self._draft.set(GRACE, key, None)
            self._follow_service(key, gone=new is None)
        if kind in self._state.ledgers:
            if new is None:
                self._binder.release(kind, key)
            else:
                self._bind(kind, key)

    def _follow_dataplane(self, key: str, *versions: Record | None) -> None:
        for record in versions:
            if record is not None:
                self._regroup.update(generator.groups(key, record))
                self._follow_bytes += _follow_bytes(key, record)
        self._reselect |= self._state.user_services.selecting(key, *versions)

    def _follow_service(self, key: str, *, gone: bool) -> None:
        if not gone:
            self._restate.add(key)
        elif generator.members_of(key, self._members):
            self._regroup.add(key)  # Dataplanes still name it
            self._follow_bytes += SERVICE_BYTES

    def _tick(self, item: Tick) -> None:
        if item.canary is not None:
            self._draft.set(CANARY, zone_key(self._zone), item.canary or None)
        self._decision.note = {**item.note, "state": self._registry.digest}
        self._looks_around = True

    def _heard(self, item: Heard) -> None:
        """Note who has an agent now, of the Dataplanes that are there."""
        for key, agent in item.agents.items():
            if self._draft.get(DATAPLANE, key) is None:
                continue
            packed = self._draft.get(AGENT, key)
            note = None if packed is None else AgentNote.unpack(packed)
            if agent is not None and (note is None or not note.online):
                note = AgentNote(self._now.wall_ms, agent=agent[0], version=agent[1])
            elif agent is None and note is not None and note.online:
                note = replace(note, until_ms=self._now.wall_ms, until_log_ms=self._now.log_time_ms)
            self._draft.set(AGENT, key, None if note is None else note.pack())

    def _forget_lost(self) -> None:
        """Remove Dataplanes whose agent has been gone for long enough, as a client would."""
        after_ms = self._state.cleanup_ms
        if after_ms is None:
            return
        for key, lost_ms in list(self._state.agents.offline.items()):
            if self._now.log_time_ms - max(lost_ms, self._state.led_since_ms) < after_ms:
                continue
            packed = self._draft.get(DATAPLANE, key)
            if packed is None or self._draft.get(AGENT, key) is None:
                continue
            if self._draft.bytes + self._follow_bytes >= ENTRY_BYTES:
                self._decision.more = True
                return
            note = AgentNote.unpack(self._draft.get(AGENT, key) or b"")
            if not note.online:
                self._store(DATAPLANE, key, Record.unpack(packed), None)

    def _expire_due(self) -> None:
        """Remove generated services whose last Dataplane went long enough ago."""
        for key, packed in self._state.registry.table(GRACE).items():
            started_ms = msgpack.unpackb(packed)
            if self._now.log_time_ms - started_ms < self._settings.grace_ms:
                continue
            if key in self._regroup or self._draft.get(GRACE, key) != packed:
                continue  # this very entry brings it back, or is a user's taking it over
            if self._draft.bytes + self._follow_bytes >= ENTRY_BYTES:
                self._decision.more = True
                return
            self._expire(key)

    def _from_global(self, item: FromGlobal) -> None:
        for kind, key, payload in item.changes:
            if kind == VERDICT and payload is not None:
                self._obey(key, payload)
            elif kind == LEGACY_VIP:
                self._give_up_name(key, payload)
            elif (
                kind == BLOCK and payload is not None and self._state.has_handed_back(key, payload)
            ):
                continue
            elif kind in (BLOCK, SETTINGS):
                self._draft.set(kind, key, payload)
        note = ZoneNote.of(self._draft, self._zone)
        if note is not None and note.alone:  # no more: global knows it
            joined = replace(note, alone=False)
            self._draft.set(ZONE_STATE, zone_key(self._zone), joined.pack())
        self._decision.src[GLOBAL_LOG] = item.cursor
        # Blocks are of use once they are in this log; who waits is bound by the next entry.
        self._decision.more = True

    def _give_up_name(self, key: str, given: bytes | None) -> None:
        """Global gives out the address of a legacy name from now on; that one may be another."""
        own = self._draft.get(LEGACY_VIP, key)
        if own is not None and given is not None:
            address, other = Binding.unpack(own).address, Binding.unpack(given).address
            if Binding.unpack(own).live and address != other:
                self._decision.note.setdefault("renumbered", []).append([LEGACY, key, address])
        self._draft.set(LEGACY_VIP, key, None)

    def _adopt(self, item: Adopt) -> None:
        self._marks.beyond = item.beyond
        for change in item.changes:
            if change.kind not in (CANARY, SETTINGS):
                self._take_over(change, later=item.later)
        if item.last:
            self._marks.proven()
            note = ZoneNote.of(self._draft, self._zone)
            uid = "" if note is None else note.uid
            self._draft.set(ZONE_STATE, zone_key(self._zone), ZoneNote(uid, adopted=True).pack())
            self._put_default_generators()
            # Services and Dataplanes come in any order, some from before and some from elsewhere.
            self._state.overdue.update(self._state.registry.table(MESH_SERVICE))
            self._state.overdue.update(self._draft.touched(MESH_SERVICE))
            self._decision.more = True

    def _take_over(self, change: Change, *, later: bool) -> None:
        kind, key, payload = change
        if payload is not None:
            payload = self._taken_over(kind, key, payload, later=later)
        elif self._marks.is_put(kind, key):
            payload = self._draft.get(kind, key)  # made again here
        self._draft.set(kind, key, payload)
        if kind == DATAPLANE:
            record = None if payload is None else Record.unpack(payload)
            self._members.note(key, [] if record is None else terms(key, record))
            if record is None:
                self._draft.set(AGENT, key, None)
        elif kind in self._state.ledgers and payload is None:
            self._binder.release(kind, key)
        elif pool_of(kind) is not None and payload is not None:
            self._draft.skip(BIRTH, Binding.unpack(payload).birth)

    def _taken_over(self, kind: str, key: str, payload: bytes, *, later: bool) -> bytes | None:
        """What is adopted of a key, its ages begun anew: they tell the time of another log."""
        now_ms = self._now.log_time_ms
        present = self._draft.get(kind, key)
        if self._marks.is_removed(DATAPLANE if kind == AGENT else pool_of(kind) or kind, key):
            return _at_rest(payload, now_ms) if pool_of(kind) is not None else None
        if kind == AGENT:
            if present is not None:
                return present
            note = AgentNote.unpack(payload)
            return payload if note.online else replace(note, until_log_ms=now_ms).pack()
        if present is not None:
            written = self._marks.is_put(pool_of(kind) or kind, key)
            payload = _merged(kind, present, payload, written=written, later=later)
        if pool_of(kind) is None or Binding.unpack(payload).released_ms is None:
            return payload
        return _at_rest(payload, now_ms)

    def _of_term(self, item: Begin | Proven) -> None:
        if isinstance(item, Proven):
            self._marks.proven()
        else:
            self._begin(item)

    def _begin(self, item: Begin) -> None:
        self._draft.set(SETTINGS, zone_key(self._zone), item.settings.pack())
        self._state.cleanup_ms = item.cleanup_ms
        if self._state.legacy is not None:
            self._state.legacy.begin()
        self._state.led_since_ms = self._now.log_time_ms
        # The last leader may not have come to them.
        self._state.overdue.update(self._state.user_services)
        self._decision.more = True
        note = ZoneNote.of(self._draft, self._zone)
        if note is None or (note.adopted and item.stale):
            alone = note is None and item.adopted
            note = ZoneNote(item.uid, adopted=item.adopted and not item.stale, alone=alone)
            self._draft.set(ZONE_STATE, zone_key(self._zone), note.pack())
        if not item.adopted:
            self._marks.begin(item.end, stale=item.stale, foreign=item.foreign)
        if note.adopted:
            self._put_default_generators()

    def _put_default_generators(self) -> None:
        """Those that nobody knows of yet: a zone that lost its log gets back what they became."""
        generators = default_zone_generators(federated=self._state.federated)
        for name, spec, labels in generators:
            self._put_default(GENERATOR_KIND, Key("", self._zone, "", name), labels, spec)

    # What follows from inputs

    def _regenerate(self, key: str) -> None:
        packed = self._draft.get(MESH_SERVICE, key)
        old = None if packed is None else Record.unpack(packed)
        if old is not None and not generated(old):
            return  # a user's; `_update_state` keeps its state
        members = []
        for dataplane in generator.members_of(key, self._members):
            found = self._draft.get(DATAPLANE, dataplane)
            if found is not None:
                members.append((dataplane, Record.unpack(found)))
        name = key.rpartition("/")[2]
        members = [each for each in members if key in generator.groups(*each)]
        if members:
            present = None if old is None else old.spec
            spec = generator.spec_for(name, members, present)
            labels = {**(old.labels if old else {}), MANAGED_BY: GENERATOR}
            labels = propagation.propagated(labels, members, self._settings.propagate)
            self._draft.set(GRACE, key, None)
            self._put(Put(MESH_SERVICE, Key.parse(key), labels, spec))
            self._restate.discard(key)
        elif old is not None:
            self._orphan(key, old)

    def _orphan(self, key: str, record: Record) -> None:
        """A generated service without a Dataplane: unavailable, and gone after the grace period."""
        if self._settings.grace_ms == 0:
            self._expire(key)
            return
        spec = {**record.spec, "state": "Unavailable"}
        self._put(Put(MESH_SERVICE, Key.parse(key), record.labels, spec))
        self._restate.discard(key)
        self._draft.set(GRACE, key, msgpack.packb(self._now.log_time_ms))

    def _expire(self, key: str) -> None:
        self._draft.set(GRACE, key, None)
        if self._draft.set(MESH_SERVICE, key, None):
            self._binder.release(MESH_SERVICE, key)

    def _restate_services(self) -> None:
        """Bring the state of services up to date; those that do not fit follow at once."""
        due = self._restate | self._reselect
        overdue = self._state.overdue - due
        for number, key in enumerate([*sorted(due), *sorted(overdue)]):
            fits = self._draft.bytes < ENTRY_BYTES_MAX and number < RESTATED_MAX
            if fits or key in self._restate:
                self._update_state(key)
                self._state.overdue.discard(key)
            else:
                self._state.overdue.add(key)
        self._decision.more = self._decision.more or bool(self._state.overdue)

    def _update_state(self, key: str) -> None:
        packed = self._draft.get(MESH_SERVICE, key)
        if packed is None:
            return
        record = Record.unpack(packed)
        if key in self._state.overdue:
            self._bind(MESH_SERVICE, key)  # what was adopted of it may be at rest
        if generated(record):
            if key in self._state.overdue and self._draft.get(GRACE, key) is None:
                self._regenerate(key)
            return
        state = generator.state_for(self._draft, record, self._candidates(key, record))
        if record.spec.get("state") != state:
            spec = {**record.spec, "state": state}
            self._draft.set(MESH_SERVICE, key, replace(record, spec=spec).pack())

    def _candidates(self, key: str, record: Record) -> Sequence[str]:
        selector = record.spec.get("selector") or {}
        there = self._state.registry.table(DATAPLANE)
        found = set(candidates(key, selector, self._members, there))
        where = place(key)
        found.update(each for each in self._draft.touched(DATAPLANE) if each.startswith(where))
        return sorted(found)

    # Addresses

    def _bind(self, kind: str, key: str) -> None:
        bound = self._binder.bind(
            kind, key, lambda: Binding(None, None, None, self._draft.draw(BIRTH))
        )
        # A zone without a global grants itself what is lacking, in the next entry.
        self._decision.more = self._decision.more or not (bound or self._state.federated)

    def _bind_waiting(self, kind: str) -> None:
        state = self._state
        if not state.adopted:
            return
        ledger = state.ledgers[kind]
        if not state.federated and (ledger.waiting[self._zone] or self._looks_around):
            self._lease_own(kind, ledger)
        full = self._binder.bind_waiting(kind, lambda: self._draft.bytes >= ENTRY_BYTES_MAX)
        self._decision.more = self._decision.more or full

    def _bind_legacy(self) -> None:
        """Without a global, legacy names too are this zone's to give addresses to."""
        state = self._state
        if state.legacy is None:
            return
        more = state.legacy.decide(
            self._draft,
            self._settings,
            self._now,
            full=lambda: self._draft.bytes + self._follow_bytes >= ENTRY_BYTES,
            retry=self._looks_around,
            short=partial(_short, state.shortages),
        )
        self._decision.more = self._decision.more or more

    def _forget_rested(self) -> None:
        owned: list[tuple[Ledger, str, Pool | None]] = [
            (ledger, self._zone, self._settings.pool(name))
            for name, ledger in self._state.ledgers.items()
        ]
        if self._state.legacy is not None:
            owned.append((self._state.legacy.ledger, "", None))
        more = self._state.forgetting.forget(
            self._draft,
            owned,
            log_time_ms=self._now.log_time_ms,
            quarantine_ms=self._settings.quarantine_ms,
            full=lambda: self._draft.bytes >= ENTRY_BYTES,
        )
        self._decision.more = self._decision.more or more

    def _hand_back(self) -> None:
        """Give up blocks of removed ranges that are empty. Global, if there is one, is told behind
        all that was published of them, and lets them rest once more.
        """
        if not self._state.knows_pools:
            return
        for name, ledger in self._state.ledgers.items():
            pool = self._settings.pool(name)
            for _, block in emptied(pool, ledger, self._zone):
                if not binds_in(self._draft, name, block):
                    self._retire(name, block)
            if not self._state.federated:
                rested_ms = self._now.log_time_ms - self._settings.quarantine_ms
                for key in forgettable(pool, ledger, rested_ms):
                    self._draft.set(BLOCK, key, None)

    def _retire(self, pool: str, block: Block) -> None:
        """In all records of it: a zone that has joined may have two."""
        for key, packed in self._state.registry.table(BLOCK).items():
            there = Block.unpack(packed)
            if there.first == block.first and Key.parse(key).namespace == pool:
                retired = there._replace(retired=True, retired_ms=self._now.log_time_ms)
                self._draft.set(BLOCK, key, retired.pack())

    def _lease_own(self, kind: str, ledger: Ledger) -> None:
        """A zone without a global leases itself blocks by global's rule."""
        try:
            granted = grants(
                self._settings.pool(kind),
                ledger,
                self._zone,
                now_ms=self._now.wall_ms,
                log_time_ms=self._now.log_time_ms,
                quarantine_ms=self._settings.quarantine_ms,
                others=self._state.other_ledgers(kind),
            )
        except PoolExhaustedError as error:
            self._state.shortages[kind] = str(error)
            return
        for key, block in granted:
            self._draft.set(BLOCK, key, None if block is None else block.pack())
            self._decision.more = True

    def _obey(self, key: str, payload: bytes) -> None:
        """Global says that another zone owns an address bound here: take another one."""
        kind, address = msgpack.unpackb(payload)
        if Key.parse(key).mesh == "":  # of a whole block
            lost = self._state.ledgers[kind].record_of(address)
            if lost is not None:
                self._draft.set(BLOCK, lost[0], None)
            return
        packed = self._draft.get(vip_kind(kind), key)
        if packed is None:
            return
        binding = Binding.unpack(packed)
        if binding.address != address:
            return
        self._decision.note.setdefault("renumbered", []).append([kind, key, address])
        rests = binding.released_ms is not None
        waits = None if rests else binding._replace(address=None).pack()
        self._draft.set(vip_kind(kind), key, waits)
        held = self._state.ledgers[kind].block_of(address)
        if held is not None:
            # The whole block is the other's, whatever this log says: choose from it no more.
            self._draft.set(BLOCK, held[0], None)


def _short(shortages: dict[str, str], pool: str, why: str | None) -> None:
    if why is None:
        shortages.pop(pool, None)
    else:
        shortages[pool] = why


def _merged(kind: str, present: bytes, payload: bytes, *, written: bool, later: bool) -> bytes:
    """Of what is here and what global has of one key, the newer; ties are equal, or global's.

    `written`: here since global knew of it; `later`: if it was not, global knows something newer.
    Where neither tells, clocks do.
    """
    if kind == BLOCK:
        return payload
    if pool_of(kind) is None:
        here, there = Record.unpack(present), Record.unpack(payload)
        if kind == MESH_SERVICE and generated(here) and not generated(there):
            return payload  # a Dataplane was quicker than the copy of what a user wrote
        newer = here.modified_ms > there.modified_ms and not later
        return present if written or newer else payload
    bound, known = Binding.unpack(present), Binding.unpack(payload)
    if known.address is None:
        return present
    if bound.address is None and bound.released_ms is None:
        # Registered again here and waiting: it gets back what it had.
        return known._replace(released_ms=None).pack()
    return present if written and bound.live and not known.live else payload


def _at_rest(payload: bytes, now_ms: int) -> bytes | None:
    """A binding that is released; None if there is nothing to rest."""
    binding = Binding.unpack(payload)
    return None if binding.address is None else binding._replace(released_ms=now_ms).pack()


def _follow_bytes(key: str, dataplane: Record) -> int:
    """What the services generated from a Dataplane may add to an entry."""
    ports = len(inbounds(dataplane))
    return SERVICE_BYTES * len(generator.groups(key, dataplane)) + PORT_BYTES * ports


def _check_size(kind: str, key: str, record: Record) -> None:
    """Raises TooLargeError: no entry could hold a record and what follows from it."""
    size = len(record.pack())
    if kind == DATAPLANE:
        size += _follow_bytes(key, record)
    if size > RECORD_BYTES_MAX and not generated(record):
        name = key.rpartition("/")[2]
        raise TooLargeError(
            f"{kind} {name} takes {size} bytes with the services that follow from it;"
            f" at most {RECORD_BYTES_MAX}"
        )
