"""Legacy names as one zone serves them: who has each, at which address, and what stands behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from zonemesh.endpoints import Ingresses
from zonemesh.ipam import Binding
from zonemesh.legacy import Conflict, LegacyIndex
from zonemesh.legacyoutbounds import Surroundings, outbound
from zonemesh.legacypool import LEGACY, LEGACY_VIP
from zonemesh.members import DATAPLANE
from zonemesh.model import Record, zone_of
from zonemesh.registry import Registry
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings, zone_key


class Named(NamedTuple):
    """What a name stands for."""

    address: int
    kind: str
    key: str


class LegacyMap:
    """Follows a zone's two registries; what was touched is taken from it piece by piece.

    Args:
        zone: The zone's name.
        own: Its own registry.
        copy: What it keeps of global's.
        federated: Whether it follows a global; if not, its own registry has everything.
        served: Whether a Dataplane may stand behind a name, by its zone and mesh.
        ingresses: Where other zones are reached.
    """

    def __init__(
        self,
        zone: str,
        own: Registry,
        copy: Registry,
        *,
        federated: bool,
        served: Callable[[str], bool],
        ingresses: Ingresses,
    ) -> None:
        self._zone = zone
        self._own = own
        self._copy = copy
        self._federated = federated
        self._served = served
        self._due: dict[str, None] = {}
        self._naming = self._settings().naming
        self._index = self._make_index()
        self._around = Surroundings(zone=zone, dataplane=self._dataplane, ingresses=ingresses)

    @property
    def domain(self) -> str:
        return self._naming.domain

    @property
    def pending(self) -> int:
        self._gather()
        return len(self._due)

    def take(self, limit: int) -> list[str]:
        """Keys of names that may have changed, each once; at most so many."""
        self._gather()
        return [self._due.popitem()[0] for _ in range(min(limit, len(self._due)))]

    def touch(self, keys: Iterable[str]) -> None:
        """Look at some keys again."""
        self._due.update(dict.fromkeys(keys))

    def touch_zone(self, zone: str) -> None:
        """Look again at what leads to a zone: it, or its ingresses, have changed."""
        self.touch(self._index.leading_to(zone))

    def settings_changed(self) -> None:
        """Build anew if the mesh's names are made otherwise now."""
        naming = self._settings().naming
        if naming == self._naming:
            return
        self.touch(self._index.wanted())
        self._index.detach()
        self._naming = naming
        self._index = self._make_index()
        self.touch(self._index.wanted())
        self.touch(self._side.table(LEGACY_VIP))

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of all names that have, or had, an address."""
        return (key for key in self._side.table(LEGACY_VIP) if key.startswith(prefix))

    def names(self, key: str) -> tuple[str, ...]:
        """The names that a key wants, whoever has them."""
        return self._index.candidates(key)

    def contenders(self, mesh: str, name: str) -> list[str]:
        """Keys that want a name; the first has it, if no generator makes it."""
        return self._index.contenders(mesh, name)

    def conflicts(self, key: str) -> list[Conflict]:
        """What a key lost, and who lost a port of it."""
        return self._index.conflicts(key)

    def enabled(self, mesh: str) -> bool:
        return self._index.enabled(mesh)

    def holder(self, mesh: str, name: str) -> Named | None:
        """Who has a name, if it has an address."""
        for key in self._index.contenders(mesh, name)[:1]:
            address = self.address(key)
            if address is not None:
                return Named(address, LEGACY, key)
        return None

    def address(self, key: str) -> int | None:
        packed = self._side.get(LEGACY_VIP, key)
        binding = None if packed is None else Binding.unpack(packed)
        return binding.address if binding is not None and binding.live else None

    def outbounds(self, key: str) -> list[dict[str, Any]]:
        address = self.address(key)
        if address is None:
            return []
        return [outbound(key, port, address, self._around) for port in self._index.ports(key)]

    @property
    def _side(self) -> Registry:
        """Where the addresses are."""
        return self._copy if self._federated else self._own

    def _settings(self) -> Settings:
        key = GLOBAL_KEY if self._federated else zone_key(self._zone)
        packed = self._side.get(SETTINGS, key)
        return Settings() if packed is None else Settings.unpack(packed)

    def _make_index(self) -> LegacyIndex:
        index = LegacyIndex(self._naming)
        if self._federated:
            index.attach(self._own, lambda key: zone_of(key) == self._zone)
            index.attach(self._copy, lambda key: zone_of(key) != self._zone)
        else:
            index.attach(self._own)
        return index

    def _gather(self) -> None:
        touched = self._index.take()
        if touched:
            self._due.update(dict.fromkeys(touched.names))
            self._due.update(dict.fromkeys(touched.endpoints))

    def _dataplane(self, key: str) -> Record | None:
        if not self._served(key):
            return None
        zone = zone_of(key)
        side = self._own if zone == self._zone or not self._federated else self._copy
        packed = side.get(DATAPLANE, key)
        return None if packed is None else Record.unpack(packed)
