"""Every checker finds what it is for: a bug planted in the product's code is caught by a seed.

Which seed it was is printed (`pytest -rP`). The simulation sees of a plant only what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from globalcp.ingest import Ingest
from globalcp.merging import Merging
from tests.simulation.operations import plan
from tests.simulation.simulation import simulate
from zonecp import adoption
from zonecp.ages import Ages
from zonecp.dataplane import feed as agentfeed
from zonecp.dataplane.cache import Cache
from zonecp.dataplane.resolver import Table
from zonecp.feed import Feed
from zonecp.readiness import Readiness
from zonecp.uplink import Uplink
from zonemesh import replica, wire
from zonemesh.deciding import Deciding
from zonemesh.errors import GapError
from zonemesh.hostnames import ServiceFacts
from zonemesh.ipam import Allocation, Choosing
from zonemesh.log import fence, follower
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.memory import MemoryLog
from zonemesh.model import START, Change, zone_of
from zonemesh.runtime.supervise import Backoff
from zonemesh.wire import Sealed

SEEDS = 60
LENGTH = 22
RARE = {"I22": 60}
"""Operations of a plan, where it takes several to come together."""
Plant = Callable[[pytest.MonkeyPatch], None]


def addresses_given_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Allocation, "_never_used", lambda self, _: self._blocks[0].first)


def an_address_that_is_not_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Allocation, "_keeps", lambda *_: False)


def no_quarantine(patch: pytest.MonkeyPatch) -> None:
    begin = Choosing.__init__

    def planted(self: Choosing, *args: Any, quarantine_ms: int, **options: Any) -> None:
        begin(self, *args, quarantine_ms=0, **options)

    patch.setattr(Choosing, "__init__", planted)


def a_reader_that_leaves_out_the_end_of_a_long_entry(patch: pytest.MonkeyPatch) -> None:
    decode = wire.decode

    def planted(data: bytes, previous_h: bytes, **options: Any) -> tuple[Sealed, bool]:
        sealed, chained = decode(data, previous_h, **options)
        entry = replace(sealed.entry, changes=sealed.entry.changes[:20])
        return replace(sealed, entry=entry), chained

    patch.setattr(follower, "decode", planted)


def an_old_backup_that_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adoption, "_deleted_since", lambda *_: [])


def a_full_sync_of_an_empty_snapshot(patch: pytest.MonkeyPatch) -> None:
    async def planted(*_: Any) -> Mapping[str, Any]:
        return {}

    patch.setattr(Ingest, "_load", planted)


def a_zone_that_never_looks_whether_it_is_followed(patch: pytest.MonkeyPatch) -> None:
    async def planted(*_: Any) -> None:
        return

    patch.setattr(Uplink, "_check_followed", planted)


def a_feed_that_goes_back(patch: pytest.MonkeyPatch) -> None:
    heartbeat = Feed._heartbeat

    def planted(self: Feed, *args: Any) -> bytes:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(self, "_shown", self._started)
            return heartbeat(self, *args)

    patch.setattr(Feed, "_heartbeat", planted)
    patch.setattr(agentfeed, "is_older", lambda *_: False)


def a_reader_that_skips_gaps(patch: pytest.MonkeyPatch) -> None:
    follows = replica.follows

    def planted(*args: Any, **options: Any) -> bool:
        try:
            return follows(*args, **options)
        except GapError:
            return True

    patch.setattr(follower, "follows", planted)


def a_global_that_believes_foreign_records(patch: pytest.MonkeyPatch) -> None:
    take = Merging.take

    def planted(self: Any, zone: str, change: Change, counts: Any) -> None:
        if zone_of(change.key) != zone:
            self._draft.set(*change)
        else:
            take(self, zone, change, counts)

    patch.setattr(Merging, "take", planted)


def an_append_that_compares_nothing(patch: pytest.MonkeyPatch) -> None:
    def planted(self: MemoryLog, data: Any, sealed: Sealed, owner: str | None) -> None:
        if data.head is not None and data.stream is not None and data.head.h != sealed.h:
            self._write(data, data.stream, sealed, fence.head_after(data.head, sealed, owner))

    patch.setattr(MemoryLog, "_append", planted)


def a_write_of_the_same_that_counts_as_one(patch: pytest.MonkeyPatch) -> None:
    revised = Deciding._revised

    def planted(self: Any, item: Any) -> Any:
        item.labels["planted"] = str(self._now.wall_ms)
        return revised(self, item)

    patch.setattr(Deciding, "_revised", planted)


def a_lag_that_is_always_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ages, "lag_s", lambda _: 0.0)


def a_table_that_thinks_it_is_loaded(patch: pytest.MonkeyPatch) -> None:
    begin = Table.__init__

    def planted(self: Table, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        self.loaded = self.complete = True

    patch.setattr(Table, "__init__", planted)


def an_agent_without_its_file(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cache, "load", lambda _: None)


def a_log_that_is_never_trimmed(patch: pytest.MonkeyPatch) -> None:
    async def planted(*_: Any) -> int:
        return 0

    patch.setattr(MemoryLog, "trim", planted)


def names_by_alphabet(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServiceFacts, "rank", property(lambda self: (False, 0, START, self.key)))


def retries_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "delay_s", lambda *_: 0.001)


def a_log_time_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    begin = Appender.__init__

    def planted(self: Appender, *args: Any, clock: Clock, **options: Any) -> None:
        wall = Clock(wall_ms=clock.wall_ms, mono_s=lambda: clock.wall_ms() / 1000)
        begin(self, *args, clock=wall, **options)

    patch.setattr(Appender, "__init__", planted)


def a_map_served_before_it_is_whole(patch: pytest.MonkeyPatch) -> None:
    led = "the zone's own log has not been read yet"
    patch.setattr(Readiness, "ready", lambda self: None if self._leadership.terms_led else led)
    patch.setattr(Readiness, "complete", lambda self: self._leadership.terms_led > 0)
    patch.setattr(Readiness, "shows_less", lambda *_: False)
    patch.setattr(agentfeed.Follower, "_suspect", lambda *_: None)


CLIENTS = ("clients",)
PLANTS: Sequence[tuple[str, Plant, Sequence[str]]] = [
    ("I1", addresses_given_twice, CLIENTS),
    ("I2", an_address_that_is_not_given_back, CLIENTS),
    ("I3", no_quarantine, CLIENTS),
    ("I4", a_reader_that_leaves_out_the_end_of_a_long_entry, CLIENTS),
    ("I5", an_old_backup_that_is_believed, ("register", "set_back", "start")),
    ("I6", a_full_sync_of_an_empty_snapshot, ("register", "lose_up", "lose_disk", "start")),
    ("I7", a_zone_that_never_looks_whether_it_is_followed, ("register", "corrupt_up", "trim")),
    ("I8", a_feed_that_goes_back, CLIENTS),
    ("I9", a_reader_that_skips_gaps, ("register", "cut", "heal", "trim")),
    ("I10", a_global_that_believes_foreign_records, ("register", "forge")),
    ("I11", an_append_that_compares_nothing, ("register", "redeliver", "pause")),
    ("I12", a_write_of_the_same_that_counts_as_one, CLIENTS),
    ("I13", a_lag_that_is_always_none, ("clients", "links")),
    ("I15", a_table_that_thinks_it_is_loaded, CLIENTS),
    ("I16", an_agent_without_its_file, CLIENTS),
    ("I18", a_log_that_is_never_trimmed, CLIENTS),
    ("I19", names_by_alphabet, ("share",)),
    ("I20", retries_without_a_pause, ("outage",)),
    ("I21", a_log_time_by_the_wall_clock, ("clocks",)),
    ("I22", a_map_served_before_it_is_whole, ("register", "lose_copy", "cut", "start")),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "number, plant, groups", PLANTS, ids=[f"{each[0]}-{each[1].__name__}" for each in PLANTS]
)
def test_a_planted_bug_is_caught(
    monkeypatch: pytest.MonkeyPatch, number: str, plant: Plant, groups: Sequence[str]
) -> None:
    plant(monkeypatch)

    for seed in range(SEEDS):
        outcome = simulate(plan(seed, length=RARE.get(number, LENGTH), also=groups, only=groups))
        if number in outcome.broken:
            print(f"{number}: {plant.__name__} was caught by seed {seed}")
            return
    pytest.fail(f"no seed of {SEEDS} catches {plant.__name__}")
