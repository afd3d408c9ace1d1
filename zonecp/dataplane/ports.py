"""The ports of the mesh's services by address: what SRV queries ask for."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from zonecp.dataplane.outbounds import Change, Outbounds


class Port(NamedTuple):
    name: str
    """Its number if it has no name."""

    number: int


class Ports:
    """An index of the outbounds that are followed, about 150 bytes per service."""

    def __init__(self, outbounds: Outbounds) -> None:
        self._outbounds = outbounds
        self._ids: dict[bytes, tuple[str, ...]] = {}
        """By the last four octets of each address: a VIP's IPv6 form ends with its IPv4 form."""

        outbounds.listen(self._change)
        self._change(Change(list(outbounds), ()))

    @property
    def known(self) -> bool:
        """Whether what is absent is absent from the mesh."""
        return self._outbounds.whole

    def of(self, address: bytes, service: str) -> list[Port]:
        """The ports of a service at one of its packed addresses."""
        found = []
        for outbound_id in self._ids.get(address[-4:], ()):
            outbound = self._outbounds.get(outbound_id)
            if outbound is not None and outbound_id.startswith(service):
                name = outbound_id.removeprefix(service).lstrip("/")
                found.append(Port(name, outbound.port))
        return found

    def _change(self, change: Change) -> None:
        for outbound in change.removed:
            for end in _ends(outbound.vips):
                left = tuple(each for each in self._ids.get(end, ()) if each != outbound.id)
                if left:
                    self._ids[end] = left
                else:
                    self._ids.pop(end, None)
        for outbound in change.put:
            for end in _ends(outbound.vips):
                held = self._ids.get(end, ())
                if outbound.id not in held:
                    self._ids[end] = (*held, outbound.id)


def _ends(vips: tuple[str, ...]) -> set[bytes]:
    found = set()
    for vip in vips:
        try:
            found.add(ip_address(vip).packed[-4:])
        except ValueError:  # the zone's fault, and said where the name's record is rejected
            continue
    return found
