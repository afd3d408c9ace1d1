"""Who wants a legacy name in this zone, who has it, and by which rule: for `_explain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zonemesh.ipam import ipv4_text, ipv6_text
from zonemesh.legacypool import LEGACY
from zonemesh.model import Key, ServiceRef
from zonemesh.vipmap import VipMap

_HOST = "host"


@dataclass(frozen=True, slots=True)
class LegacyClaims:
    """Those of one name of a mesh; the first has it, unless a generator makes it of a service."""

    vipmap: VipMap
    mesh: str
    name: str

    @property
    def keys(self) -> list[str]:
        return self.vipmap.legacy.contenders(self.mesh, self.name)

    @property
    def holder(self) -> ServiceRef | None:
        return next((ServiceRef(LEGACY, key) for key in self.keys), None)

    def why_none(self) -> str | None:
        """Why the mesh has no such names at all, if that is so and the name looks like one."""
        legacy = self.vipmap.legacy
        if legacy.enabled(self.mesh) or not self.name.endswith(f".{legacy.domain}"):
            return None
        return f"mesh {self.mesh} has no legacy names: its meshServices.mode is Exclusive"

    def candidates(self, stronger: str | None) -> Iterator[dict[str, Any]]:
        """As in the answer; `stronger` is the title of a service whose generator made it the name.

        A generator's names come before all legacy ones.
        """
        keys = self.keys
        for key in keys:
            holds = stronger is None and key == keys[0]
            why = "" if holds else _why_lost(self.name, key, keys[0], self.vipmap.legacy.domain)
            if stronger is not None:
                why = f"{stronger} has it: a generator's name goes before legacy ones"
            yield {
                "kind": LEGACY,
                "name": Key.parse(key).name,
                "zone": "",
                "service": key,
                "vips": self._vips(key),
                "names": self._names(key),
                "endpoints": endpoints(self.vipmap, ServiceRef(LEGACY, key)),
                "generator": "",
                "template": "",
                "holds": holds,
                "why": why,
            }

    def warnings(self) -> Iterator[str]:
        """VirtualOutbounds that render this host and lost a port of it."""
        for key in self.keys[:1]:
            for lost in self.vipmap.legacy.conflicts(key):
                if lost.port is not None:
                    loser, winner = (Key.parse(each).name for each in (lost.loser, lost.winner))
                    yield f"port {lost.port}: VirtualOutbound {loser} lost it to {winner}"

    def _names(self, key: str) -> list[str]:
        """Those that it is served under."""
        published = self.vipmap.published.get(self.mesh, {})
        found = ((name, published.get(name)) for name in self.vipmap.legacy.names(key))
        return [name for name, named in found if named is not None and named.key == key]

    def _vips(self, key: str) -> list[str]:
        address = self.vipmap.legacy.address(key)
        return [] if address is None else [ipv4_text(address), ipv6_text(address)]


def legacy_title(key: str) -> str:
    parsed = Key.parse(key)
    return f"The {_what(parsed)} {parsed.name} (legacy, any zone)"


def endpoints(vipmap: VipMap, ref: ServiceRef) -> dict[str, int]:
    """How many stand behind a service of any kind, and are ready."""
    found = [each for outbound in vipmap.outbounds.of(ref) for each in outbound["endpoints"]]
    return {"total": len(found), "ready": sum(bool(each.get("ready", True)) for each in found)}


def _what(key: Key) -> str:
    return _HOST if key.namespace == _HOST else "service tag"


def _why_lost(name: str, loser: str, winner: str, domain: str) -> str:
    """The first of the rules that decides between the two (`legacy`)."""
    ours, theirs, base = Key.parse(loser), Key.parse(winner), name.removesuffix(f".{domain}")
    if theirs.namespace == _HOST:
        rule = "a VirtualOutbound's host goes before a service's name"
    elif theirs.name == base:
        rule = "it is spelled so"
    elif theirs.name.lower() == base != ours.name.lower():
        rule = "its own name goes before another's dotted one"
    else:
        rule = "it comes first by name"
    return f"{legacy_title(winner)} has it: {rule}"
