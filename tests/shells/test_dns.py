"""The DNS server on real sockets, and what it asks of real upstreams."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fake_zone import until
from tests.serving import served_names, serving
from tests.upstreams import (
    LOOPBACK,
    NAME,
    addresses_of,
    forwarder_to,
    query,
    resolved,
    upstream,
)
from zonecp.dataplane import dns as dns_module
from zonecp.dataplane import mmsg
from zonecp.dataplane.answers import Answers
from zonecp.dataplane.dns import Server
from zonecp.dataplane.entry import wire_entry
from zonecp.dataplane.message import wire_name
from zonecp.dataplane.resolver import Table
from zonemesh.errors import ConfigError

QUERY = dns.message.make_query(NAME, "A", use_edns=0).to_wire()
damaged_queries = st.tuples(st.integers(0, len(QUERY)), st.binary(max_size=6)).map(
    lambda damage: QUERY[: damage[0]] + damage[1] + QUERY[damage[0] + len(damage[1]) :]
)


@pytest.fixture(params=["batches", "one by one"])
def datagrams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of reading datagrams: what differs is a finding."""
    if request.param == "one by one":
        monkeypatch.setattr(mmsg, "is_supported", lambda: False)


async def over_udp(
    server: Server, message: dns.message.Message, address: str = LOOPBACK
) -> dns.message.Message:
    return await dns.asyncquery.udp(message, address, port=server.port, timeout=5)


async def over_tcp(server: Server, message: dns.message.Message) -> dns.message.Message:
    return await dns.asyncquery.tcp(message, LOOPBACK, port=server.port, timeout=5)


@pytest.mark.usefixtures("datagrams")
@pytest.mark.parametrize("address", [LOOPBACK, "::1"])
async def test_names_are_answered_on_both_families(address: str) -> None:
    async with serving(addresses=(LOOPBACK, "::1")) as server:
        reply = await over_udp(server, query(), address)

    assert addresses_of(reply) == ["241.0.0.1"]


@pytest.mark.usefixtures("datagrams")
@pytest.mark.parametrize("address", [LOOPBACK, "::1"])
async def test_outside_names_are_forwarded_on_both_families(address: str) -> None:
    async with (
        upstream(lambda packet, _: resolved(packet)) as up,
        serving(up.address, addresses=(LOOPBACK, "::1")) as server,
    ):
        message = query("example.org")
        reply = await over_udp(server, message, address)

    assert addresses_of(reply) == ["192.0.2.1"]
    assert reply.id == message.id


@pytest.mark.usefixtures("datagrams")
@pytest.mark.parametrize("records", [1, 100])
async def test_kept_answers_go_out_whatever_their_length(records: int) -> None:
    async with (
        upstream(lambda packet, _: resolved(packet, records)) as up,
        serving(up.address, answers=Answers(10, ttl_s_max=60.0)) as server,
    ):
        for _ in range(3):
            message = query("example.org", edns=4096)
            reply = await over_udp(server, message)
            assert reply.id == message.id
            assert len(addresses_of(reply)) == records

    assert len(up.ids) == 1


@pytest.mark.usefixtures("datagrams")
async def test_batches_of_queries_at_once_get_their_own_answers() -> None:
    table = Table(["mesh"])
    for index in range(120):
        table.put(wire_name(f"s{index}.mesh"), wire_entry([bytes((241, 0, 0, index))], 60))
    async with serving() as server:
        server._table._entries.update(table._entries)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect((LOOPBACK, server.port))
            for index in range(120):
                client.send(dns.message.make_query(f"s{index}.mesh", "A", id=index).to_wire())
                client.send(b"\0")
            await until(lambda: server._table.answered_a == 120)
            replies = [dns.message.from_wire(client.recv(512)) for _ in range(120)]

    assert {reply.id: addresses_of(reply) for reply in replies} == {
        index: [f"241.0.0.{index}"] for index in range(120)
    }
    assert server.unsent == 0


async def test_what_is_too_long_for_udp_is_truncated_there_and_whole_over_tcp() -> None:
    async with serving() as server:
        cut = await over_udp(server, query("many.mesh.local", edns=4096))
        whole = await over_tcp(server, query("many.mesh.local", edns=4096))

    assert cut.flags & dns.flags.TC
    assert len(addresses_of(whole)) == 200


async def test_queries_of_one_connection_are_answered_as_they_come() -> None:
    def slow(packet: bytes, _: bool) -> bytes | None:
        return None if b"lost" in packet else resolved(packet)

    async with upstream(slow) as up, serving(up.address) as server:
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        sent = [query("lost.example"), query(), query("example.org")]
        for message in sent:
            writer.write(message.to_wire(prepend_length=True))
        replies = []
        for _ in sent:
            size = int.from_bytes(await reader.readexactly(2), "big")
            replies.append(dns.message.from_wire(await reader.readexactly(size)))
        writer.close()

    assert [reply.id for reply in replies] == [sent[1].id, sent[2].id, sent[0].id]
    assert replies[2].rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\5abc", b"\xff\xff", b"\0\1a", b"\0\0"])
async def test_a_connection_of_no_use_is_closed(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_module, "TCP_IDLE_S", 0.05)
    async with serving() as server:
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(sent)

        assert await reader.read() == b""

        writer.close()
        await until(lambda: server.connections == 0)


async def test_connections_over_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_module, "TCP_CONNECTIONS_MAX", 1)
    async with serving() as server:
        _, first = await asyncio.open_connection(LOOPBACK, server.port)
        await until(lambda: server.connections == 1)
        reader, second = await asyncio.open_connection(LOOPBACK, server.port)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        first.close()
        second.close()

        assert server.connections_refused == 1


def test_a_port_that_is_taken_is_a_fault_of_the_configuration() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOOPBACK, 0))
        port = taken.getsockname()[1]
        server = Server(
            served_names(), forwarder_to(), addresses=(LOOPBACK, "192.0.2.1"), port=port
        )

        with pytest.raises(ConfigError) as caught:
            server.bind()

    assert not server.bound
    assert caught.value.faults == (
        f"DNS on 127.0.0.1 port {port}: in use by another process (dns.proxyPort, dns.agentPort)",
        f"DNS on 192.0.2.1 port {port}: not an address of this host (dns.addresses, --dns-address)",
    )


@pytest.mark.usefixtures("datagrams")
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.one_of(st.binary(max_size=300), damaged_queries), min_size=50, max_size=60))
def test_no_datagrams_stop_it(packets: list[bytes]) -> None:
    async def send_all() -> dns.message.Message:
        async with serving() as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect((LOOPBACK, server.port))
                for packet in packets:
                    client.send(packet)
                return await over_udp(server, query())

    assert addresses_of(asyncio.run(send_all())) == ["241.0.0.1"]


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=400))
def test_no_octets_on_a_connection_stop_it(data: bytes) -> None:
    async def send_all() -> dns.message.Message:
        async with serving() as server:
            _, writer = await asyncio.open_connection(LOOPBACK, server.port)
            writer.write(data)
            writer.close()
            return await over_tcp(server, query())

    assert addresses_of(asyncio.run(send_all())) == ["241.0.0.1"]
