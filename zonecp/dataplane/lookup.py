"""What the agent answers for a name, and why: from its map, an upstream or its cache."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from zonecp.dataplane.entry import origin_of
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.message import TCP_BYTES_MAX, wire_name
from zonecp.dataplane.resolver import Table
from zonemesh.errors import InputError

_REVERSE = ("in-addr.arpa", "ip6.arpa")


class Lookup:
    """Asks the same table and the same upstreams as a client's query, and counts as one."""

    def __init__(
        self, table: Table, forwarder: Forwarder, state: FeedState, clock: Callable[[], float]
    ) -> None:
        self._table = table
        self._forwarder = forwarder
        self._state = state
        self._clock = clock

    async def __call__(self, name: str, qtype: str) -> dict[str, Any]:
        """One name and type; an address is looked up as PTR.

        Raises:
            InputError: No name, or no type of record.
        """
        # 10 MB that an agent that is not asked has no use for.
        import dns.exception  # noqa: PLC0415
        import dns.message  # noqa: PLC0415
        import dns.rcode  # noqa: PLC0415

        name, qtype = _reversed(name, qtype)
        key = wire_name(name)
        try:
            query = dns.message.make_query(name, qtype, use_edns=0, payload=1232)
        except dns.exception.DNSException as error:
            raise InputError(f"{name} {qtype}: {error}") from None
        packet = query.to_wire()
        reply = self._table.answer(packet, TCP_BYTES_MAX)
        if isinstance(reply, bytes):
            source = self._of_map(key)
        else:
            resolved = await self._forwarder.resolve(packet, tcp=True)
            reply, source = resolved.reply, _of_upstream(resolved.source)
        parsed = dns.message.from_wire(reply)
        records = [f"{rrset.name} {rrset.ttl} {record.rdtype.name} {record}"
                   for rrset in parsed.answer for record in rrset]  # fmt: skip
        return {
            "name": name,
            "type": qtype,
            "status": dns.rcode.to_text(parsed.rcode()),
            "answers": records,
            **source,
        }

    def _of_map(self, key: bytes) -> dict[str, Any]:
        entry = self._table.get(key)
        origin = None if entry is None else origin_of(entry)
        return {
            "source": "map" if self._table.loaded else "no map yet",
            **({} if origin is None else {"service": origin.service, "zone": origin.zone}),
            "map": self._state.describe(self._clock()),
        }


def _of_upstream(source: str) -> dict[str, Any]:
    if source in ("", "cache"):
        return {"source": source or "no upstream answered"}
    return {"source": "upstream", "upstream": source}


def _reversed(name: str, qtype: str) -> tuple[str, str]:
    try:
        return ip_address(name).reverse_pointer, "PTR"
    except ValueError:
        reverse = name.lower().rstrip(".").endswith(_REVERSE)
        return name, "PTR" if reverse and qtype == "A" else qtype.upper()
