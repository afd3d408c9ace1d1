"""Where Envoy listens: each address and port of the mesh, the workload's own ports, and DNS.

A connection reaches the listener of a VIP in one of two ways. `bound`: the address is this host's
(AnyIP, or loopback), and Envoy listens there. `redirect`: rules of the kernel redirect connections
to one port, whose listener hands them to the one that has their original destination. With
`single`, that listener holds all destinations itself, as filter chains: a change costs Envoy less,
but one that Envoy rejects rejects all changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2

from zonecp.dataplane.envoy.messages import (
    HTTP_PROTOCOLS,
    LOCAL_FAILURES,
    joined,
    packed,
    seconds,
    service_metadata,
    socket_address,
)
from zonecp.dataplane.outbounds import Outbound

PASSTHROUGH_V4: Final = "outbound:passthrough:ipv4"
PASSTHROUGH_V6: Final = "outbound:passthrough:ipv6"
NOBODY: Final = "outbound:nobody"
"""The cluster of the mesh's addresses that no service has: without instances, so that Envoy ends
a connection at once. Handed on, it would wait for somebody who is not there."""

HTTP_ATTEMPTS: Final = 3
TCP_ATTEMPTS: Final = LOCAL_FAILURES + 3
TCP_BACKOFF_S: Final = 0.05
"""An instance that fails is tried until it is set aside, which takes Envoy's main thread a moment;
only then are other zones tried. (HTTP requests are sent there at once.)"""

_HCM: Final = http_connection_manager_pb2.HttpConnectionManager


class Inbound(NamedTuple):
    """A port of the workload, and where it is served."""

    address: str
    port: int
    service_address: str
    service_port: int
    service: str
    protocol: str

    @property
    def name(self) -> str:
        return f"inbound:{joined(self.address, self.port)}"

    @property
    def cluster(self) -> str:
        host = "localhost" if self.service_address == "127.0.0.1" else self.service_address
        return joined(host, self.service_port)


def listener_name(vip: str, port: int) -> str:
    return f"outbound:{joined(vip, port)}"


def outbound_listener(
    outbound: Outbound, vip: str, chain: Any, *, bound: bool, freebind: bool
) -> Any:
    """One address of an outbound; `chain` as `filter_chain` makes it.

    Args:
        outbound: The service's port.
        vip: One of its addresses.
        chain: What is done with connections.
        bound: Listen there; else connections are handed over by the redirect listener.
        freebind: Also where the address is not this host's by an address of its own. AnyIP routes
            make IPv4 addresses bindable, IPv6 ones not.
    """
    found = listener_pb2.Listener(
        name=listener_name(vip, outbound.port),
        address=socket_address(vip, outbound.port),
        filter_chains=[chain],
        metadata=service_metadata(outbound.name),
        traffic_direction="OUTBOUND",
        stat_prefix=listener_name(vip, outbound.port).replace(":", "_"),
    )
    if not bound:
        found.bind_to_port.value = False
    elif freebind:
        found.freebind.value = True
    return found


def filter_chain(outbound: Outbound) -> Any:
    return _chain(outbound.id, outbound.protocol, prefix=outbound.name)


def matching_chain(outbound: Outbound, vip: str) -> Any:
    """A chain of the single listener: for one destination."""
    found = filter_chain(outbound)
    found.name = listener_name(vip, outbound.port)
    match = found.filter_chain_match
    match.prefix_ranges.add(address_prefix=vip).prefix_len.value = 128 if ":" in vip else 32
    match.destination_port.value = outbound.port
    found.metadata.CopyFrom(service_metadata(outbound.name))
    return found


def redirect_listener(
    name: str,
    port: int,
    *,
    chains: Mapping[str, bytes] = MappingProxyType({}),
    single: bool = False,
    vip_ranges: Iterable[str] = (),
) -> Any:
    """Where redirected connections arrive; those to nowhere else go to where they were going.

    Args:
        name: PASSTHROUGH_V4 or PASSTHROUGH_V6; also of the cluster.
        port: Connections are redirected to it.
        chains: With `single`, serialized chains of all destinations, by their names.
        single: Not to look for listeners of destinations.
        vip_ranges: The mesh's own (CIDR, both families): those that no service has lead nowhere.
    """
    v6 = name == PASSTHROUGH_V6
    found = listener_pb2.Listener(
        name=name,
        address=socket_address("::" if v6 else "0.0.0.0", port),  # noqa: S104 -- any destination
        traffic_direction="OUTBOUND",
        # There is only one place: no other instance to try.
        default_filter_chain=_chain(name, "tcp", prefix=name, attempts=1),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.original_dst",
                typed_config=packed(original_dst_pb2.OriginalDst()),
            )
        ],
    )
    if not single:
        found.use_original_dst.value = True
    for chain in chains.values():
        found.filter_chains.add().ParseFromString(chain)
    networks = [ip_network(each) for each in vip_ranges]
    if own := [each for each in networks if each.version == (6 if v6 else 4)]:
        # Envoy looks at the port first: with chains for one, it takes none of those for all.
        ports = sorted({int(each.rpartition(":")[2]) for each in chains})
        found.filter_chains.extend(_nobodys_chain(own, each) for each in (None, *ports))
    return found


def _nobodys_chain(networks: Iterable[IPv4Network | IPv6Network], port: int | None) -> Any:
    found = _chain(NOBODY, "tcp", prefix=NOBODY)
    found.name = NOBODY if port is None else f"{NOBODY}:{port}"
    for each in networks:
        found.filter_chain_match.prefix_ranges.add(
            address_prefix=str(each.network_address)
        ).prefix_len.value = each.prefixlen
    if port is not None:
        found.filter_chain_match.destination_port.value = port
    return found


def inbound_listener(inbound: Inbound) -> Any:
    """The workload's port as others reach it."""
    return listener_pb2.Listener(
        name=inbound.name,
        address=socket_address(inbound.address, inbound.port),
        filter_chains=[_chain(inbound.cluster, inbound.protocol, prefix=inbound.cluster)],
        metadata=service_metadata(inbound.service),
        traffic_direction="INBOUND",
    )


def inbounds_of(document: Mapping[str, Any]) -> list[Inbound]:
    """Ports of a Dataplane between which and the workload an Envoy can stand.

    Not those that the workload serves at the very place where others reach it.
    """
    networking = document.get("networking") or {}
    found = []
    for each in networking.get("inbound") or ():
        tags = each.get("tags") or {}
        port = each["port"]
        inbound = Inbound(
            each.get("address") or networking["address"],
            port,
            each.get("serviceAddress") or "127.0.0.1",
            each.get("servicePort") or port,
            str(tags.get("kuma.io/service") or document.get("name") or ""),
            str(tags.get("kuma.io/protocol") or each.get("protocol") or "tcp").lower(),
        )
        if inbound[:2] != inbound[2:4] and each.get("state") != "Ignored":
            found.append(inbound)
    return found


def _chain(cluster: str, protocol: str, *, prefix: str, attempts: int = TCP_ATTEMPTS) -> Any:
    stat_prefix = prefix.replace(".", "_").replace(":", "_")
    if protocol in HTTP_PROTOCOLS:
        network = listener_components_pb2.Filter(
            name="envoy.filters.network.http_connection_manager",
            typed_config=packed(_http(cluster, stat_prefix)),
        )
    else:
        proxy = tcp_proxy_pb2.TcpProxy(cluster=cluster, stat_prefix=stat_prefix)
        proxy.max_connect_attempts.value = attempts
        proxy.backoff_options.base_interval.CopyFrom(seconds(TCP_BACKOFF_S))
        proxy.backoff_options.max_interval.CopyFrom(seconds(4 * TCP_BACKOFF_S))
        network = listener_components_pb2.Filter(
            name="envoy.filters.network.tcp_proxy", typed_config=packed(proxy)
        )
    return listener_components_pb2.FilterChain(filters=[network])


def _http(cluster: str, stat_prefix: str) -> Any:
    route = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(
            cluster=cluster, timeout=seconds(0), retry_policy=_RETRY
        ),
    )
    routes = route_pb2.RouteConfiguration(
        name=cluster,
        virtual_hosts=[
            route_components_pb2.VirtualHost(name=cluster, domains=["*"], routes=[route])
        ],
    )
    # The cluster may come a moment later; a listener is not to be refused for that.
    routes.validate_clusters.value = False
    found = _HCM(
        stat_prefix=stat_prefix,
        route_config=routes,
        http_filters=[_ROUTER],
        server_header_transformation=_HCM.PASS_THROUGH,
        upgrade_configs=[_HCM.UpgradeConfig(upgrade_type="websocket")],
    )
    # What nginx asks its upstreams in, unless told otherwise; else Envoy answers 426.
    found.http_protocol_options.accept_http_10 = True
    return found


def _retry() -> Any:
    """Only where nothing has been sent: a connection that failed is tried elsewhere."""
    found = route_components_pb2.RetryPolicy(
        retry_on="connect-failure,refused-stream",
        host_selection_retry_max_attempts=HTTP_ATTEMPTS,
        retry_host_predicate=[
            route_components_pb2.RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        retry_priority=route_components_pb2.RetryPolicy.RetryPriority(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=packed(
                previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=1)
            ),
        ),
    )
    found.num_retries.value = HTTP_ATTEMPTS
    return found


_RETRY: Final = _retry()
_ROUTER: Final = http_connection_manager_pb2.HttpFilter(
    name="envoy.filters.http.router",
    typed_config=packed(router_pb2.Router(suppress_envoy_headers=True)),
)
