"""Query bytes in, reply bytes out; dnspython says whether the bytes mean what they should."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zonecp.dataplane.entry import Origin, is_entry, origin_of, wire_entry
from zonecp.dataplane.message import (
    EDNS_BYTES_MAX,
    TCP_BYTES_MAX,
    UDP_BYTES_MAX,
    parse,
    question_end,
    refusal,
    text_name,
    udp_limit,
    wire_name,
)
from zonecp.dataplane.outbounds import Outbound, Outbounds
from zonecp.dataplane.ports import Ports
from zonecp.dataplane.resolver import FORWARD, Table
from zonecp.dataplane.reverse import reverse_domains
from zonemesh.errors import InputError

REDIS = "redis.svc.west.mesh.local"
V4 = bytes((241, 1, 2, 3))
V6 = bytes.fromhex("fd00fd00000000000000000000010203")[:12] + V4
SOA_MINIMUM = 17


def table(
    *, loaded: bool = True, forward_unknown: bool = False, ports: Ports | None = None
) -> Table:
    made = Table(
        ["mesh", "mesh.local", *reverse_domains("241.0.0.0/8")],
        negative_ttl_s=SOA_MINIMUM,
        forward_unknown=forward_unknown,
        ports=ports,
    )
    made.put(wire_name(REDIS), wire_entry([V4, V6], 60))
    made.put(wire_name("v4only.mesh"), wire_entry([V4], 5))
    made.put(wire_name("api.example.org"), wire_entry([V4], 5))
    made.put(wire_name("many.mesh"), wire_entry([bytes((241, 0, 0, i)) for i in range(100)], 60))
    made.put(wire_name("two.mesh"), wire_entry([V4, bytes((241, 9, 9, 9))], 60))
    made.loaded = made.complete = loaded
    return made


def ask(
    made: Table, query: dns.message.Message, size_max: int = UDP_BYTES_MAX
) -> dns.message.Message:
    reply = made.answer(query.to_wire(), size_max)
    assert isinstance(reply, bytes)
    parsed = dns.message.from_wire(reply)
    assert parsed.id == query.id
    assert parsed.flags & dns.flags.QR
    return parsed


def texts(reply: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]


@pytest.mark.parametrize("edns", [None, 0], ids=["plain", "edns"])
@pytest.mark.parametrize("qtype,address", [("A", "241.1.2.3"), ("AAAA", "fd00:fd00::f101:203")])
def test_a_known_name_has_its_address(edns: int | None, qtype: str, address: str) -> None:
    query = dns.message.make_query(REDIS, qtype, use_edns=edns)

    reply = ask(table(), query)

    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RA
    assert reply.flags & dns.flags.RD
    assert texts(reply) == [address]
    assert reply.answer[0].ttl == 60
    assert reply.edns == (-1 if edns is None else 0)
    assert query.is_response(reply)


def test_a_name_is_found_in_any_case_and_echoed_in_its_own() -> None:
    query = dns.message.make_query("rEdIs.SVC.west.Mesh.LOCAL", "A")

    reply = ask(table(), query)

    assert texts(reply) == ["241.1.2.3"]
    assert reply.question[0].name.to_text() == "rEdIs.SVC.west.Mesh.LOCAL."


@pytest.mark.parametrize("size_max", [UDP_BYTES_MAX, TCP_BYTES_MAX])
def test_rd_is_copied_and_ad_and_z_are_not(size_max: int) -> None:
    query = dns.message.make_query(REDIS, "A")
    query.flags = dns.flags.AD | dns.flags.CD

    reply = ask(table(), query, size_max)

    assert not reply.flags & (dns.flags.RD | dns.flags.AD)
    assert reply.flags & dns.flags.CD


@pytest.mark.parametrize(
    "name,qtype,owner",
    [
        ("v4only.mesh", "AAAA", "mesh."),
        (REDIS, "MX", "mesh.local."),
        (REDIS, "HTTPS", "mesh.local."),
        ("api.example.org", "TXT", "api.example.org."),
    ],
)
def test_another_type_of_a_known_name_is_nodata_with_soa(name: str, qtype: str, owner: str) -> None:
    reply = ask(table(), dns.message.make_query(name, qtype))

    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.answer == []
    (soa,) = reply.authority
    assert (soa.name.to_text(), soa.rdtype, soa.ttl) == (owner, dns.rdatatype.SOA, SOA_MINIMUM)
    assert soa[0].minimum == SOA_MINIMUM


def test_any_is_every_address() -> None:
    reply = ask(table(), dns.message.make_query(REDIS, "ANY"))

    assert texts(reply) == ["241.1.2.3", "fd00:fd00::f101:203"]


def reverse(address: str) -> dns.message.Message:
    return dns.message.make_query(dns.reversename.from_address(address), "PTR")


def test_an_address_has_the_names_that_have_it_the_shortest_first() -> None:
    made = table()

    for address in ("241.1.2.3", "fd00:fd00::f101:203"):
        reply = ask(made, reverse(address))
        assert reply.flags & dns.flags.AA
        assert texts(reply) == (
            ["two.mesh.", "v4only.mesh.", "api.example.org.", f"{REDIS}."]
            if "." in address
            else [f"{REDIS}."]
        )
    assert texts(ask(made, reverse("241.9.9.9"))) == ["two.mesh."]
    assert texts(ask(made, dns.message.make_query("9.9.9.241.IN-addr.ARPA", "PTR"))) == [
        "two.mesh."
    ]


def test_an_address_that_moves_takes_its_reverse_name_with_it() -> None:
    made = table()
    other = bytes((241, 7, 7, 7))

    made.put(wire_name("two.mesh"), wire_entry([other, bytes(15) + b"\1"], 60))

    assert texts(ask(made, reverse("241.7.7.7"))) == ["two.mesh."]
    assert texts(ask(made, reverse("::1"))) == ["two.mesh."]
    assert ask(made, reverse("241.9.9.9")).rcode() == dns.rcode.NXDOMAIN
    assert "two.mesh." not in texts(ask(made, reverse("241.1.2.3")))


def test_a_reverse_name_has_only_ptr_records() -> None:
    reply = ask(table(), dns.message.make_query("9.9.9.241.in-addr.arpa", "A"))

    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.answer == []
    assert reply.authority[0].name.to_text() == "241.in-addr.arpa."


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_addresses_of_others_are_forwarded(address: str) -> None:
    assert table().answer(reverse(address).to_wire(), UDP_BYTES_MAX) is FORWARD


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.mesh", "b.mesh", "c.mesh"]),
            st.lists(st.sampled_from([V4, V6, bytes(16), bytes((241, 0, 0, 1))]), unique=True),
        ),
        max_size=12,
    )
)
def test_reverse_names_are_those_of_the_names_held(
    changes: list[tuple[str, list[bytes]]],
) -> None:
    made = Table([])
    held: dict[str, list[bytes]] = {}
    for name, addresses in changes:
        if addresses:
            made.put(wire_name(name), wire_entry(addresses, 60))
            held[name] = addresses
        else:
            made.remove(wire_name(name))
            held.pop(name, None)

    for address in (V4, V6, bytes(16), bytes((241, 0, 0, 1))):
        wanted = sorted(wire_name(name) for name, had in held.items() if address in had)
        assert made.names_of(address) == wanted
    for name in held:
        made.remove(wire_name(name))
    assert not made._reverse._keys
    assert not made._below


KRI, OTHER = "kri_msvc_default_west__redis_", "kri_msvc_default_west__other_"


def followed(*, whole: bool = True) -> Ports:
    outbounds = Outbounds()
    ports = Ports(outbounds)
    vips = ("241.1.2.3", "fd00:fd00::f101:203")
    for outbound_id, port in ((f"{KRI}Client", 6379), (f"{KRI}9121", 9121), (f"{OTHER}x", 1)):
        made = Outbound(id=outbound_id, kind="MeshService", vips=vips, port=port, name="redis")
        outbounds.put([made])
    if whole:
        outbounds.end()
    return ports


def with_services(*, whole: bool = True) -> Table:
    made = table(ports=followed(whole=whole))
    made.put(wire_name(REDIS), wire_entry([V4, V6], 60, Origin("west", KRI)))
    return made


@pytest.mark.parametrize(
    "label,port", [("_client", 6379), ("_6379", 6379), ("_9121", 9121), ("_CLIENT", 6379)]
)
def test_a_port_of_a_service_has_an_srv_record_with_its_addresses(label: str, port: int) -> None:
    reply = ask(with_services(), dns.message.make_query(f"{label}._tcp.{REDIS}", "SRV"))

    assert texts(reply) == [f"0 0 {port} {REDIS}."]
    assert reply.answer[0].ttl == 60
    assert {(rrset.name.to_text(), rrset[0].to_text()) for rrset in reply.additional} == {
        (f"{REDIS}.", "241.1.2.3"),
        (f"{REDIS}.", "fd00:fd00::f101:203"),
    }


@pytest.mark.parametrize(
    "name,qtype,rcode",
    [
        (f"_tcp.{REDIS}", "SRV", "NOERROR"),
        (f"_client._tcp.{REDIS}", "A", "NOERROR"),
        (f"_x._tcp.{REDIS}", "SRV", "NXDOMAIN"),
        (f"_client._udp.{REDIS}", "SRV", "NXDOMAIN"),
        ("_client._tcp.v4only.mesh", "SRV", "NXDOMAIN"),
        ("_client._tcp.nobody.mesh", "SRV", "NXDOMAIN"),
        (REDIS, "SRV", "NOERROR"),
    ],
)
def test_other_service_names_have_nothing(name: str, qtype: str, rcode: str) -> None:
    reply = ask(with_services(), dns.message.make_query(name, qtype))

    assert (dns.rcode.to_text(reply.rcode()), reply.answer) == (rcode, [])
    assert reply.authority[0].rdtype == dns.rdatatype.SOA


def test_before_the_ports_are_known_service_names_fail() -> None:
    made = with_services(whole=False)

    reply = ask(made, dns.message.make_query(f"_client._tcp.{REDIS}", "SRV"))

    assert reply.rcode() == dns.rcode.SERVFAIL


def test_service_names_do_not_exist_where_ports_are_not_followed() -> None:
    reply = ask(table(), dns.message.make_query(f"_client._tcp.{REDIS}", "SRV"))

    assert reply.rcode() == dns.rcode.NXDOMAIN


def test_addresses_beside_an_srv_record_are_left_out_where_they_do_not_fit() -> None:
    made = with_services()
    many = [bytes((241, 1, 2, i)) for i in range(3, 60)]
    made.put(wire_name(REDIS), wire_entry(many, 60, Origin("west", KRI)))

    reply = ask(made, dns.message.make_query(f"_client._tcp.{REDIS}", "SRV"))

    assert len(texts(reply)) == 1
    assert reply.additional == []
    assert not reply.flags & dns.flags.TC


def test_several_addresses_keep_their_order() -> None:
    assert texts(ask(table(), dns.message.make_query("two.mesh", "A"))) == [
        "241.1.2.3",
        "241.9.9.9",
    ]


def test_what_does_not_fit_is_truncated_and_whole_over_tcp() -> None:
    query = dns.message.make_query("many.mesh", "A", use_edns=0, payload=4096)

    over_udp = ask(table(), query)
    over_tcp = ask(table(), query, TCP_BYTES_MAX)

    assert over_udp.flags & dns.flags.TC
    assert over_udp.answer == []
    assert not over_tcp.flags & dns.flags.TC
    assert len(texts(over_tcp)) == 100


def test_a_client_with_edns_gets_more_than_512_octets() -> None:
    made = table()
    made.put(wire_name("some.mesh"), wire_entry([bytes((241, 0, 0, i)) for i in range(40)], 60))

    plain = ask(made, dns.message.make_query("some.mesh", "A"))
    edns = ask(made, dns.message.make_query("some.mesh", "A", use_edns=0, payload=1232))

    assert plain.flags & dns.flags.TC
    assert len(texts(edns)) == 40


@pytest.mark.parametrize(
    "name", ["example.com", "redis", "xmesh.local", "redis.svc.mesh.local.lan"]
)
def test_a_name_of_no_mesh_domain_is_forwarded(name: str) -> None:
    query = dns.message.make_query(name, "A", use_edns=0).to_wire()

    assert table().answer(query, UDP_BYTES_MAX) is FORWARD


@pytest.mark.parametrize(
    "name,owner",
    [
        ("other.mesh.local", "mesh.local."),
        ("x.v4only.mesh", "mesh."),
        ("8.9.9.241.in-addr.arpa", "241.in-addr.arpa."),
        ("1.1.2.3.241.in-addr.arpa", "241.in-addr.arpa."),
    ],
)
def test_a_name_that_the_mesh_lacks_does_not_exist_and_soa_says_for_how_long(
    name: str, owner: str
) -> None:
    reply = ask(table(), dns.message.make_query(name, "A"))

    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert reply.flags & dns.flags.AA
    (soa,) = reply.authority
    assert (soa.name.to_text(), soa.ttl, soa[0].minimum) == (owner, SOA_MINIMUM, SOA_MINIMUM)


def test_a_name_that_the_mesh_lacks_may_be_asked_outside_once_there_is_a_map() -> None:
    query = dns.message.make_query("other.mesh.local", "A").to_wire()
    made = table(forward_unknown=True)
    early = table(forward_unknown=True, loaded=False)

    assert made.answer(query, UDP_BYTES_MAX) is FORWARD
    assert ask(early, dns.message.from_wire(query)).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    "name", ["mesh.local", "west.mesh.local", "svc.west.mesh.local", "mesh", "2.241.in-addr.arpa"]
)
@pytest.mark.parametrize("qtype", ["A", "NS"])
def test_what_names_are_below_of_exists_and_has_nothing(name: str, qtype: str) -> None:
    reply = ask(table(), dns.message.make_query(name, qtype))

    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.answer == []
    assert reply.authority[0].rdtype == dns.rdatatype.SOA


def test_what_names_were_below_of_goes_with_the_last_of_them() -> None:
    made = table()
    made.put(wire_name("other.svc.west.mesh.local"), wire_entry([V4], 60))
    query = dns.message.make_query("svc.west.mesh.local", "A")

    rcodes = [ask(made, query).rcode()]
    for name in ("other.svc.west.mesh.local", REDIS):
        made.remove(wire_name(name))
        rcodes.append(ask(made, query).rcode())

    assert rcodes == [dns.rcode.NOERROR, dns.rcode.NOERROR, dns.rcode.NXDOMAIN]


def test_a_name_above_a_shadowing_one_is_not_the_meshs() -> None:
    query = dns.message.make_query("example.org", "A").to_wire()

    assert table().answer(query, UDP_BYTES_MAX) is FORWARD


def test_a_mesh_domain_has_an_soa() -> None:
    reply = ask(table(), dns.message.make_query("mesh.local", "SOA"))

    assert texts(reply)[0].startswith("ns.mesh.local. hostmaster.mesh.local. 1 ")


def test_before_the_first_map_names_of_the_mesh_fail_and_others_are_forwarded() -> None:
    made = table(loaded=False)

    reply = ask(made, dns.message.make_query("Other.Mesh.Local", "A"))
    outside = made.answer(dns.message.make_query("xmesh.org", "A").to_wire(), UDP_BYTES_MAX)
    label = made.answer(dns.message.make_query("smesh.localx", "A").to_wire(), UDP_BYTES_MAX)

    assert reply.rcode() == dns.rcode.SERVFAIL
    assert outside is FORWARD
    assert label is FORWARD


def test_what_a_map_from_disk_lacks_is_not_denied_until_the_zone_has_confirmed_it() -> None:
    made = table()
    made.complete = False

    lacking = ask(made, dns.message.make_query("new.mesh.local", "A"))
    known = ask(made, dns.message.make_query("v4only.mesh", "A"))
    nodata = ask(made, dns.message.make_query("v4only.mesh", "AAAA"))

    assert lacking.rcode() == dns.rcode.SERVFAIL
    assert [lacking.answer, nodata.answer] == [[], []]
    assert known.answer
    assert nodata.rcode() == dns.rcode.NOERROR


def test_another_edns_version_is_badvers() -> None:
    reply = ask(table(), dns.message.make_query(REDIS, "A", use_edns=1))

    assert reply.rcode() == dns.rcode.BADVERS
    assert (reply.edns, reply.payload) == (0, EDNS_BYTES_MAX)


def test_edns_options_are_taken_and_dnssec_ok_is_copied() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    query = dns.message.make_query(REDIS, "A", use_edns=0, options=[cookie], want_dnssec=True)

    reply = ask(table(), query)

    assert texts(reply) == ["241.1.2.3"]
    assert reply.ednsflags & dns.flags.DO
    assert reply.options == ()


@pytest.mark.parametrize("name", [REDIS, "version.bind"])
def test_another_class_is_refused(name: str) -> None:
    reply = ask(table(), dns.message.make_query(name, "TXT", dns.rdataclass.CH))

    assert reply.rcode() == dns.rcode.REFUSED


def test_another_opcode_is_not_implemented() -> None:
    query = dns.message.make_query(REDIS, "SOA")
    query.set_opcode(dns.opcode.NOTIFY)

    reply = table().answer(query.to_wire(), UDP_BYTES_MAX)

    assert isinstance(reply, bytes)
    assert dns.message.from_wire(reply).rcode() == dns.rcode.NOTIMP
    assert dns.message.from_wire(reply).opcode() == dns.opcode.NOTIFY


QUERY = dns.message.make_query(REDIS, "A", id=1).to_wire()
EDNS_QUERY = dns.message.make_query(REDIS, "A", use_edns=0, id=1).to_wire()
OPT_BYTES = 11


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(QUERY[:4] + b"\0\2" + QUERY[6:] + QUERY[12:], id="two questions"),
        pytest.param(QUERY[:4] + b"\0\0" + QUERY[6:12], id="no question"),
        pytest.param(QUERY[:12] + b"\xc0\x0c\0\1\0\1", id="pointer"),
        pytest.param(QUERY[:12] + b"\x05redis\xc0\x0c\0\1\0\1", id="pointer after a label"),
        pytest.param(QUERY[:12] + b"\x40" + QUERY[13:], id="label of 64"),
        pytest.param(QUERY[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", id="name of 257"),
        pytest.param(QUERY[:-1], id="cut in the question"),
        pytest.param(QUERY[:12], id="cut behind the header"),
        pytest.param(QUERY + b"\0", id="octets behind the end"),
        pytest.param(EDNS_QUERY[:-1], id="cut in OPT"),
        pytest.param(
            EDNS_QUERY[:11] + b"\2" + EDNS_QUERY[12:] + EDNS_QUERY[-OPT_BYTES:], id="two OPT"
        ),
        pytest.param(
            EDNS_QUERY[:-OPT_BYTES] + b"\1a" + EDNS_QUERY[-OPT_BYTES:], id="OPT with an owner"
        ),
    ],
)
def test_a_malformed_query_with_a_header_is_formerr(packet: bytes) -> None:
    reply = table().answer(packet, UDP_BYTES_MAX)

    assert isinstance(reply, bytes)
    assert reply[:2] == packet[:2]
    assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize("packet", [b"", QUERY[:11], QUERY[:2] + b"\x81" + QUERY[3:]])
def test_what_is_no_query_is_dropped(packet: bytes) -> None:
    assert table().answer(packet, UDP_BYTES_MAX) is None


headers = st.tuples(
    st.binary(min_size=2, max_size=2),
    st.sampled_from([b"\1\0", b"\0\0", b"\1\x20", b"\1\x10", b"\0\x90", b"\x28\0", b"\x81\0"]),
    st.sampled_from([b"\0\1", b"\0\0", b"\0\2"]),
    st.sampled_from([b"\0" * 6, b"\0" * 5 + b"\1", b"\0\1" + b"\0" * 4]),
).map(b"".join)
names = st.one_of(
    st.sampled_from([wire_name(REDIS), wire_name("many.mesh"), wire_name("x.mesh"), b"\0"]),
    st.binary(max_size=80),
)
tails = st.sampled_from(
    [b"\0\1\0\1", b"\0\x1c\0\1", b"\0\xff\0\1", b"\0\xfc\0\1", b"\0\1\0\3", b""]
)
additional = st.sampled_from([b"", EDNS_QUERY[-OPT_BYTES:], EDNS_QUERY[-OPT_BYTES:-3], b"\0"])
packets = st.one_of(
    st.binary(max_size=600), st.tuples(headers, names, tails, additional).map(b"".join)
)


@given(packets, st.booleans(), st.sampled_from([UDP_BYTES_MAX, TCP_BYTES_MAX]))
@example(QUERY, True, UDP_BYTES_MAX)
@example(EDNS_QUERY, False, UDP_BYTES_MAX)
def test_any_packet_gets_a_reply_that_parses_and_fits(
    packet: bytes, loaded: bool, size_max: int
) -> None:
    reply = table(loaded=loaded).answer(packet, size_max)

    if reply is FORWARD:
        assert question_end(packet) <= len(packet)
        assert udp_limit(parse(packet)) >= UDP_BYTES_MAX
        reply = refusal(packet, 2)
    if reply is not None:
        parsed = dns.message.from_wire(reply)
        assert parsed.flags & dns.flags.QR
        assert reply[:2] == packet[:2]
        assert len(reply) <= max(size_max, EDNS_BYTES_MAX)


@given(packets)
def test_every_packet_is_counted_once(packet: bytes) -> None:
    made = table()

    made.answer(packet, UDP_BYTES_MAX)

    assert made.answered_a + made.answered_aaaa + made.others.total() == 1


labels = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=63)


@given(
    st.lists(labels, min_size=1, max_size=6).map(".".join).filter(lambda name: len(name) <= 253),
    st.lists(st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))),
    st.integers(0, 2**31 - 1),
)
def test_what_is_put_is_what_items_gives(name: str, addresses: list[bytes], ttl_s: int) -> None:
    made = Table([])
    entry = wire_entry(addresses, ttl_s)

    changed = made.put(wire_name(name), entry)
    again = made.put(wire_name(name + "."), entry)

    ((found, found_addresses, found_ttl_s),) = made.items()
    assert (changed, again) == (True, False)
    assert found == name.lower()
    assert sorted(found_addresses) == sorted(addresses)
    assert found_ttl_s == (ttl_s if addresses else 0)
    assert is_entry(wire_name(name), entry)
    assert origin_of(wire_entry(addresses, ttl_s, Origin("w", "kri_x_"))) == ("w", "kri_x_")
    assert text_name(wire_name(name)) == name.lower()


def test_a_removed_name_does_not_exist() -> None:
    made = table()

    assert REDIS in made
    assert made.remove(wire_name(REDIS))
    assert not made.remove(wire_name(REDIS))
    assert ask(made, dns.message.from_wire(QUERY)).rcode() == dns.rcode.NXDOMAIN
    assert len(made) == len(made.keys()) == 4


@pytest.mark.parametrize("name", ["", ".", "a..b", ".a", "a" * 64, "ä.mesh", "a." * 127 + "ab"])
def test_what_no_query_can_ask_for_is_no_name(name: str) -> None:
    with pytest.raises(InputError):
        wire_name(name)


@pytest.mark.parametrize(
    "addresses,ttl_s",
    [([b"123"], 1), ([V4] * 256, 1), ([V4], -1), ([V4], 1 << 31)],
)
def test_an_entry_that_does_not_fit_the_format_is_refused(
    addresses: list[bytes], ttl_s: int
) -> None:
    with pytest.raises(InputError):
        wire_entry(addresses, ttl_s)


@pytest.mark.parametrize(
    "key,entry",
    [
        (wire_name(REDIS), b""),
        (wire_name(REDIS), wire_entry([V4], 1)[:-1]),
        (wire_name(REDIS).upper(), wire_entry([V4], 1)),
        (wire_name(REDIS)[:-1], wire_entry([V4], 1)),
        (b"\x3f\0", wire_entry([V4], 1)),
        (b"\0", wire_entry([V4], 1)),
    ],
)
def test_a_damaged_pair_is_no_entry(key: bytes, entry: bytes) -> None:
    assert not is_entry(key, entry)
