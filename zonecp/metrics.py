"""What a zone's control plane tells Prometheus, read from its parts when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from zonecp.canaries import Canaries
from zonecp.feed import Feed
from zonecp.state import ZoneState
from zonecp.uplink import Uplink
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.runtime.collect import Collecting, counter, gauge, labelled, mismatches


def register(
    registry: CollectorRegistry,
    state: ZoneState,
    leadership: Leadership,
    feed: Feed,
    *,
    follower: Follower | None,
    own_follower: Follower,
    own_lag_s: Callable[[], float | None] | None,
    uplink: Callable[[], Uplink | None],
    lag_s: Callable[[], float],
    map_lag_s: Callable[[], float],
    origin_lags_s: Callable[[], Mapping[str, float]],
    degraded: Callable[[], bool],
    canaries: Canaries,
    mono_s: Callable[[], float],
    committed: Callable[[], tuple[int, int]],
    unreplicated: Callable[[], int],
    renumbered: Callable[[], int],
    over_quota: Callable[[], int],
    holding: Callable[[], Mapping[str, int]],
) -> None:
    """`follower` follows global's log, `own_follower` the zone's where others may write it;
    `committed` counts the own log's entries and bytes.
    """

    def collect() -> Iterable[Metric]:
        entries, size = committed()
        yield gauge("leader", "1 while this process leads its zone.", bool(leadership.writer))
        yield counter("log_entries", "Entries of the zone's own log applied.", entries)
        yield counter("log_bytes", "Bytes of the zone's own log applied.", size)
        yield gauge("log_lag_seconds", "Age of what is applied of global's log.", lag_s())
        yield gauge("map_lag_seconds", "Age of what the map holds of others.", map_lag_s())
        yield gauge("degraded", "1 while /ready is not plainly ok.", degraded())
        origins = GaugeMetricFamily(
            "zonemesh_origin_lag_seconds", "Age of what is known of a zone.", labels=["zone"]
        )
        for zone, age_s in origin_lags_s().items():
            origins.add_metric([zone], age_s)
        yield origins
        yield from _canaries(canaries, mono_s())
        yield gauge("adopted", "1 once the zone may bind addresses.", state.adopted)
        yield gauge("feed_subscribers", "Open feed streams.", feed.subscribers)
        yield gauge("feed_waiting", "Feeds that wait for a snapshot.", feed.admission.waiting)
        yield counter("feed_refused", "Feeds told to come later.", feed.admission.refused)
        yield counter("feed_cut", "Subscribers cut since they took nothing.", feed.cut)
        yield counter("feed_deltas", "Deltas published.", feed.deltas)
        yield counter("feed_snapshots", "Snapshots encoded for subscribers.", feed.snapshots_built)
        if leadership.writer is not None:
            yield gauge("writes_waiting", "Inputs waiting.", leadership.writer.queued)
            blocked_s = leadership.writer.blocked_s
            yield gauge("append_blocked_seconds", "How long the own log refuses.", blocked_s)
        logs = {"own": own_follower.agreement}
        yield from mismatches(logs if follower is None else logs | {"global": follower.agreement})
        if follower is not None:
            yield labelled("resyncs", "Resyncs by reason.", ["reason"], follower.resyncs)
            yield counter("bad_entries", "Entries that could not be read.", follower.bad_entries)
            yield gauge("log_halted", "1 after the same fault thrice.", bool(follower.halted))
        if own_lag_s is not None:
            lag = own_lag_s()
            if lag is not None:
                yield gauge("own_log_lag_seconds", "Age of what is applied of the own log.", lag)
            own_resyncs = own_follower.resyncs
            yield labelled("own_resyncs", "Resyncs of the own log.", ["reason"], own_resyncs)
            own_halted = bool(own_follower.halted)
            yield gauge("own_log_halted", "1 after the same fault thrice.", own_halted)
        yield counter(
            "unreplicated_appends",
            "Appends that redis.waitReplicas replicas did not have in time.",
            unreplicated(),
        )
        yield counter("vips_renumbered", "Addresses given up to another zone.", renumbered())
        yield gauge("over_quota_records", "Records that global refuses.", over_quota())
        held = GaugeMetricFamily(
            "zonemesh_held_services", "Services kept by the shrink guard.", labels=["zone"]
        )
        for zone, count in holding().items():
            held.add_metric([zone], count)
        yield held
        yield from _uplink(uplink())
        yield from _pools(state)

    registry.register(Collecting(collect))


def _canaries(canaries: Canaries, now_s: float) -> Iterable[Metric]:
    ages = GaugeMetricFamily(
        "zonemesh_canary_age_seconds",
        "Since a zone's newest seen was sent.",
        labels=["zone"],
    )
    for zone, age_s in canaries.ages_s(now_s).items():
        ages.add_metric([zone], age_s)
    yield ages
    if canaries.round_trip_s is not None:
        told = "What this zone's newest canary took to global and back."
        yield gauge("canary_round_trip_seconds", told, canaries.round_trip_s)


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
        usage = ledger.usage(settings.pool(pool), zone)
        families["used"].add_metric([pool], usage.used)
        families["rest"].add_metric([pool], usage.quarantined)
        families["free"].add_metric([pool], usage.free)
        families["drain"].add_metric([pool], usage.draining)
        families["wait"].add_metric([pool], usage.waiting)
    yield from families.values()
