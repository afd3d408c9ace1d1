"""What the global control plane decides: inputs and state in, changes out. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from globalcp.claiming import Claiming
from globalcp.fromzone import by_birth
from globalcp.fullsync import steps
from globalcp.inputs import Begin, Doubt, Input, Merge, Replace, TakeCopy, Tick
from globalcp.leases import Leases
from globalcp.merging import Merging, Taken
from globalcp.quota import label_faults
from globalcp.recovering import YOUNG_MS, Recovering
from globalcp.report import Report
from globalcp.state import GlobalState
from zonemesh.binding import Binder
from zonemesh.deciding import Deciding, Decision, Delete, Now, Put, Written
from zonemesh.errors import ConflictError, TooLargeError, ValidationError, WireError
from zonemesh.hostnames import GENERATOR_KIND, default_global_generators
from zonemesh.ipam import Binding, Ledger, Pool, pool_of
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.model import TIME_MS_MAX, Cursor, Key, Record, zone_of
from zonemesh.recovery import Claims, Recovery, returned_of
from zonemesh.seen import Seen
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings, zone_key
from zonemesh.travel import NOT_MERGED, SEEN, VERDICT, up_log
from zonemesh.wire import Sealed

ENTRY_BYTES = 400 << 10
"""What one decision may fill. The last up entry taken in (256 KiB at most, and with a verdict or a
grant for each of its bindings over twice that) must still fit into the entry of 1 MiB."""
ZONES_SHOWN_MAX = 100
"""Zones whose new state one entry gives reasons for; there may be more to log than is of use."""
_COMPARED_MAX = 10_000
"""Records of a full sync that one decision looks at: some 20 ms, in which nothing else is done."""
_TAKEN_AS_COMPARED = 9
"""What it costs further to take one, in the same measure."""
RECORD_BYTES_MAX = 256 << 10
"""What a record written here may take: it comes on top of `ENTRY_BYTES`, as an up entry does."""
DEFAULT_MESH = "default"


def decide(state: GlobalState, inputs: Sequence[Input], now: Now) -> Decision:
    """Decide the next entry; consumes as many inputs as fit into one."""
    return _Deciding(state, now).run(inputs)


class _Deciding(Deciding):
    """One decision in the making."""

    def __init__(self, state: GlobalState, now: Now) -> None:
        super().__init__(state.registry, now)
        self._state = state
        self._settings = state.settings
        self._new_zones: set[str] = set()
        self._begun = False
        self._looks_around = False
        """Whether what only time changed is looked at."""
        leased: dict[int, str] = {}  # the ledgers learn of them when this is applied
        self._binder = Binder(
            self._draft,
            state.ledgers,
            "",
            log_time_ms=now.log_time_ms,
            settings=self._settings,
            short=partial(_short, state.shortages),
            chooses=Recovery.waiting(state.registry) is None,
        )
        self._claiming = Claiming(
            self._draft,
            state.registry,
            state.ledgers,
            self._settings,
            legacy=state.legacy.ledger,
            others=state.other_ledgers,
            leased=leased,
            now_ms=now.wall_ms,
        )
        self._leases = Leases(self._draft, state, now, self._claiming, leased)
        self._merging = Merging(self._draft, state, self._decision, now, self._leases)
        self._recovering = Recovering(
            self._draft,
            state.registry,
            self._decision,
            now,
            self._claiming,
            named=state.legacy.wants,
        )

    def run(self, inputs: Sequence[Input]) -> Decision:
        decision = self._decision
        # A `Replace` compares with the state, which what stands before it is still to change; the
        # settings that a `Begin` brings hold from the next entry on.
        self._consume(
            inputs,
            alone=(Replace, Begin),
            full=lambda: self._draft.bytes >= ENTRY_BYTES,
        )
        self._forget_zones()
        if self._begun or self._claiming.former:
            decision.more = True  # what is given out now could be in what has just become known
        elif not self._recover():
            for pool in self._state.ledgers:
                full = self._binder.bind_waiting(pool, lambda: self._draft.bytes >= ENTRY_BYTES)
                decision.more = decision.more or full
            more = self._leases.stock(self._new_zones, self._settings)
            decision.more = decision.more or more
            self._bind_legacy()
            if self._looks_around:
                self._forget_rested()
                self._leases.forget(self._settings, full=lambda: self._draft.bytes >= ENTRY_BYTES)
            if not decision.more:
                self._recovering.close()
        decision.changes = self._draft.changes()
        return decision

    def _handle(self, item: Input) -> Any:
        match item:
            case Put():
                return self._put(item)
            case Delete():
                return self._delete(item)
            case Merge():
                return self._merge(item)
            case Replace():
                return self._replace(item)
            case Tick():
                return self._tick(item)
            case Begin():
                return self._begin(item)
            case Doubt() | TakeCopy():
                return self._recovering.handle(item)

    # Writes of users

    def _put(self, item: Put) -> Written:
        revised = self._revised(item)
        if revised is None:
            return self._unchanged()
        old, record = revised
        payload = record.pack()
        if item.kind == "Zone" and (faults := label_faults(item.labels)):
            raise ValidationError(faults)
        if len(payload) > RECORD_BYTES_MAX:
            raise TooLargeError(
                f"{item.kind} {item.key.name}: {len(payload)} bytes; at most {RECORD_BYTES_MAX}"
            )
        self._draft.set(item.kind, item.key.packed, payload)
        if item.kind in self._state.ledgers:
            draft = self._draft
            self._binder.bind(
                item.kind, item.key.packed, lambda: Binding(None, draft.draw("order"), None, 0)
            )
            self._state.unserved.add("")
        return self._written(created=old is None)

    def _delete(self, item: Delete) -> Written:
        self._existing(item)
        if item.kind == "Zone":
            self._retire(item.key.name)
        self._draft.set(item.kind, item.key.packed, None)
        if item.kind in self._state.ledgers:
            self._binder.release(item.kind, item.key.packed)
        return self._written(created=False)

    def _retire(self, zone: str) -> None:
        """Begin to remove what an offline zone brought; its blocks are leased again last."""
        seen = Seen.of(self._draft, zone)
        if seen is None:
            return
        if seen.online:
            raise ConflictError(
                "unable to delete Zone, Zone CP is still connected, please shut it down first"
            )
        self._leases.retire_all(zone)
        self._draft.set(SEEN, zone_key(zone), seen.but(deleted=True).pack())

    def _forget_zones(self) -> None:
        """Remove records of deleted zones, as many as fit; a large zone takes several entries."""
        for zone in sorted(self._state.deleted(self._draft)):
            for kind, key in self._state.of_zone(zone):
                if self._draft.bytes >= ENTRY_BYTES:
                    self._decision.more = True
                    return
                self._draft.set(kind, key, None)
                if pool_of(kind) is not None:
                    self._draft.set(VERDICT, key, None)
            self._draft.set(SEEN, zone_key(zone), None)

    # Zones

    def _merge(self, item: Merge) -> None:
        if item.report.left and not self._knows(item.zone, item.entries):
            return  # whoever was deleted and says goodbye is not to be met anew by that
        self._meet(item.zone, item.report)
        counts = Taken()
        for sealed in item.entries:
            if self._merged(item.zone, sealed.place.cursor):
                continue  # read twice, after the reader was restarted: in effect exactly once
            counts.entries += 1
            for change in by_birth(sealed.entry.changes):
                self._merging.take(item.zone, change, counts)
            claims = Claims.of(sealed.entry.note)
            if claims is not None:
                counts.conflicts += self._recovering.hear(item.zone, claims)
            for pool, first in returned_of(sealed.entry.note):
                if self._leases.take_back(item.zone, pool, first):
                    returned = self._decision.note.setdefault("returned", [])
                    returned.append([item.zone, pool, first])
        self._heard(item.zone, item.report, counts)

    def _knows(self, zone: str, entries: Sequence[Sealed]) -> bool:
        seen = Seen.of(self._draft, zone)
        met = seen is not None and not seen.deleted
        return met or any(sealed.entry.changes for sealed in entries)

    def _merged(self, zone: str, cursor: Cursor) -> bool:
        """Whether what stands at a place of a zone's stream is in the state already."""
        at = self._cursor(zone)
        return (
            at is not None
            and at.incarnation == cursor.incarnation
            and cursor.position <= at.position
        )

    def _cursor(self, zone: str) -> Cursor | None:
        name = up_log(zone)
        return self._decision.src.get(name) or self._registry.cursors.get(name)

    def _replace(self, item: Replace) -> bool:
        """Merge by difference; True once the whole of it is in (else submit the same again).

        Bounded: a large difference takes several entries, of which only the last moves the cursor.
        Another input that holds the same begins from what is merged by then: anyone can redo it.
        """
        self._remember_ranges(item.tables)
        self._meet(item.zone, item.report)
        counts = Taken()
        if item.progress.steps is None or item.zone in self._new_zones:
            counts.anew = True
            item.progress.steps = steps(item.zone, item.tables, self._registry)
        compared = 0
        for change in item.progress.steps:
            compared += 1
            if change is not None and change.kind == LEGACY_VIP:
                self._merging.take_name(item.zone, change, counts, self._settings)
                compared += _TAKEN_AS_COMPARED
            elif change is not None:
                self._merging.take(item.zone, change, counts)
                compared += _TAKEN_AS_COMPARED
            if compared >= _COMPARED_MAX or self._draft.bytes >= ENTRY_BYTES:
                self._heard(item.zone, None, counts)
                return False
        self._heard(item.zone, item.report, counts, whole=True)
        self._state.legacy.settled()
        return True

    def _remember_ranges(self, tables: Mapping[str, Mapping[str, bytes]]) -> None:
        """Of a log that may lack them: ranges that pools had by a zone's copy of the settings.

        What is bound there would be refused otherwise, by a global that has never heard of them.
        """
        packed = tables.get(SETTINGS, {}).get(GLOBAL_KEY)
        young = self._now.log_time_ms < YOUNG_MS
        if packed is None or not (young or self._recovering.under_way()):
            return
        with suppress(WireError):  # foreign bytes
            settings = self._settings.remembering(Settings.unpack(packed).unusual_ranges())
            if settings != self._settings:
                self._settings = settings
                self._claiming.learn(settings)
                self._draft.set(SETTINGS, GLOBAL_KEY, settings.pack())
                self._decision.note["ranges"] = {
                    name: list(cidrs) for name, cidrs in settings.former.items()
                }

    def _meet(self, zone: str, report: Report) -> None:
        """A zone is known from its first entry on.

        One that was deleted has its blocks again, and its cursor stays where it is until all that
        went with the zone is merged anew.
        """
        key = Key("", "", "", zone).packed
        if self._draft.get("Zone", key) is None:
            record = Record(created_ms=self._now.wall_ms, modified_ms=self._now.wall_ms)
            self._draft.set("Zone", key, record.pack())
        seen = Seen.of(self._draft, zone)
        if seen is None or seen.deleted:
            self._leases.give_back(zone)
            self._new_zones.add(zone)
            was_merged = self._cursor(zone) is not None
            seen = Seen(
                uid=report.uid,
                last_ms=self._now.log_time_ms,
                online=True,
                connected_ms=self._now.wall_ms,
                h=NOT_MERGED if was_merged else b"",
            )
            self._draft.set(SEEN, zone_key(zone), seen.pack())

    def _heard(
        self, zone: str, report: Report | None, counts: Taken, *, whole: bool = False
    ) -> None:
        """Note that a zone was heard from, and move its cursor if there is one to move to.

        `whole`: all that stands before the new cursor is merged. Otherwise the cursor moves only
        on from what is merged, along the same incarnation: who reports may be behind, or ahead.
        """
        seen = Seen.of(self._draft, zone)
        assert seen is not None
        if report is not None and report.lost is not None:
            self._recovering.doubted_by(zone, report.lost)
        changed, why = seen.heard(self._now, left=report is not None and report.left)
        if why:
            self._tell(zone, changed.state, why)
        changed = changed.but(
            uid=report.uid if report else seen.uid,
            last_ms=self._now.log_time_ms,
            updated_ms=report.time_ms if report else seen.updated_ms,
            behind_ms=self._behind_ms(report) if report else seen.behind_ms,
            lag_ms=report.lag_ms if report else seen.lag_ms,
            entries=seen.entries + counts.entries,
            records=seen.records + counts.records,
            rejected=seen.rejected + counts.rejected,
            conflicts=seen.conflicts + counts.conflicts,
            refused=counts.refused + (0 if counts.anew else seen.refused),
            refusal=counts.refusal or ("" if counts.anew else seen.refusal),
            url=report.url if report and report.url else seen.url,
            version=report.version if report and report.version else seen.version,
            formats=report.formats if report and report.formats else seen.formats,
        )
        if counts.refused and not seen.refused:
            self._decision.note.setdefault("over_quota", []).append([zone, counts.refusal])
        if report is not None and (whole or self._follows(zone, seen, report.cursor)):
            self._decision.src[up_log(zone)] = report.cursor
            changed = changed.but(h=report.h)
            if report.own is not None:
                changed = changed.but(own=(report.own.incarnation, *report.own.position))
        self._draft.set(SEEN, zone_key(zone), changed.pack())
        if counts.records:
            self._state.unserved.add(zone)

    def _behind_ms(self, report: Report) -> int:
        """How old what a zone has said may be by now: it may have waited for this entry."""
        as_of_s = self._now.mono_s if report.as_of_s is None else report.as_of_s
        return min(max(0, round((self._now.mono_s - as_of_s) * 1000)), TIME_MS_MAX)

    def _tell(self, zone: str, state: str, why: str) -> None:
        """Have the leader log what was decided about a zone."""
        shown = self._decision.note.setdefault("zones", [])
        if len(shown) < ZONES_SHOWN_MAX:
            shown.append([zone, str(state), why])

    def _follows(self, zone: str, seen: Seen, cursor: Cursor) -> bool:
        at = self._cursor(zone)
        if at is None:
            return True
        same = at.incarnation == cursor.incarnation and seen.h != NOT_MERGED
        return same and cursor.position > at.position

    def _bind_legacy(self) -> None:
        state = self._state
        more = state.legacy.decide(
            self._draft,
            self._settings,
            self._now,
            full=lambda: self._draft.bytes >= ENTRY_BYTES,
            retry=self._looks_around,
            short=partial(_short, state.shortages),
        )
        self._decision.more = self._decision.more or more

    def _forget_rested(self) -> None:
        """Of what is bound here; zones forget their own, and what is left waits for a heartbeat."""
        owned: list[tuple[Ledger, str, Pool | None]] = [
            (ledger, "", self._settings.pool(name)) for name, ledger in self._state.ledgers.items()
        ]
        self._state.forgetting.forget(
            self._draft,
            [*owned, (self._state.legacy.ledger, "", None)],
            log_time_ms=self._now.log_time_ms,
            quarantine_ms=self._settings.quarantine_ms,
            full=lambda: self._draft.bytes >= ENTRY_BYTES,
        )

    def _recover(self) -> bool:
        """Whether the log is being recovered, so that this decision neither binds nor leases."""
        if not self._recovering.under_way():
            return False
        if self._recovering.end():
            self._state.unserved = {"", *self._state.zones()}
            self._decision.more = True
        return True

    # Time

    def _tick(self, item: Tick) -> None:
        self._decision.note.update(item.note)
        self._decision.note["state"] = self._registry.digest
        self._decision.note["states"] = self._state.states()
        self._looks_around = True
        for zone, report in item.moved.items():
            self._meet(zone, report)
            self._heard(zone, report, Taken())
        # Whoever found the pool empty: blocks come free by the passing of time alone.
        self._state.unserved |= {zone for _, zone in self._state.shortages}
        for key in self._state.registry.table(SEEN):
            zone = zone_of(key)
            seen = Seen.of(self._draft, zone)  # who was heard in this entry is in the draft
            if seen is not None and seen.refused:
                seen = self._readmitted(zone, seen)
            if seen is None:
                continue
            found, why = seen.found(
                self._now,
                stale_after_ms=self._settings.stale_after_ms,
                offline_after_ms=self._settings.offline_after_ms,
                reached=self._state.withdrawals.reached,
            )
            if found is not seen:
                self._draft.set(SEEN, key, found.pack())
                self._tell(zone, found.state, why)

    def _readmitted(self, zone: str, seen: Seen) -> Seen:
        """Have a zone publish itself anew, if what was refused of it may fit by now.

        What global says of the entry at the cursor makes it do so; the full sync that follows takes
        in whatever fits, and counts again what does not.
        """
        if self._merging.use(zone).asks_again(seen, self._now.log_time_ms):
            seen = seen.but(h=NOT_MERGED, retried_ms=self._now.log_time_ms)
            self._draft.set(SEEN, zone_key(zone), seen.pack())
            self._decision.note.setdefault("readmitted", []).append(zone)
        return seen

    def _begin(self, item: Begin) -> None:
        settings = item.settings
        if self._draft.get(SETTINGS, GLOBAL_KEY) is not None:
            settings = settings.following(self._settings)
        self._draft.set(SETTINGS, GLOBAL_KEY, settings.pack())
        self._begun = True
        if not item.skip_mesh:
            self._put_default("Mesh", Key("", "", "", DEFAULT_MESH), {}, {})
        if not item.skip_generators:
            for name, spec, labels in default_global_generators():
                self._put_default(GENERATOR_KIND, Key("", "", "", name), labels, spec)
        self._state.legacy.begin()
        self._state.shortages.clear()
        self._state.unserved = {"", *self._state.zones()}


def _short(shortages: dict[tuple[str, str], str], pool: str, why: str | None) -> None:
    if why is None:
        shortages.pop((pool, ""), None)
    else:
        shortages[pool, ""] = why
