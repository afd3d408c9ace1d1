"""What a global replica tells Prometheus, read from its parts when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from globalcp.ingest import Counts
from globalcp.seen import Seen
from globalcp.state import GlobalState
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.runtime.collect import Collecting, counter, gauge, labelled


def register(
    registry: CollectorRegistry,
    *,
    state: GlobalState,
    follower: Follower,
    leadership: Leadership,
    snapshotter: Snapshotter,
    counts: Counts,
    committed: Callable[[], tuple[int, int]],
) -> None:
    """`committed`: entries and bytes of the log applied by this process."""

    def collect() -> Iterable[Metric]:
        entries, size = committed()
        yield gauge("leader", "1 while this replica leads.", leadership.writer is not None)
        yield counter("terms_led", "Terms this replica has led.", leadership.terms_led)
        yield counter("log_entries", "Entries of global's log applied.", entries)
        yield counter("log_bytes", "Bytes of global's log applied.", size)
        lag_s = 0.0 if leadership.writer is not None else follower.lag_s
        if lag_s is not None:
            yield gauge("log_lag_seconds", "Age of what is applied of global's log.", lag_s)
        writer = leadership.writer
        if writer is not None:
            yield gauge("writes_waiting", "Inputs waiting to be committed.", writer.queued)
            yield gauge(
                "append_blocked_seconds", "How long Redis refuses an entry.", writer.blocked_s
            )
        yield gauge("log_halted", "1 after the same fault thrice.", follower.halted is not None)
        yield counter("snapshots", "Snapshots taken.", snapshotter.taken)
        yield counter("bad_entries", "Entries that could not be read.", follower.bad_entries)
        yield labelled("resyncs", "Resyncs of the log by reason.", ["reason"], follower.resyncs)
        yield from _ingested(counts)
        yield from _zones(state)
        yield from _pools(state)

    registry.register(Collecting(collect))


def _ingested(counts: Counts) -> Iterable[Metric]:
    yield labelled("zone_entries", "Entries read from zones.", ["zone"], counts.entries)
    yield labelled("zone_bytes", "Bytes read from zones.", ["zone"], counts.bytes)
    family = CounterMetricFamily(
        "zonemesh_zone_resyncs", "Full syncs of zones.", labels=["zone", "reason"]
    )
    for (zone, reason), value in counts.resyncs.items():
        family.add_metric([zone, reason], value)
    yield family


def _zones(state: GlobalState) -> Iterable[Metric]:
    online = GaugeMetricFamily("zonemesh_zone_online", "1 while heard from.", labels=["zone"])
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
    for zone in state.zones():
        seen = Seen.of(state.registry, zone)
        if seen is None:
            continue
        conflicts.add_metric([zone], seen.conflicts)
        online.add_metric([zone], seen.online)
        age.add_metric([zone], max(0, state.registry.log_time_ms - seen.last_ms) / 1000)
        rejected.add_metric([zone], seen.rejected)
    yield from (online, age, rejected, conflicts)


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
            at = [pool, zone]
            used.add_metric(at, ledger.live(zone))
            resting.add_metric(at, len(ledger.resting(zone)))
            free.add_metric(at, ledger.unused(at_large, zone))
            leased.add_metric(at, len(ledger.blocks(zone)))
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
