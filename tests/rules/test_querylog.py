"""Which queries are logged, and how many."""

from __future__ import annotations

import dns.message
import structlog.testing

from zonecp.dataplane.entry import wire_entry
from zonecp.dataplane.message import UDP_BYTES_MAX, wire_name
from zonecp.dataplane.querylog import QueryLog, Resolver, Wanted
from zonecp.dataplane.resolver import Table


class Logged:
    def __init__(self, *, per_s: int = 100) -> None:
        self.now_s = 1000.0
        table = Table(["mesh"])
        table.put(wire_name("a.mesh"), wire_entry([bytes((241, 0, 0, 1))], 60))
        table.loaded = table.complete = True
        self.answer: Resolver = table.answer
        self.log = QueryLog(table.answer, self._install, lambda: self.now_s, per_s=per_s)

    def _install(self, answer: Resolver) -> None:
        self.answer = answer

    def ask(self, *packets: bytes) -> list[dict[str, object]]:
        with structlog.testing.capture_logs() as lines:
            for packet in packets:
                self.answer(packet, UDP_BYTES_MAX)
        return [line for line in lines if line["event"] == "dns_query"]  # type: ignore[misc]


def packet(name: str, qtype: str = "A") -> bytes:
    return dns.message.make_query(name, qtype).to_wire()


def test_a_line_says_what_was_asked_and_what_came_of_it() -> None:
    made = Logged()
    made.log.want(Wanted(2000.0))

    lines = made.ask(
        packet("A.mesh"),
        packet("b.mesh"),
        packet("example.org", "TLSA"),
        b"x",
        packet("a.mesh")[:-1],
    )

    assert [(line["name"], line["type"], line["result"]) for line in lines] == [
        ("a.mesh", "A", "NOERROR"),
        ("b.mesh", "A", "NXDOMAIN"),
        ("example.org", "TYPE52", "forwarded"),
        ("", "", "dropped"),
        ("", "", "FORMERR"),
    ]


def test_while_it_is_off_nothing_stands_before_the_answer() -> None:
    made = Logged()
    plain = made.answer
    made.log.want(Wanted(2000.0))
    on = made.answer
    made.log.want(Wanted())

    assert on != plain
    assert made.answer == plain
    assert not made.ask(packet("a.mesh"))


def test_it_ends_by_itself() -> None:
    made = Logged()
    plain = made.answer
    made.log.want(Wanted(1010.0))
    made.now_s = 1010.0

    assert not made.ask(packet("a.mesh"))
    assert made.answer == plain
    assert not made.log.on


def test_a_sample_is_every_so_many_queries() -> None:
    made = Logged()
    made.log.want(Wanted(2000.0, sample=10))

    assert len(made.ask(*[packet("a.mesh")] * 95)) == 9


def test_no_more_lines_a_second_than_allowed() -> None:
    made = Logged(per_s=5)
    made.log.want(Wanted(2000.0))

    first = made.ask(*[packet("a.mesh")] * 20)
    made.now_s += 1.0
    second = made.ask(*[packet("a.mesh")] * 3)

    assert (len(first), len(second), made.log.suppressed) == (5, 3, 15)
