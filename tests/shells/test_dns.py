"""The DNS server on real sockets, and what it asks of real upstreams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.fake_zone import free_port, until
from zonecp.dataplane import dns as dns_module
from zonecp.dataplane import forward as forward_module
from zonecp.dataplane import mmsg
from zonecp.dataplane.dns import Server
from zonecp.dataplane.forward import (
    Address,
    Forwarder,
    Servers,
    is_own,
    parse_address,
    parse_resolv_conf,
)
from zonecp.dataplane.resolver import REFUSED, SERVFAIL, Table, wire_entry, wire_name
from zonemesh.errors import ConfigError

LOOPBACK = "127.0.0.1"
NAME = "redis.svc.mesh.local"
V4 = bytes((241, 0, 0, 1))
QR, TC = 0x80, 0x02

Answer = Callable[[bytes, bool], bytes | None]
"""What an upstream makes of a query; the flag says whether it came over TCP."""


def answered(packet: bytes, rcode: int = 0, flags: int = 0) -> bytes:
    return packet[:2] + bytes((QR | flags | packet[2], 0x80 | rcode)) + packet[4:]


def resolved(packet: bytes, count: int = 1) -> bytes:
    query = dns.message.from_wire(packet)
    reply = dns.message.make_response(query)
    lines = [f"{query.question[0].name} 9 IN A 192.0.2.{i}" for i in range(1, count + 1)]
    reply.answer = dns.message.from_text("id 1\n;ANSWER\n" + "\n".join(lines)).answer
    return reply.to_wire()


class Upstream(asyncio.DatagramProtocol):
    """A resolver that does what the test says, on UDP and TCP of one port."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.senders: list[tuple[str, int]] = []
        self.ids: list[bytes] = []
        self.address = Address(LOOPBACK, 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.senders.append(addr)
        self.ids.append(data[:2])
        reply = self.answer(data, False)
        if reply is not None:
            self.transport.sendto(reply, addr)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        reply = self.answer(query, True)
        if reply is not None:
            writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()


@asynccontextmanager
async def upstream(answer: Answer) -> AsyncIterator[Upstream]:
    made = Upstream(answer)
    loop = asyncio.get_running_loop()
    port = free_port()
    made.address = Address(LOOPBACK, port)
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=made.address)
    tcp = await asyncio.start_server(made.connected, LOOPBACK, port)
    try:
        yield made
    finally:
        transport.close()
        tcp.close()


def forwarder_to(*servers: Address, timeout_s: float = 0.2) -> Forwarder:
    fixed = Servers(servers, resolv_conf=Path("/nonexistent"), own=lambda _: False)
    return Forwarder(fixed, timeout_s=timeout_s)


def names() -> Table:
    table = Table(["mesh.local"])
    table.put(wire_name(NAME), wire_entry([V4, bytes(15) + b"\1"], 60))
    many = [bytes((241, 0, 1, i)) for i in range(200)]
    table.put(wire_name("many.mesh.local"), wire_entry(many, 60))
    table.loaded = True
    return table


@asynccontextmanager
async def serving(
    *servers: Address, addresses: tuple[str, ...] = (LOOPBACK,)
) -> AsyncIterator[Server]:
    forwarder = forwarder_to(*servers)
    server = Server(names(), forwarder, addresses=addresses, port=free_port())
    server.bind()
    task = asyncio.create_task(server.run())
    try:
        await asyncio.sleep(0)
        yield server
    finally:
        task.cancel()
        await asyncio.wait({task})
        forwarder.close()
        await asyncio.sleep(0)
        if not task.cancelled():
            task.result()


@pytest.fixture(params=["batches", "one by one"])
def datagrams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of reading datagrams: what differs is a finding."""
    if request.param == "one by one":
        monkeypatch.setattr(mmsg, "is_supported", lambda: False)


def query(name: str = NAME, qtype: str = "A", *, edns: int | None = None) -> dns.message.Message:
    return dns.message.make_query(name, qtype, use_edns=edns is not None, payload=edns or 0)


async def over_udp(
    server: Server, message: dns.message.Message, address: str = LOOPBACK
) -> dns.message.Message:
    return await dns.asyncquery.udp(message, address, port=server.port, timeout=5)


async def over_tcp(server: Server, message: dns.message.Message) -> dns.message.Message:
    return await dns.asyncquery.tcp(message, LOOPBACK, port=server.port, timeout=5)


def addresses_of(reply: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]


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
        server = Server(names(), forwarder_to(), addresses=(LOOPBACK, "192.0.2.1"), port=port)

        with pytest.raises(ConfigError) as caught:
            server.bind()

    assert not server.bound
    assert caught.value.faults == (
        f"DNS on 127.0.0.1 port {port}: in use by another process (dns.proxyPort, --dns-port)",
        f"DNS on 192.0.2.1 port {port}: not an address of this host (dns.addresses, --dns-address)",
    )


# ── forwarding ──


async def forwarded(
    forwarder: Forwarder, message: dns.message.Message, *, tcp: bool = False
) -> dns.message.Message:
    try:
        reply = dns.message.from_wire(await forwarder.forward(message.to_wire(), tcp=tcp))
    finally:
        forwarder.close()
        await asyncio.sleep(0.01)
    assert reply.id == message.id
    return reply


@pytest.mark.parametrize("tcp", [False, True])
async def test_an_answer_is_passed_on_as_it_is(tcp: bool) -> None:
    async with upstream(lambda packet, _: answered(packet, rcode=3)) as up:
        reply = await forwarded(forwarder_to(up.address), query("example.org", edns=1232), tcp=tcp)

    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert reply.edns == 0


async def test_queries_leave_with_ids_and_ports_of_their_own() -> None:
    async with upstream(lambda packet, _: resolved(packet)) as up:
        forwarder = forwarder_to(up.address)
        packet = dns.message.make_query("example.org", "A", id=7).to_wire()
        # As many at once as a socket's receive buffer surely holds: the rest would be lost.
        for _ in range(8):
            await asyncio.gather(*(forwarder.forward(packet, tcp=False) for _ in range(50)))
        forwarder.close()

    assert len(set(up.ids)) > 380
    assert len({port for _, port in up.senders}) >= 400 // forward_module.SOCKET_QUERIES_MAX
    assert forwarder.in_flight == 0


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda packet: bytes((packet[0] ^ 1,)) + packet[1:], id="other id"),
        pytest.param(lambda packet: packet.replace(b"example", b"exomple"), id="other question"),
        pytest.param(lambda packet: packet[:2] + b"\1" + packet[3:], id="no reply"),
        pytest.param(lambda packet: packet[:5], id="cut"),
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
async def test_what_does_not_match_the_query_is_no_answer(
    spoil: Callable[[bytes], bytes], tcp: bool
) -> None:
    async with upstream(lambda packet, _: spoil(resolved(packet))) as up:
        forwarder = forwarder_to(up.address, timeout_s=0.1)
        reply = await forwarded(forwarder, query("example.org"), tcp=tcp)

    assert reply.rcode() == dns.rcode.SERVFAIL
    assert forwarder.failures.total() == 2


async def test_the_next_server_is_asked_and_then_preferred() -> None:
    async with (
        upstream(lambda *_: None) as silent,
        upstream(lambda packet, _: answered(packet, rcode=REFUSED)) as refusing,
        upstream(lambda packet, _: resolved(packet)) as good,
    ):
        forwarder = forwarder_to(silent.address, refusing.address, good.address)
        first = await forwarder.forward(query("example.org").to_wire(), tcp=False)
        await forwarder.forward(query("example.net").to_wire(), tcp=False)
        forwarder.close()

    assert addresses_of(dns.message.from_wire(first)) == ["192.0.2.1"]
    assert (len(silent.ids), len(refusing.ids), len(good.ids)) == (1, 1, 2)
    assert forwarder.failures == {"timeout": 1}


async def test_when_all_refuse_the_last_refusal_is_the_answer() -> None:
    async with (
        upstream(lambda packet, _: answered(packet, rcode=REFUSED)) as one,
        upstream(lambda packet, _: answered(packet, rcode=SERVFAIL)) as two,
    ):
        reply = await forwarded(forwarder_to(one.address, two.address), query("example.org"))

    assert reply.rcode() == dns.rcode.SERVFAIL


async def test_a_closed_port_fails_at_once() -> None:
    async with upstream(lambda *_: None) as gone:
        pass
    forwarder = forwarder_to(gone.address, timeout_s=20)

    reply = await forwarded(forwarder, query("example.org"))

    assert reply.rcode() == dns.rcode.SERVFAIL
    assert forwarder.failures == {"unreachable": 2}


@pytest.mark.parametrize(
    "payload,truncated,count", [(512, True, 0), (4096, False, 60), (1400, False, 60)]
)
async def test_a_truncated_answer_is_fetched_over_tcp_for_a_client_that_can_take_it(
    payload: int, truncated: bool, count: int
) -> None:
    def cut(packet: bytes, tcp: bool) -> bytes:
        return resolved(packet, 60) if tcp else answered(packet, flags=TC)

    async with upstream(cut) as up:
        reply = await forwarded(forwarder_to(up.address), query("example.org", edns=payload))

    assert bool(reply.flags & dns.flags.TC) == truncated
    assert len(addresses_of(reply)) == count


async def test_more_than_the_limit_at_once_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "IN_FLIGHT_MAX", 2)
    async with upstream(lambda *_: None) as silent:
        forwarder = forwarder_to(silent.address, timeout_s=0.05)
        packet = query("example.org").to_wire()
        replies = await asyncio.gather(*(forwarder.forward(packet, tcp=False) for _ in range(3)))
        forwarder.close()

    assert {reply[3] & 15 for reply in replies} == {SERVFAIL}
    assert forwarder.failures == {"full": 1, "timeout": 4}


async def test_without_an_upstream_outside_names_are_refused() -> None:
    reply = await forwarded(forwarder_to(), query("example.org"))

    assert reply.rcode() == dns.rcode.REFUSED


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    servers = Servers((), resolv_conf=path, own=lambda server: server.ip == "127.0.0.9")
    absent = servers.current(0.0)
    path.write_text("nameserver 127.0.0.9\nnameserver 192.0.2.1\n")
    unread = servers.current(0.5)
    first = servers.current(1.5)
    path.unlink()

    assert (absent, unread, first) == ((), (), (Address("192.0.2.1", 53),))
    assert servers.current(3.0) == ()


def test_resolv_conf_has_at_most_three_addresses_and_anything_else() -> None:
    text = """
    # nameserver 192.0.2.9
    search example.org
    nameserver
    nameserver dns.example.org
    nameserver 192.0.2.1
    nameserver fe80::1%eth0
    nameserver 192.0.2.3 # third
    nameserver 192.0.2.4
    """

    assert [server.ip for server in parse_resolv_conf(text)] == [
        "192.0.2.1",
        "fe80::1%eth0",
        "192.0.2.3",
    ]


@pytest.mark.parametrize(
    "text,address",
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("fd00::1", ("fd00::1", 53)),
        ("[fd00::1]", ("fd00::1", 53)),
        ("[fd00::1]:5353", ("fd00::1", 5353)),
    ],
)
def test_an_upstream_is_an_address_with_or_without_a_port(
    text: str, address: tuple[str, int]
) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "dns.example.org", "192.0.2.1:0", "192.0.2.1:x", "[fd00::1"])
def test_other_upstreams_are_faults(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)


@pytest.mark.parametrize(
    "server,listening,own",
    [
        (("127.0.0.1", 53), ("127.0.0.1",), True),
        (("127.0.0.1", 54), ("127.0.0.1",), False),
        (("127.0.0.2", 53), ("127.0.0.1",), False),
        (("127.0.0.2", 53), ("0.0.0.0",), True),
        (("::1", 53), ("::",), True),
        (("192.0.2.1", 53), ("0.0.0.0",), False),
    ],
)
def test_a_server_that_is_oneself_is_known(
    server: tuple[str, int], listening: tuple[str, ...], own: bool
) -> None:
    assert is_own(Address(*server), listening, 53) == own
