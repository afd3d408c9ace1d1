"""Upstreams' answers, kept for as long as they may be; dnspython makes and reads them."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonecp.dataplane import answers as answers_module
from zonecp.dataplane.answers import Answers, cache_key, lifetime, readdressed
from zonecp.dataplane.message import parse, question_end

SOA = "example.org. {ttl} IN SOA ns. root. 1 2 3 4 {minimum}"


def reply_to(
    query: dns.message.Message,
    *,
    answer: str = "",
    authority: str = "",
    additional: str = "",
    rcode: str = "NOERROR",
) -> bytes:
    given = {"ANSWER": answer, "AUTHORITY": authority, "ADDITIONAL": additional}
    blocks = [f";{name}\n{lines}\n" for name, lines in given.items() if lines]
    sections = dns.message.from_text(f"id {query.id}\n{''.join(blocks)}")
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.from_text(rcode))
    reply.answer, reply.authority = sections.answer, sections.authority
    reply.additional = sections.additional
    return reply.to_wire()


def query(
    name: str = "www.example.org", qtype: str = "A", **options: object
) -> dns.message.Message:
    return dns.message.make_query(name, qtype, **options)  # type: ignore[arg-type]


def kept_for(**sections: str) -> int | None:
    asked = query(use_edns=0)
    found = lifetime(reply_to(asked, **sections), question_end(asked.to_wire()))
    return None if found is None else found[0]


@pytest.mark.parametrize(
    "sections,ttl_s",
    [
        ({"answer": "www.example.org. 60 IN A 192.0.2.1"}, 60),
        ({"answer": "www.example.org. 60 IN A 192.0.2.1\nwww.example.org. 60 IN A 192.0.2.2",
          "additional": "x.example.org. 20 IN A 192.0.2.9"}, 20),
        ({"answer": "www.example.org. 0 IN A 192.0.2.1"}, None),
        ({"rcode": "NXDOMAIN", "authority": SOA.format(ttl=300, minimum=40)}, 40),
        ({"rcode": "NXDOMAIN", "authority": SOA.format(ttl=30, minimum=400)}, 30),
        ({"authority": SOA.format(ttl=300, minimum=50)}, 50),
        ({"answer": "www.example.org. 60 IN CNAME x.example.org.",
          "authority": SOA.format(ttl=300, minimum=50)}, 50),
        ({"rcode": "NXDOMAIN"}, None),
        ({}, None),
        ({"authority": "example.org. 60 IN NS ns.example.org."}, None),
        ({"rcode": "SERVFAIL", "answer": "www.example.org. 60 IN A 192.0.2.1"}, None),
        ({"rcode": "REFUSED"}, None),
    ],
)  # fmt: skip
def test_an_answer_is_kept_for_its_shortest_ttl_and_a_negative_one_by_its_soa(
    sections: dict[str, str], ttl_s: int | None
) -> None:
    assert kept_for(**sections) == ttl_s


def test_a_cut_answer_is_not_kept() -> None:
    asked = query()
    reply = bytearray(reply_to(asked, answer="www.example.org. 60 IN A 192.0.2.1"))
    reply[2] |= 0x02

    assert lifetime(bytes(reply), question_end(asked.to_wire())) is None


@given(st.binary(max_size=100), st.integers(0, 60))
def test_a_damaged_answer_is_not_kept(rest: bytes, cut: int) -> None:
    asked = query()
    whole = reply_to(asked, answer="www.example.org. 60 IN A 192.0.2.1")
    end = question_end(asked.to_wire())

    for damaged in (whole[: end + cut][: len(whole) - 1], whole[:end] + rest):
        found = lifetime(damaged, end)
        assert found is None or all(at + 4 <= len(damaged) for at in found[1])


def held(seconds: float = 100.0, **options: int) -> tuple[Answers, bytes, dns.message.Message]:
    asked = query("wWw.example.org")
    made = Answers(options.get("entries", 10), ttl_s_max=seconds)
    key = cache_key(parse(asked.to_wire()))
    assert key is not None
    reply = reply_to(asked, answer="www.example.org. 60 IN A 192.0.2.1")
    made.put(key, reply, question_end(asked.to_wire()), now_s=1000.0)
    return made, key, asked


@pytest.mark.parametrize("after_s,ttl", [(0.0, 60), (0.9, 60), (1.0, 59), (59.5, 1), (60.0, None)])
def test_ttls_run_down_and_then_the_answer_is_gone(after_s: float, ttl: int | None) -> None:
    made, key, _ = held()

    reply = made.get(key, 1000.0 + after_s)

    found = None if reply is None else dns.message.from_wire(reply).answer[0].ttl
    assert found == ttl
    assert (len(made), made.bytes > 0) == ((0, False) if ttl is None else (1, True))


def test_nothing_is_kept_for_longer_than_the_limit() -> None:
    made, key, _ = held(10.0)

    assert made.get(key, 1009.0) is not None
    assert made.get(key, 1010.0) is None


def test_an_answer_goes_to_another_query_with_its_id_and_case() -> None:
    made, key, _ = held()
    other = query("www.EXAMPLE.org").to_wire()
    reply = made.get(key, 1000.0)

    assert cache_key(parse(other)) == key
    assert reply is not None
    parsed = dns.message.from_wire(readdressed(reply, other, question_end(other)))
    assert parsed.id == dns.message.from_wire(other).id
    assert parsed.question[0].name.to_text() == "www.EXAMPLE.org."
    assert parsed.answer[0][0].to_text() == "192.0.2.1"


def test_queries_that_may_get_other_answers_have_other_keys() -> None:
    cd, ad = query(), query()
    cd.flags |= dns.flags.CD
    ad.flags |= dns.flags.AD
    kinds = [query(), query(qtype="AAAA"), query("x.example.org"), cd, ad, query(use_edns=0),
             query(use_edns=0, want_dnssec=True)]  # fmt: skip
    keys = {cache_key(parse(each.to_wire())) for each in kinds}

    assert len(keys - {None}) == len(kinds)


def test_a_query_with_options_is_asked_each_time() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")

    assert cache_key(parse(query(use_edns=0, options=[cookie]).to_wire())) is None


def test_the_one_longest_unused_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Answers(3, ttl_s_max=100.0)
    keys, size = [], 0
    for number in range(3):
        asked = query(f"n{number}.example.org")
        key = cache_key(parse(asked.to_wire()))
        assert key is not None
        reply = reply_to(asked, answer=f"n{number}.example.org. 60 IN A 192.0.2.1")
        made.put(key, reply, question_end(asked.to_wire()), 0.0)
        keys.append(key)
        size = len(reply)
    assert made.get(keys[0], 1.0) is not None
    asked = query("n3.example.org")
    reply = reply_to(asked, answer="n3.example.org. 60 IN A 192.0.2.1")
    made.put(b"new", reply, question_end(asked.to_wire()), 1.0)

    assert [made.get(key, 1.0) is not None for key in keys] == [True, False, True]
    assert made.bytes == 3 * size
    monkeypatch.setattr(answers_module, "BYTES_MAX", 2 * size)
    made.put(b"newer", reply, question_end(asked.to_wire()), 1.0)
    assert len(made) == 2
    made.clear()
    assert (len(made), made.bytes) == (0, 0)


def test_a_cache_of_nothing_keeps_nothing() -> None:
    made, key, _ = held(entries=0)

    assert made.get(key, 1000.0) is None
