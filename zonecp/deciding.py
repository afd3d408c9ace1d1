"""What a zone's control plane decides: inputs and state in, changes out. No clock, no I/O.

A decision works on a draft: first every input is put into it, then what follows from the inputs is
brought up to date once (services of changed Dataplanes, their addresses), so that many inputs of
one entry cost one regeneration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zonecp.addresses import Addresses
from zonecp.inputs import Adopt, Begin, FromGlobal, Heard, Input, Proven, Tick
from zonecp.services import Services
from zonecp.sizes import ENTRY_BYTES, check_size
from zonecp.state import ZoneNote, ZoneState
from zonecp.takingover import TakingOver
from zonecp.unproven import Marks
from zonemesh.agents import AGENT, AgentNote
from zonemesh.deciding import Deciding, Decision, Delete, Now, Put, Written
from zonemesh.hostnames import GENERATOR_KIND, default_zone_generators
from zonemesh.ipam import BLOCK
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.members import DATAPLANE, MESH_SERVICE, DraftMembers, terms
from zonemesh.model import Key, Record
from zonemesh.settings import SETTINGS, zone_key
from zonemesh.travel import CANARY, GLOBAL_LOG, GRACE, VERDICT, ZONE_STATE


def decide(state: ZoneState, inputs: Sequence[Input], now: Now) -> Decision:
    """Decide the next entry; consumes as many inputs as fit into one."""
    return _Deciding(state, now).run(inputs)


class _Deciding(Deciding):
    """One decision in the making."""

    def __init__(self, state: ZoneState, now: Now) -> None:
        super().__init__(state.registry, now)
        self._state = state
        self._zone = state.zone
        self._members = DraftMembers(state.members)
        self._looks_around = False
        """Whether what only time or the last entry changed is looked at."""
        self._marks = Marks(self._draft, state.registry, state.zone)
        settings = state.settings
        self._addresses = Addresses(self._draft, state, self._decision, now, settings)
        self._services = Services(
            self._draft,
            state,
            decision=self._decision,
            now=now,
            settings=settings,
            members=self._members,
            marks=self._marks,
            addresses=self._addresses,
        )
        self._taking_over = TakingOver(
            self._draft,
            state,
            now=now,
            members=self._members,
            marks=self._marks,
            addresses=self._addresses,
        )

    def run(self, inputs: Sequence[Input]) -> Decision:
        decision = self._decision
        self._looks_around = not inputs  # there is more of something
        self._consume(
            inputs,
            alone=Adopt,
            full=lambda: self._services.full,
        )
        if self._looks_around:
            self._services.expire_due()
            self._forget_lost()
        self._services.bring_up_to_date()
        self._addresses.bind_waiting(retry=self._looks_around)
        self._addresses.bind_legacy(full=lambda: self._services.full, retry=self._looks_around)
        if self._looks_around and self._state.adopted:
            self._addresses.forget_rested()
            self._addresses.hand_back()
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
        check_size(item.kind, key, record)
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
            self._services.follow_dataplane(key, old, new)
        elif kind == MESH_SERVICE:
            self._draft.set(GRACE, key, None)
            self._services.follow_service(key, gone=new is None)
        if kind in self._state.ledgers:
            if new is None:
                self._addresses.release(kind, key)
            else:
                self._addresses.bind(kind, key)

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
            if self._services.full:
                self._decision.more = True
                return
            note = AgentNote.unpack(self._draft.get(AGENT, key) or b"")
            if not note.online:
                self._store(DATAPLANE, key, Record.unpack(packed), None)

    def _from_global(self, item: FromGlobal) -> None:
        for kind, key, payload in item.changes:
            if kind == VERDICT and payload is not None:
                self._addresses.obey(key, payload)
            elif kind == LEGACY_VIP:
                self._addresses.give_up_name(key, payload)
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

    def _adopt(self, item: Adopt) -> None:
        self._marks.beyond = item.beyond
        for change in item.changes:
            if change.kind not in (CANARY, SETTINGS):
                self._taking_over.take(change, later=item.later)
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
