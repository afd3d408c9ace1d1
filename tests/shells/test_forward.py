"""What is asked of real upstreams, and what is made of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.fake_zone import until
from tests.ports import free_port
from tests.upstreams import (
    LOOPBACK,
    NAME,
    TC,
    addresses_of,
    answered,
    forwarder_to,
    query,
    resolved,
    upstream,
)
from zonecp.dataplane import exchange as exchange_module
from zonecp.dataplane import forward as forward_module
from zonecp.dataplane.answers import Answers
from zonecp.dataplane.dns import Server
from zonecp.dataplane.entry import wire_entry
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.loopprobe import TOKEN_BYTES, LoopProbe
from zonecp.dataplane.message import AD, FORMERR, NOTIMP, REFUSED, SERVFAIL, wire_name
from zonecp.dataplane.resolver import Table
from zonecp.dataplane.upstreams import (
    Address,
    Servers,
    is_own,
    parse_address,
    parse_resolv_conf,
)
from zonemesh.errors import ConfigError


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
        # As many at once as a socket's receive buffer surely holds: the rest would be lost.
        for batch in range(8):
            names = [f"n{number}.b{batch}.example.org" for number in range(50)]
            packets = [dns.message.make_query(name, "A", id=7).to_wire() for name in names]
            await asyncio.gather(*(forwarder.forward(each, tcp=False) for each in packets))
        forwarder.close()

    assert len(set(up.ids)) > 380
    assert len({port for _, port in up.senders}) >= 400 // exchange_module.SOCKET_QUERIES_MAX
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


async def test_the_next_server_is_asked_and_a_silent_one_last_from_then_on() -> None:
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
    assert (len(silent.ids), len(refusing.ids), len(good.ids)) == (1, 2, 2)
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
        packets = [query(f"{number}.example.org").to_wire() for number in range(3)]
        replies = await asyncio.gather(*(forwarder.forward(each, tcp=False) for each in packets))
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


@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED, NOTIMP, FORMERR])
async def test_a_server_that_fails_is_passed_over(rcode: int) -> None:
    async with (
        upstream(lambda packet, _: answered(packet, rcode=rcode)) as one,
        upstream(lambda packet, _: resolved(packet)) as two,
    ):
        reply = await forwarded(forwarder_to(one.address, two.address), query("example.org"))

    assert addresses_of(reply) == ["192.0.2.1"]


@pytest.mark.parametrize(
    "alternate,rcode", [(False, dns.rcode.NXDOMAIN), (True, dns.rcode.NOERROR)]
)
async def test_nxdomain_is_an_answer_unless_the_next_server_is_to_be_asked(
    alternate: bool, rcode: dns.rcode.Rcode
) -> None:
    async with (
        upstream(lambda packet, _: answered(packet, rcode=3)) as one,
        upstream(lambda packet, _: resolved(packet)) as two,
    ):
        forwarder = forwarder_to(one.address, two.address, alternate_on_nxdomain=alternate)
        reply = await forwarded(forwarder, query("example.org"))

    assert reply.rcode() == rcode


async def test_an_answer_is_kept_and_a_failure_is_not() -> None:
    failing = True

    def flaky(packet: bytes, _: bool) -> bytes:
        return answered(packet, rcode=SERVFAIL) if failing else resolved(packet)

    async with upstream(flaky) as up:
        forwarder = forwarder_to(up.address, answers=Answers(10, ttl_s_max=60.0))
        rcodes = []
        for failing in (True, False, True, True):
            packet = query("eXample.org").to_wire()
            reply = dns.message.from_wire(await forwarder.forward(packet, tcp=failing))
            assert reply.id == int.from_bytes(packet[:2], "big")
            rcodes.append(reply.rcode())
        forwarder.close()

    assert rcodes == [SERVFAIL, 0, 0, 0]
    assert len(up.ids) == 1  # the failure came over TCP
    assert forwarder.cached == 2


async def test_equal_questions_at_once_are_asked_once() -> None:
    async with upstream(lambda *_: None) as up:
        forwarder = forwarder_to(up.address, timeout_s=5.0)
        packets = [query(name).to_wire() for name in ("example.org", "EXAMPLE.org", "example.org")]
        asked = [asyncio.ensure_future(forwarder.forward(each, tcp=False)) for each in packets]
        await until(lambda: bool(up.queries))
        packet, sender = up.queries[0]
        up.transport.sendto(resolved(packet), sender)
        replies = await asyncio.gather(*asked)
        forwarder.close()

    assert len(up.ids) == 1
    assert forwarder.shared == 2
    for packet, reply in zip(packets, replies, strict=True):
        assert reply[:2] == packet[:2]
        assert reply[12 : len(packet)] == packet[12:]
        assert addresses_of(dns.message.from_wire(reply)) == ["192.0.2.1"]


async def test_who_waits_for_a_question_that_is_broken_off_is_answered() -> None:
    async with upstream(lambda *_: None) as up:
        forwarder = forwarder_to(up.address, timeout_s=5.0)
        packet = query("example.org").to_wire()
        first = asyncio.ensure_future(forwarder.forward(packet, tcp=False))
        await until(lambda: bool(up.queries))
        second = asyncio.ensure_future(forwarder.forward(packet, tcp=False))
        await asyncio.sleep(0)
        first.cancel()
        reply = await second
        forwarder.close()

    assert dns.message.from_wire(reply).rcode() == SERVFAIL


async def test_a_large_answer_is_kept_whole_and_cut_for_who_takes_less() -> None:
    def cut(packet: bytes, tcp: bool) -> bytes:
        return resolved(packet, 60) if tcp else answered(packet, flags=TC)

    async with upstream(cut) as up:
        forwarder = forwarder_to(up.address, answers=Answers(10, ttl_s_max=60.0))
        packet = query("example.org").to_wire()
        over_udp = dns.message.from_wire(await forwarder.forward(packet, tcp=False))
        over_tcp = dns.message.from_wire(await forwarder.forward(packet, tcp=True))
        forwarder.close()

    assert over_udp.flags & dns.flags.TC
    assert (len(addresses_of(over_udp)), len(addresses_of(over_tcp))) == (0, 60)
    assert forwarder.cached == 1


async def test_a_cut_answer_is_better_than_none_where_tcp_is_blocked() -> None:
    async with upstream(lambda packet, tcp: None if tcp else answered(packet, flags=TC)) as up:
        reply = await forwarded(forwarder_to(up.address), query("example.org"))

    assert reply.flags & dns.flags.TC


async def test_flags_go_both_ways() -> None:
    seen = []

    def signed(packet: bytes, _: bool) -> bytes:
        seen.append(dns.message.from_wire(packet))
        reply = bytearray(resolved(packet))
        reply[3] |= AD
        return bytes(reply)

    async with upstream(signed) as up:
        message = dns.message.make_query("example.org", "A", want_dnssec=True)
        message.flags |= dns.flags.CD | dns.flags.AD
        reply = await forwarded(forwarder_to(up.address), message)

    assert seen[0].flags & dns.flags.CD
    assert seen[0].ednsflags & dns.flags.DO
    assert reply.flags & dns.flags.AD


SECRET = bytes(range(2 * TOKEN_BYTES))


async def test_an_upstream_that_asks_this_agent_again_is_found_and_asked_no_more() -> None:
    """Agent → another forwarder → agent; names of the mesh go on."""
    port = free_port()
    to_agent = Address(LOOPBACK, port)
    transport, other = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Relaying(to_agent), local_addr=(LOOPBACK, 0)
    )
    back = Address(*transport.get_extra_info("sockname"))
    forwarder = forwarder_to(back, timeout_s=0.3)
    probe = LoopProbe(forwarder, SECRET)
    table = Table(["mesh.local"])
    table.put(wire_name(NAME), wire_entry([bytes((241, 0, 0, 1))], 60))
    server = Server(table, forwarder, addresses=(LOOPBACK,), port=port, own_probe=probe.answer)
    server.bind()
    tasks = [asyncio.ensure_future(each()) for each in (server.run, probe.run)]
    try:
        await until(lambda: back in forwarder.looping)
        outside = await dns.asyncquery.udp(query("example.org"), LOOPBACK, port=port, timeout=5)
        inside = await dns.asyncquery.udp(query(NAME), LOOPBACK, port=port, timeout=5)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        forwarder.close()
        transport.close()
        other.close()
        await asyncio.sleep(0)

    assert outside.rcode() == dns.rcode.REFUSED
    assert addresses_of(inside) == ["241.0.0.1"]


async def test_an_upstream_that_answers_anything_is_no_loop() -> None:
    def wildcard(packet: bytes, _: bool) -> bytes:
        asked.append(packet)
        return answered(packet, rcode=3)

    asked: list[bytes] = []
    async with upstream(wildcard) as up:
        forwarder = forwarder_to(up.address)
        probing = asyncio.ensure_future(LoopProbe(forwarder, SECRET).run())
        await until(lambda: bool(asked))
        probing.cancel()
        await asyncio.wait({probing})
        await asyncio.sleep(0)

    assert not forwarder.looping
    assert LoopProbe(forwarder, SECRET[::-1]).answer(asked[0]) is None
    assert LoopProbe(forwarder, SECRET).answer(asked[0]) is not None
    assert LoopProbe(forwarder, SECRET).answer(asked[0][:-3]) is None


class Relaying(asyncio.DatagramProtocol):
    """A forwarder that knows one server."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._asking: dict[bytes, tuple[str, int]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr == self._server:
            self._transport.sendto(data, self._asking[data[:2]])
        else:
            self._asking[data[:2]] = addr
            self._transport.sendto(data, self._server)

    def close(self) -> None:
        self._asking.clear()


def test_where_resolv_conf_names_only_the_agent_what_it_named_before_is_asked(
    tmp_path: Path,
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.9\n")
    (tmp_path / "resolv.conf.before-zonedp").write_text("nameserver 192.0.2.1\n")
    servers = Servers((), resolv_conf=path, own=lambda server: server.ip == "127.0.0.9")

    assert servers.current(0.0) == (Address("192.0.2.1", 53),)
