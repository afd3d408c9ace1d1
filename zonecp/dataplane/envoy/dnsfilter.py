"""The names as Envoy's own DNS filter answers them, for setups that are made for it.

Not as good as the agent's answers: names are matched with their case, an AAAA query for a name
without such an address is NXDOMAIN, and there is no TCP. CoreDNS stands before it and asks
elsewhere for what it does not answer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Final

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2, udp_listener_config_pb2
from envoy.data.dns.v3 import dns_table_pb2
from envoy.extensions.filters.udp.dns_filter.v3 import dns_filter_pb2

from zonecp.dataplane.envoy.messages import packed, seconds, socket_address

NAME: Final = "kuma:dns"
TTL_S_MIN: Final = 30
"""Envoy refuses less."""

Named = tuple[str, tuple[bytes, ...], int]
"""A name, its packed addresses and its TTL, as `Table.items` gives them."""


def virtual_domains(names: Iterable[Named]) -> list[bytes]:
    """Serialized, one per name that has an address."""
    return [
        dns_table_pb2.DnsTable.DnsVirtualDomain(
            name=name,
            endpoint=dns_table_pb2.DnsTable.DnsEndpoint(
                address_list=dns_table_pb2.DnsTable.AddressList(
                    address=[_text(address) for address in addresses]
                )
            ),
            answer_ttl=seconds(max(ttl_s, TTL_S_MIN)),
        ).SerializeToString(deterministic=True)
        for name, addresses, ttl_s in names
        if addresses
    ]


def dns_listener(address: str, port: int, domains: Iterable[bytes]) -> Any:
    table = dns_table_pb2.DnsTable(external_retry_count=0)
    for domain in domains:
        table.virtual_domains.add().ParseFromString(domain)
    config = dns_filter_pb2.DnsFilterConfig(
        stat_prefix="kuma_dns",
        server_config=dns_filter_pb2.DnsFilterConfig.ServerContextConfig(inline_dns_table=table),
    )
    return listener_pb2.Listener(
        name=NAME,
        address=socket_address(address, port, udp=True),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.udp.dns_filter", typed_config=packed(config)
            )
        ],
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
    )


def _text(packed_address: bytes) -> str:
    family = socket.AF_INET if len(packed_address) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed_address)
