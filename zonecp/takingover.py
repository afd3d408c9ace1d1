"""What a zone that lacks a part of its own past takes over of what is known of it elsewhere."""

from __future__ import annotations

from dataclasses import replace

from zonecp.addresses import BIRTH, Addresses
from zonecp.state import ZoneState
from zonecp.unproven import Marks
from zonemesh.agents import AGENT, AgentNote
from zonemesh.deciding import Now
from zonemesh.draft import Draft
from zonemesh.ipam import BLOCK, Binding, pool_of
from zonemesh.members import DATAPLANE, MESH_SERVICE, DraftMembers, generated, terms
from zonemesh.model import Change, Record


class TakingOver:
    """One decision's taking over, record by record."""

    def __init__(
        self,
        draft: Draft,
        state: ZoneState,
        *,
        now: Now,
        members: DraftMembers,
        marks: Marks,
        addresses: Addresses,
    ) -> None:
        """`members`: who belongs to which service, by the draft."""
        self._draft = draft
        self._state = state
        self._now = now
        self._members = members
        self._marks = marks
        self._addresses = addresses

    def take(self, change: Change, *, later: bool) -> None:
        """`later`: what global has is newer than what was not written here since."""
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
            self._addresses.release(kind, key)
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
