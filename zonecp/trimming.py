"""One data plane's own feed: the shared events of its mesh, less what it may not reach.

Events are encoded once for everybody. A trimmed subscriber's are decoded again and filtered, which
costs only those who are trimmed, and they keep nothing but the names they have been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from zonemesh.legacymap import Named
from zonemesh.legacypool import LEGACY
from zonemesh.model import ServiceRef
from zonemesh.reach import Reach
from zonemesh.resources.catalogue import KINDS
from zonemesh.rest.document import parse_kri
from zonemesh.vipmap import VipMap

_BY_SHORT = {kind.short: kind.name for kind in KINDS.values() if kind.pool}
_DATA = b"\ndata: "
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class View:
    """What a subscriber has been sent, and what of an event it is sent next."""

    def __init__(self, vipmap: VipMap, reach: Reach) -> None:
        self._vipmap = vipmap
        self._reach = reach
        self._names: set[str] = set()
        self._services: set[str] = set()
        self._at = ""

    def names(self, published: Mapping[str, Named], revision: str) -> dict[str, Named]:
        """The part of a whole map; the view begins anew with it."""
        found = {
            name: named
            for name, named in published.items()
            if self._allows(ServiceRef(named.kind, named.key))
        }
        self._names, self._services, self._at = set(found), set(), revision
        return found

    def outbounds(self, refs: list[ServiceRef]) -> list[ServiceRef]:
        """The part of the services of a whole map."""
        found = [ref for ref in refs if self._allows(ref)]
        self._services = {self._vipmap.outbounds.ids(ref) for ref in found}
        return found

    def has_port(self, ref: ServiceRef, port: int) -> bool:
        return self._allows(ref, port)

    def event(self, event: bytes) -> bytes | None:
        """A delta of the mesh as this subscriber is to have it; None: nothing in it is for it."""
        head, _, data = event.partition(_DATA)
        body = _decode(data.removesuffix(b"\n\n"))
        put = [record for record in body["put"] if self._allows(_ref(record["service"]))]
        kept = {record["name"] for record in put}
        dropped = {record["name"] for record in body["put"]} - kept
        remove = sorted(name for name in {*body["remove"], *dropped} if name in self._names)
        self._names = (self._names | kept).difference(remove)
        found: dict[str, Any] = {"put": put, "remove": remove}
        if "putOutbounds" in body:
            found |= self._outbound_changes(body)
        if not any(found.values()):
            return None
        found = {"from": self._at, "to": body["to"], **found}
        self._at = body["to"]
        return head + _DATA + _encode(found) + b"\n\n"

    def _outbound_changes(self, body: Mapping[str, Any]) -> dict[str, Any]:
        put = [each for each in body["putOutbounds"] if self._allows(*_port(each))]
        gone = [each for each in body["removeOutbounds"] if each in self._services]
        self._services.difference_update(gone)
        self._services.update(self._vipmap.outbounds.ids(_ref(each["id"])) for each in put)
        return {"putOutbounds": put, "removeOutbounds": gone}

    def _allows(self, ref: ServiceRef, port: int | None = None) -> bool:
        return self._reach.allows(ref.kind, ref.key, self._labels, port)

    def _labels(self, kind: str, key: str) -> Mapping[str, str]:
        return self._vipmap.labels(ServiceRef(kind, key))


Viewer = Callable[[], Reach | None]
"""A data plane's reach as of now; the same object as long as nothing has changed."""


def _ref(kri: str) -> ServiceRef:
    if not kri.startswith("kri_"):  # a legacy name's key, and in the id of an outbound its port
        return ServiceRef(LEGACY, "/".join(kri.split("/")[:4]))
    short, key = parse_kri(kri)
    return ServiceRef(_BY_SHORT[short], key.packed)


def _port(outbound: Mapping[str, Any]) -> tuple[ServiceRef, int]:
    return _ref(outbound["id"]), outbound["port"]
