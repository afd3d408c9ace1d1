"""What a global replica tells Prometheus, read from its parts when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from globalcp.contenders import Contender
from globalcp.ingest import Counts
from globalcp.state import GlobalState
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.lostzones import Effect, effects_in
from zonemesh.runtime.collect import Collecting, counter, gauge, labelled, mismatches
from zonemesh.seen import Seen, ZoneState


def register(
    registry: CollectorRegistry,
    *,
    state: GlobalState,
    follower: Follower,
    leadership: Leadership,
    snapshotter: Snapshotter,
    counts: Counts,
    contender: Callable[[str], Contender | None],
    committed: Callable[[], tuple[int, int]],
    unreplicated: Callable[[], int],
    lag_s: Callable[[], float | None],
    zone_lag_s: Callable[[str], float | None],
    ready: Callable[[], str | None],
) -> None:
    """`committed`: entries and bytes of the log applied by this process; lags are ages of what is
    applied of the log, and of a zone.
    """

    def collect() -> Iterable[Metric]:
        entries, size = committed()
        yield gauge("leader", "1 while this replica leads.", leadership.writer is not None)
        yield counter("terms_led", "Terms this replica has led.", leadership.terms_led)
        yield counter("log_entries", "Entries of global's log applied.", entries)
        yield counter("log_bytes", "Bytes of global's log applied.", size)
        if (age_s := lag_s()) is not None:
            yield gauge("log_lag_seconds", "Age of what is applied of global's log.", age_s)
        yield gauge("degraded", "1 while /ready is not plainly ok.", ready() is not None)
        writer = leadership.writer
        if writer is not None:
            yield gauge("writes_waiting", "Inputs waiting to be committed.", writer.queued)
            yield gauge(
                "append_blocked_seconds", "How long Redis refuses an entry.", writer.blocked_s
            )
        yield gauge("log_halted", "1 after the same fault thrice.", follower.halted is not None)
        yield counter(
            "unreplicated_appends",
            "Appends that redis.waitReplicas replicas did not have in time.",
            unreplicated(),
        )
        yield counter("snapshots", "Snapshots taken.", snapshotter.taken)
        yield counter("bad_entries", "Entries that could not be read.", follower.bad_entries)
        yield from mismatches({"global": follower.agreement})
        yield labelled("resyncs", "Resyncs of the log by reason.", ["reason"], follower.resyncs)
        yield from _ingested(counts)
        yield from _zones(state, zone_lag_s, contender)
        yield from _pools(state)

    registry.register(Collecting(collect))


def _ingested(counts: Counts) -> Iterable[Metric]:
    yield labelled("zone_entries", "Entries read from zones.", ["zone"], counts.entries)
    yield labelled("zone_bytes", "Bytes read from zones.", ["zone"], counts.bytes)
    held = GaugeMetricFamily(
        "zonemesh_zone_read_wait_seconds",
        "Until a zone is read again that sends more than it may.",
        labels=["zone"],
    )
    for zone, seconds in counts.held_s.items():
        held.add_metric([zone], seconds)
    yield held
    family = CounterMetricFamily(
        "zonemesh_zone_resyncs", "Full syncs of zones.", labels=["zone", "reason"]
    )
    for (zone, reason), value in counts.resyncs.items():
        family.add_metric([zone, reason], value)
    yield family


def _zones(
    state: GlobalState,
    lag_s: Callable[[str], float | None],
    contender: Callable[[str], Contender | None],
) -> Iterable[Metric]:
    online = GaugeMetricFamily("zonemesh_zone_online", "1 while heard from.", labels=["zone"])
    stale = GaugeMetricFamily("zonemesh_zone_stale", "1 while online and behind.", labels=["zone"])
    left = GaugeMetricFamily(
        "zonemesh_zone_left", "1 after it said that it is gone for good.", labels=["zone"]
    )
    lost = GaugeMetricFamily(
        "zonemesh_zone_lost_services",
        "Services of a lost zone that others do not use, or not know.",
        labels=["zone", "effect"],
    )
    age = GaugeMetricFamily(
        "zonemesh_zone_lag_seconds", "Age of a zone's last merged heartbeat.", labels=["zone"]
    )
    rejected = CounterMetricFamily(
        "zonemesh_zone_rejected_records", "Records not taken from a zone.", labels=["zone"]
    )
    conflicts = CounterMetricFamily(
        "zonemesh_zone_binding_conflicts",
        "Bindings refused since another zone owns the address.",
        labels=["zone"],
    )
    refused = GaugeMetricFamily(
        "zonemesh_zone_refused_records",
        "Records over a zone's quota, not taken since its last full sync.",
        labels=["zone"],
    )
    services = GaugeMetricFamily("zonemesh_zone_services", "Services held.", labels=["zone"])
    size = GaugeMetricFamily("zonemesh_zone_held_bytes", "Bytes of records held.", labels=["zone"])
    claimed = GaugeMetricFamily(
        "zonemesh_zone_claimed",
        "1 for minutes after a second control plane has claimed a zone.",
        labels=["zone"],
    )
    for zone in state.zones():
        seen = Seen.of(state.registry, zone)
        if seen is None:
            continue
        refused.add_metric([zone], seen.refused)
        services.add_metric([zone], state.holdings.services[zone])
        size.add_metric([zone], state.holdings.bytes[zone])
        claimed.add_metric([zone], contender(zone) is not None)
        conflicts.add_metric([zone], seen.conflicts)
        online.add_metric([zone], seen.online)
        stale.add_metric([zone], seen.state == ZoneState.STALE)
        left.add_metric([zone], seen.state == ZoneState.LEFT)
        effects = effects_in(state.registry, zone)
        for effect in (Effect.UNAVAILABLE, Effect.WITHDRAWN):
            lost.add_metric([zone, effect.value.lower()], effects[effect])
        if (age_s := lag_s(zone)) is not None:
            age.add_metric([zone], age_s)
        rejected.add_metric([zone], seen.rejected)
    yield from (online, stale, left, lost, age, rejected, conflicts)
    yield from (refused, services, size, claimed)


def _pools(state: GlobalState) -> Iterable[Metric]:
    labels = ["pool", "zone"]
    used = GaugeMetricFamily("zonemesh_vips_used", "Addresses in use.", labels=labels)
    resting = GaugeMetricFamily("zonemesh_vips_quarantined", "Addresses at rest.", labels=labels)
    free = GaugeMetricFamily("zonemesh_vips_free", "Addresses free in blocks.", labels=labels)
    leased = GaugeMetricFamily("zonemesh_blocks_leased", "Blocks leased.", labels=labels)
    settings = state.settings
    for pool, ledger in state.ledgers.items():
        at_large = settings.pool(pool)
        for zone in state.zones():
            at, usage = [pool, zone], ledger.usage(at_large, zone)
            used.add_metric(at, usage.used)
            resting.add_metric(at, usage.quarantined)
            free.add_metric(at, usage.free)
            leased.add_metric(at, usage.blocks)
    draining = GaugeMetricFamily(
        "zonemesh_vips_draining", "Addresses held in ranges that were removed.", labels=labels
    )
    for (pool, zone), held in state.draining().items():
        draining.add_metric([pool, zone], held)
    yield from (used, resting, free, leased, draining)
    short = GaugeMetricFamily(
        "zonemesh_pool_exhausted", "1 while a zone gets no block.", labels=labels
    )
    for pool, zone in state.shortages:
        short.add_metric([pool, zone], 1)
    yield short
