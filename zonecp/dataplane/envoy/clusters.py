"""An outbound as a cluster and the endpoints behind it: this zone's first, others to fail over to.

Addresses come by EDS, so that a change of them leaves the cluster as it is. A cluster with a
hostname among them is resolved by Envoy, which EDS cannot ask for: its endpoints are part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, health_check_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from zonecp.dataplane.envoy.messages import (
    HTTP2_PROTOCOLS,
    outlier_detection,
    packed,
    seconds,
    socket_address,
)
from zonecp.dataplane.outbounds import Endpoint, Outbound
from zonemesh.resources.addresses import is_ip

CONNECT_S: Final = 5.0
"""Kuma's default."""

OVERPROVISIONING: Final = 200
"""Per cent: other zones are used once less than half of this one's instances are healthy; Kuma's
default threshold of cross-zone failover."""

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def needs_dns(outbound: Outbound) -> bool:
    return not all(is_ip(each.address) for each in outbound.endpoints)


def cluster(outbound: Outbound, *, inline: bool = False) -> Any:
    """Make the cluster, named by the outbound's id.

    Args:
        outbound: With its endpoints.
        inline: With the endpoints in it, for an Envoy that is configured by files.
    """
    found = cluster_pb2.Cluster(
        name=outbound.id,
        connect_timeout=seconds(CONNECT_S),
        outlier_detection=outlier_detection(),
        ignore_health_on_host_removal=True,
    )
    # Never to one that is not ready: with none left, a client is told so at once.
    found.common_lb_config.healthy_panic_threshold.value = 0
    if outbound.protocol in HTTP2_PROTOCOLS:
        options = http_protocol_options_pb2.HttpProtocolOptions()
        options.explicit_http_config.http2_protocol_options.CopyFrom(
            protocol_pb2.Http2ProtocolOptions()
        )
        found.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(packed(options))
    if needs_dns(outbound):
        found.type = cluster_pb2.Cluster.STRICT_DNS
        found.respect_dns_ttl = True
        found.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
        found.load_assignment.CopyFrom(assignment(outbound))
    elif inline:
        found.type = cluster_pb2.Cluster.STATIC
        found.load_assignment.CopyFrom(assignment(outbound))
    else:
        found.type = cluster_pb2.Cluster.EDS
        found.eds_cluster_config.eds_config.CopyFrom(_ADS)
    return found


def assignment(outbound: Outbound) -> Any:
    """Make the endpoints of an outbound, by priority and zone."""
    found = endpoint_pb2.ClusterLoadAssignment(cluster_name=outbound.id)
    found.policy.overprovisioning_factor.value = OVERPROVISIONING
    for priority, zone, endpoints in _localities(outbound.endpoints):
        found.endpoints.add(
            locality=base_pb2.Locality(zone=zone),
            priority=priority,
            lb_endpoints=[_lb_endpoint(each) for each in endpoints],
        )
    return found


def _localities(endpoints: Iterable[Endpoint]) -> Iterator[tuple[int, str, list[Endpoint]]]:
    """Endpoints by priority and zone; priorities without gaps, which Envoy does not take."""
    ordered = sorted(_distinct(endpoints), key=lambda each: (each.priority, each.zone))
    for rank, (_, same) in enumerate(groupby(ordered, key=lambda each: each.priority)):
        for zone, found in groupby(same, key=lambda each: each.zone):
            yield rank, zone, [*found]


def _distinct(endpoints: Iterable[Endpoint]) -> Iterator[Endpoint]:
    """One endpoint per place: the nearest, and of those one that is ready.

    Several zones, or several services behind one, may be reached by the same address.
    """
    ordered = sorted(endpoints, key=lambda each: (each.address, each.port, each.priority))
    for _, same in groupby(ordered, key=lambda each: (each.address, each.port)):
        nearest = [*same]
        yield next((each for each in nearest if each.ready), nearest[0])


def _lb_endpoint(endpoint: Endpoint) -> Any:
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=socket_address(endpoint.address, endpoint.port)
        ),
        health_status=health_check_pb2.HEALTHY if endpoint.ready else health_check_pb2.UNHEALTHY,
    )


def static_cluster(name: str, address: str, port: int, *, http2: bool = False) -> Any:
    """One place that is always there: the workload."""
    outbound = Outbound(
        id=name,
        kind="",
        vips=(),
        port=port,
        name=name,
        protocol="http2" if http2 else "tcp",
        endpoints=(Endpoint(address=address, port=port),),
    )
    found = cluster(outbound, inline=True)
    # With a single instance there is nothing to prefer to it.
    found.ClearField("outlier_detection")
    return found


def empty_cluster(name: str) -> Any:
    """Nowhere: a connection to it ends at once."""
    return cluster_pb2.Cluster(
        name=name, type=cluster_pb2.Cluster.STATIC, connect_timeout=seconds(CONNECT_S)
    )


def passthrough_cluster(name: str) -> Any:
    """To where the connection was going to."""
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=seconds(CONNECT_S),
    )


_ADS: Final = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(),
    resource_api_version=config_source_pb2.ApiVersion.V3,
)
