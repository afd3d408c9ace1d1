"""What zones' records become in global's log: each is checked, and taken or refused alone."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack

from globalcp.fromzone import check_place, check_record, named_address
from globalcp.leases import Leases
from globalcp.quota import Use
from globalcp.state import GlobalState
from zonemesh.deciding import Decision, Now
from zonemesh.draft import Draft
from zonemesh.errors import MeshError
from zonemesh.ipam import Binding, pool_of
from zonemesh.model import Change
from zonemesh.resources.catalogue import KINDS
from zonemesh.settings import Settings
from zonemesh.travel import VERDICT

REJECTED_SHOWN_MAX = 20
"""Rejected records that one entry describes; all are counted. A zone may send thousands."""
_ORDER_MAX = 1 << 53
"""A zone's claim to an order beyond any drawn one is none."""


@dataclass(slots=True)
class Taken:
    """What came of a zone's records in one decision."""

    entries: int = 0
    records: int = 0
    rejected: int = 0
    conflicts: int = 0
    refused: int = 0
    refusal: str = ""
    anew: bool = False
    """What was refused before is about to come again."""


class Merging:
    """One decision's taking in of records."""

    def __init__(
        self,
        draft: Draft,
        state: GlobalState,
        decision: Decision,
        now: Now,
        leases: Leases,
    ) -> None:
        self._draft = draft
        self._state = state
        self._decision = decision
        self._now = now
        self._leases = leases
        self._uses: dict[str, Use] = {}

    def take_name(self, zone: str, change: Change, counts: Taken, settings: Settings) -> None:
        """Merge where a zone that stood alone has a legacy name, if nobody has that one yet."""
        key, payload = change.key, change.payload
        try:
            address = named_address(key, payload)
        except Exception as error:  # noqa: BLE001 -- foreign bytes: costs one record
            self._reject(zone, change, error, counts)
            return
        if address is not None:
            given = self._state.legacy.claim(self._draft, settings, key, address)
            counts.conflicts += not given

    def take(self, zone: str, change: Change, counts: Taken) -> None:
        """Merge one record of a zone, or reject it alone: the rest and the cursor go on."""
        kind, key, payload = change
        try:
            check_place(zone, kind, key)
            use = self.use(zone)
            held = self._draft.get(kind, key)
            why = use.refuses(self._draft, change) if held is None and payload is not None else None
            if why is not None:
                counts.refused, counts.refusal = counts.refused + 1, why
                return
            if pool_of(kind) is not None:
                payload = self._binding(zone, change, counts)
            elif payload is not None and kind in KINDS:
                check_record(kind, key, payload)
        except Exception as error:  # noqa: BLE001 -- foreign bytes: costs one record
            self._reject(zone, change, error, counts)
            return
        if self._draft.set(kind, key, payload):
            counts.records += 1
            use.put(Change(kind, key, payload), held)

    def use(self, zone: str) -> Use:
        """What a zone has by now, changes of this entry included."""
        if zone not in self._uses:
            self._uses[zone] = self._state.use(zone, self._draft)
        return self._uses[zone]

    def _reject(self, zone: str, change: Change, error: Exception, counts: Taken) -> None:
        counts.rejected += 1
        shown = self._decision.note.setdefault("rejected", [])
        if len(shown) < REJECTED_SHOWN_MAX:
            why = str(error) if isinstance(error, MeshError) else repr(error)
            shown.append([zone, change.kind[:100], change.key[:300], why[:300]])

    def _binding(self, zone: str, change: Change, counts: Taken) -> bytes | None:
        """A zone's binding with the order that global keeps beside it, its address checked."""
        kind, key, payload = change
        if payload is None:
            self._draft.set(VERDICT, key, None)
            return None
        pool = kind.removeprefix("vip.")
        packed = self._draft.get(kind, key)
        present = None if packed is None else Binding.unpack(packed)
        binding = self._reckoned(Binding.unpack(payload), present)
        if binding.address is not None and not self._leases.allows(zone, pool, binding.address):
            counts.conflicts += 1
            verdict = msgpack.packb((pool, binding.address))
            self._draft.set(VERDICT, key, verdict)
            binding = binding._replace(address=None)
        elif self._draft.get(VERDICT, key) is not None:
            self._draft.set(VERDICT, key, None)
        return binding.pack()

    def _reckoned(self, binding: Binding, present: Binding | None) -> Binding:
        """A zone's binding with the order it has here, and its rest in global's own log time."""
        order = binding.order if present is None or present.order is None else present.order
        if order is None or not 0 < order <= _ORDER_MAX:
            order = self._draft.draw("order")
        elif present is None or present.order is None:
            # Known to the zone, and to this global not any more: none is drawn twice.
            self._draft.skip("order", order)
        released_ms = binding.released_ms
        if released_ms is not None:
            rests = present is not None and present.address == binding.address
            since_ms = present.released_ms if present is not None and rests else None
            released_ms = self._now.log_time_ms if since_ms is None else since_ms
        return binding._replace(order=order, released_ms=released_ms)
