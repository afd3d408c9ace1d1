"""The MeshServices that follow from Dataplanes: made, kept up to date and expired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgpack

from zonecp import generator, propagation
from zonecp.addresses import Addresses
from zonecp.sizes import ENTRY_BYTES, ENTRY_BYTES_MAX, SERVICE_BYTES, follow_bytes
from zonecp.state import ZoneState
from zonecp.unproven import Marks
from zonemesh.deciding import Decision, Now, Put, revision
from zonemesh.draft import Draft
from zonemesh.members import (
    DATAPLANE,
    GENERATOR,
    MANAGED_BY,
    MESH_SERVICE,
    DraftMembers,
    candidates,
    generated,
    place,
)
from zonemesh.model import Key, Record
from zonemesh.settings import Settings
from zonemesh.travel import GRACE

RESTATED_MAX = 2_000
"""Services that one decision looks at again, some 50 ms."""


class Services:
    """One decision's view of the services; what changes is noted, and followed up once."""

    def __init__(
        self,
        draft: Draft,
        state: ZoneState,
        *,
        decision: Decision,
        now: Now,
        settings: Settings,
        members: DraftMembers,
        marks: Marks,
        addresses: Addresses,
    ) -> None:
        """`members`: who belongs to which service, by the draft."""
        self._draft = draft
        self._state = state
        self._decision = decision
        self._now = now
        self._settings = settings
        self._members = members
        self._marks = marks
        self._addresses = addresses
        self._regroup: set[str] = set()
        self._reselect: set[str] = set()
        """Services of users that may select a Dataplane that came, changed or went."""
        self._restate: set[str] = set()
        self.bytes = 0
        """What is to follow may add to the entry."""

    @property
    def full(self) -> bool:
        """Whether the entry has no room for more that something follows from."""
        return self._draft.bytes + self.bytes >= ENTRY_BYTES

    def follow_dataplane(self, key: str, *versions: Record | None) -> None:
        for record in versions:
            if record is not None:
                self._regroup.update(generator.groups(key, record))
                self.bytes += follow_bytes(key, record)
        self._reselect |= self._state.user_services.selecting(key, *versions)

    def follow_service(self, key: str, *, gone: bool) -> None:
        if not gone:
            self._restate.add(key)
        elif generator.members_of(key, self._members):
            self._regroup.add(key)  # Dataplanes still name it
            self.bytes += SERVICE_BYTES

    def expire_due(self) -> None:
        """Remove generated services whose last Dataplane went long enough ago."""
        for key, packed in self._state.registry.table(GRACE).items():
            started_ms = msgpack.unpackb(packed)
            if self._now.log_time_ms - started_ms < self._settings.grace_ms:
                continue
            if key in self._regroup or self._draft.get(GRACE, key) != packed:
                continue  # this very entry brings it back, or is a user's taking it over
            if self.full:
                self._decision.more = True
                return
            self._expire(key)

    def bring_up_to_date(self) -> None:
        """Decide what follows from all that was noted."""
        for service in sorted(self._regroup):
            self._regenerate(service)
        self._restate_services()

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
            self._put(key, labels, spec)
            self._restate.discard(key)
        elif old is not None:
            self._orphan(key, old)

    def _orphan(self, key: str, record: Record) -> None:
        """A generated service without a Dataplane: unavailable, and gone after the grace period."""
        if self._settings.grace_ms == 0:
            self._expire(key)
            return
        spec = {**record.spec, "state": "Unavailable"}
        self._put(key, record.labels, spec)
        self._restate.discard(key)
        self._draft.set(GRACE, key, msgpack.packb(self._now.log_time_ms))

    def _put(self, key: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> None:
        self._marks.note(MESH_SERVICE, key, gone=False)
        put = Put(MESH_SERVICE, Key.parse(key), labels, spec)
        revised = revision(self._draft, put, self._now)
        if revised is not None:
            self._draft.set(MESH_SERVICE, key, revised[1].pack())
            self._draft.set(GRACE, key, None)
            self._addresses.bind(MESH_SERVICE, key)

    def _expire(self, key: str) -> None:
        self._draft.set(GRACE, key, None)
        if self._draft.set(MESH_SERVICE, key, None):
            self._addresses.release(MESH_SERVICE, key)

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
            self._addresses.bind(MESH_SERVICE, key)  # what was adopted of it may be at rest
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
