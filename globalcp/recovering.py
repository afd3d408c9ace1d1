"""A decision while global's log may lack something: what begins and ends that, and what is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from globalcp.claiming import Claiming
from globalcp.inputs import Doubt, TakeCopy
from zonemesh.deciding import Decision, Now
from zonemesh.draft import Draft
from zonemesh.ipam import Binding, pool_of
from zonemesh.legacypool import LEGACY
from zonemesh.model import Change, Cursor, Key, Position, zone_of
from zonemesh.recovery import RECOVERY, Claims, Recovery
from zonemesh.registry import Registry
from zonemesh.seen import Seen
from zonemesh.settings import GLOBAL_KEY, SETTINGS
from zonemesh.travel import SEEN

YOUNG_MS = 60_000
"""Log time for which a log that began with nothing may prove to stand for one that was lost."""


class Recovering:
    """One decision's view of the recovery that is under way, if any."""

    def __init__(
        self,
        draft: Draft,
        registry: Registry,
        decision: Decision,
        now: Now,
        claiming: Claiming,
        *,
        named: Callable[[str], bool],
    ) -> None:
        """`named`: whether there must be a legacy name, by its key."""
        self._draft = draft
        self._registry = registry
        self._decision = decision
        self._now = now
        self._claiming = claiming
        self._named = named

    def under_way(self) -> bool:
        """As of this entry, or of the one before: by then nothing was bound yet."""
        return self._waiting() is not None or Recovery.waiting(self._registry) is not None

    def handle(self, item: Doubt | TakeCopy) -> None:
        if isinstance(item, Doubt):
            self._begin(item.reason)
        else:
            self._take_copy(item)

    def doubted_by(self, zone: str, lost: Cursor) -> None:
        """A zone has applied what this log does not lead on from.

        Another incarnation means something only to a log that has just begun with nothing: else it
        is a zone that has come from another mesh.
        """
        reason = f"zone {zone} has applied {lost}, which is not in this log"
        if lost.incarnation == self._registry.incarnation:
            self._begin(reason)
            recovery = Recovery.of(self._draft)
            if recovery is not None and lost.position.term >= self._term:
                self._set(recovery.with_term(lost.position.term))
        elif self._now.log_time_ms < YOUNG_MS:
            self._begin(reason, empty=True)

    def hear(self, zone: str, claims: Claims) -> int:
        """Take what a zone says that it holds; answers how many blocks it does not get."""
        refused = self._claiming.take(zone, claims)
        recovery = self._waiting()
        if recovery is not None and claims.recovery == recovery.id:
            self._set(recovery.with_report(zone))
        return refused

    def end(self) -> bool:
        """End the recovery once nothing more is waited for; True if this entry does."""
        recovery = self._waiting()
        if recovery is None or not recovery.over(self._waited(), self._now.log_time_ms):
            return False
        self._set(recovery.settling())
        return True

    def close(self) -> None:
        """All that waited has what it can get: the map that zones are to show is whole again."""
        recovery = Recovery.of(self._draft)
        # Before a term above the lost one, what is shown would be older than what was.
        if recovery is not None and recovery.settles and recovery.above < self._term:
            self._set(None)
            silent = sorted(self._waited().difference(recovery.reported))
            self._decision.note["recovered"] = [recovery.id, silent]

    @property
    def _term(self) -> int:
        return self._registry.position.term

    def _waited(self) -> set[str]:
        zones = {zone_of(key) for key in self._registry.table(SEEN)}
        zones.update(Key.parse(key).name for key in self._registry.table("Zone"))
        return {zone for zone in zones if not self._deleted(zone)}

    def _begin(self, reason: str, *, empty: bool = False) -> None:
        """Neither bind nor lease until zones have said what they hold; once at a time.

        `empty`: the log began with nothing, where another one was lost.
        """
        if self.under_way():
            return
        term, seq = self._registry.position
        begun = Cursor(self._registry.incarnation, Position(term, seq + 1))
        self._set(
            Recovery(
                id=str(begun),
                reason=reason,
                since_ms=self._now.log_time_ms,
                wants=True,
                held="" if empty else str(self._registry.cursor),
            )
        )

    def _waiting(self) -> Recovery | None:
        return Recovery.waiting(self._draft)

    def _set(self, recovery: Recovery | None) -> None:
        self._draft.set(RECOVERY, GLOBAL_KEY, None if recovery is None else recovery.pack())

    def _deleted(self, zone: str) -> bool:
        seen = Seen.of(self._draft, zone)
        return seen is not None and seen.deleted

    def _take_copy(self, item: TakeCopy) -> None:
        """Records of a zone's copy: of global's own part they hold, of zones' what is absent.

        Where something is left, the operator's or a replica's, that holds, and only addresses that
        global has given out since are taken.
        """
        recovery = self._waiting()
        if recovery is None:
            return
        take = self._take_address if recovery.held else self._take
        for change in item.changes:
            if change.payload is not None and change.kind not in (SETTINGS, RECOVERY):
                with suppress(Exception):  # foreign bytes: cost one record
                    take(change)
        if item.last:
            self._set(recovery.with_copy())

    def _take(self, change: Change) -> None:
        kind, key, payload = change
        assert payload is not None
        present = self._draft.get(kind, key)
        if kind == SEEN:
            if present is None:
                now_ms = self._now.log_time_ms
                # In this log's time, and otherwise as it was: nobody is lost by the loss of a log.
                seen = Seen.unpack(payload).but(last_ms=now_ms, h=b"")
                since_ms = None if seen.online else now_ms
                self._draft.set(SEEN, key, seen.but(offline_ms=since_ms).pack())
            return
        if pool_of(kind) is not None and (order := Binding.unpack(payload).order) is not None:
            self._draft.skip("order", order)
        if zone_of(key) == "" or present is None:
            self._draft.set(kind, key, payload)

    def _take_address(self, change: Change) -> None:
        """Where a key of global's own has its address by a copy that is newer than the log.

        Where what the key is for does not exist here, the address rests for it, and nobody else
        has it. Zones have said what they have: legacy names that follow from it are in use at once.
        """
        kind, key, payload = change
        assert payload is not None
        pool, then = pool_of(kind), Binding.unpack(payload) if pool_of(kind) else None
        if pool is None or then is None or then.address is None or zone_of(key) != "":
            return
        packed = self._draft.get(kind, key)
        present = None if packed is None else Binding.unpack(packed)
        if present is not None and present.address == then.address:
            return
        if not self._claiming.free_for_global(pool, then.address):
            return
        if then.order is not None:
            self._draft.skip("order", then.order)
        if present is None:
            live = then.live and self._exists(pool, key)
            present = then if live else then._replace(released_ms=self._now.log_time_ms)
        self._claiming.vacate(pool, then.address, key)
        self._draft.set(kind, key, present._replace(address=then.address).pack())

    def _exists(self, pool: str, key: str) -> bool:
        return self._named(key) if pool == LEGACY else self._draft.get(pool, key) is not None
