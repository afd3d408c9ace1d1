"""What a zone's control plane tells Prometheus, read from its parts when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from zonecp.feed import Feed
from zonecp.state import ZoneState
from zonecp.uplink import Uplink
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.runtime.collect import Collecting, counter, gauge, labelled


def register(
    registry: CollectorRegistry,
    state: ZoneState,
    leadership: Leadership,
    feed: Feed,
    *,
    follower: Follower | None,
    uplink: Callable[[], Uplink | None],
    lag_s: Callable[[], float],
    committed: Callable[[], tuple[int, int]],
    renumbered: Callable[[], int],
) -> None:
    """`follower` follows global's log; `committed` counts the own log's entries and bytes."""

    def collect() -> Iterable[Metric]:
        entries, size = committed()
        yield gauge("leader", "1 while this process leads its zone.", bool(leadership.writer))
        yield counter("log_entries", "Entries of the zone's own log applied.", entries)
        yield counter("log_bytes", "Bytes of the zone's own log applied.", size)
        yield gauge("log_lag_seconds", "Age of what is applied of global's log.", lag_s())
        yield gauge("adopted", "1 once the zone may bind addresses.", state.adopted)
        yield gauge("feed_subscribers", "Open feed streams.", feed.subscribers)
        yield counter("feed_deltas", "Deltas published.", feed.deltas)
        yield counter("feed_snapshots", "Snapshots encoded for subscribers.", feed.snapshots_built)
        if leadership.writer is not None:
            yield gauge("writes_waiting", "Inputs waiting.", leadership.writer.queued)
            blocked_s = leadership.writer.blocked_s
            yield gauge("append_blocked_seconds", "How long the own log refuses.", blocked_s)
        if follower is not None:
            yield labelled("resyncs", "Resyncs by reason.", ["reason"], follower.resyncs)
            yield counter("bad_entries", "Entries that could not be read.", follower.bad_entries)
            yield gauge("log_halted", "1 after the same fault thrice.", bool(follower.halted))
        yield counter("vips_renumbered", "Addresses given up to another zone.", renumbered())
        yield from _uplink(uplink())
        yield from _pools(state)

    registry.register(Collecting(collect))


def _uplink(uplink: Uplink | None) -> Iterable[Metric]:
    if uplink is None:
        return
    yield counter("uplink_entries", "Entries written to the zone's stream.", uplink.entries)
    yield counter("uplink_bytes", "Bytes written to the zone's stream.", uplink.bytes)
    refused = uplink.refused is not None
    yield gauge("uplink_refused", "1 while the zone's stream takes nothing.", refused)
    yield counter("uplink_full_syncs", "Snapshots published to global.", uplink.full_syncs)


def _pools(state: ZoneState) -> Iterable[Metric]:
    zone, settings = state.zone, state.settings
    families = {
        "used": GaugeMetricFamily("zonemesh_vips_used", "Addresses in use.", labels=["pool"]),
        "rest": GaugeMetricFamily("zonemesh_vips_quarantined", "At rest.", labels=["pool"]),
        "free": GaugeMetricFamily("zonemesh_vips_free", "Free in blocks.", labels=["pool"]),
        "drain": GaugeMetricFamily(
            "zonemesh_vips_draining", "Held in ranges that were removed.", labels=["pool"]
        ),
        "wait": GaugeMetricFamily("zonemesh_vips_waiting", "Without address.", labels=["pool"]),
    }
    for pool, ledger in state.ledgers.items():
        live, rest = ledger.live(zone), len(ledger.resting(zone))
        families["used"].add_metric([pool], live)
        families["rest"].add_metric([pool], rest)
        families["free"].add_metric([pool], ledger.unused(settings.pool(pool), zone))
        families["drain"].add_metric([pool], ledger.draining(settings.pool(pool), zone))
        families["wait"].add_metric([pool], len(ledger.waiting[zone]))
    yield from families.values()
