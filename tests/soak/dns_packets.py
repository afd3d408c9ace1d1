"""`make soak`: any octets at the agent's DNS parsers, guided by coverage (atheris).

Whatever comes: a reply that dnspython can read and that fits, FORWARD for a query that can be
forwarded, or nothing; and an upstream's answer is kept or not, but never breaks anything.
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is missing: there is a wheel for CPython 3.11 to 3.13 on Linux x86_64")

with atheris.instrument_imports(include=["zonecp.dataplane"]):
    from zonecp.dataplane.answers import Answers, cache_key, readdressed
    from zonecp.dataplane.entry import Origin, wire_entry
    from zonecp.dataplane.message import (
        EDNS_BYTES_MAX,
        HEADER_BYTES,
        TCP_BYTES_MAX,
        UDP_BYTES_MAX,
        parse,
        question_end,
        wire_name,
    )
    from zonecp.dataplane.outbounds import Outbound, Outbounds
    from zonecp.dataplane.ports import Ports
    from zonecp.dataplane.resolver import FORWARD, Table
    from zonecp.dataplane.reverse import reverse_domains

import dns.message

KRI = "kri_msvc_default_west__a_"
V4 = bytes((241, 0, 0, 1))


def _table() -> Table:
    outbounds = Outbounds()
    ports = Ports(outbounds)
    outbounds.put([Outbound(id=f"{KRI}x", kind="", vips=("241.0.0.1",), port=80, name="a")])
    outbounds.end()
    table = Table(["mesh", *reverse_domains("241.0.0.0/8")], ports=ports)
    table.put(wire_name("a.mesh"), wire_entry([V4, bytes(12) + V4], 60, Origin("west", KRI)))
    table.put(wire_name("b.a.mesh"), wire_entry([V4] * 200, 60))
    table.loaded = table.complete = True
    return table


TABLE = _table()


def one_input(data: bytes) -> None:
    for size_max in (UDP_BYTES_MAX, TCP_BYTES_MAX):
        reply = TABLE.answer(data, size_max)
        if isinstance(reply, bytes):
            dns.message.from_wire(reply)
            assert len(reply) <= max(size_max, EDNS_BYTES_MAX)
        elif reply is FORWARD:
            _keep(data)


def _keep(query: bytes) -> None:
    """What follows the question, taken for an upstream's answer."""
    end = question_end(query)
    key = cache_key(parse(query))
    reply = query[:2] + b"\x81\x80" + query[4:]
    answers = Answers(2, ttl_s_max=60.0)
    answers.put(key or b"", reply, end, 0.0)
    if (kept := answers.get(key or b"", 1.0)) is not None:
        assert len(readdressed(kept, query, end)) == len(reply) >= HEADER_BYTES


def main() -> None:
    seeds = Path(sys.argv[-1])
    for number, qtype in enumerate(("A", "AAAA", "PTR", "SRV", "ANY", "SOA")):
        for name in ("a.mesh", "1.0.0.241.in-addr.arpa", "_x._tcp.a.mesh", "example.org"):
            query = dns.message.make_query(name, qtype, use_edns=number % 2 - 1)
            (seeds / f"{qtype}-{name}").write_bytes(query.to_wire())
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
