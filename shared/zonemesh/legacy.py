"""Legacy names: which must exist, who of two has one, and who stands behind it.

A mesh has a name for every `kuma.io/service` of its Dataplanes, and for every host that a
VirtualOutbound renders for an inbound. Two keys may want one name. A VirtualOutbound's host comes
before a service, a service's own name before another's dotted one, a service spelled in lower case
before one that is not, and then the lesser. (Two VirtualOutbounds may want one port of a host:
`hostclaims`.)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zonemesh import holders
from zonemesh.errors import InputError
from zonemesh.holders import Holders
from zonemesh.hostclaims import Claim, HostClaims, ranked
from zonemesh.legacynames import service_names
from zonemesh.members import DATAPLANE, SERVICE_TAG, inbounds
from zonemesh.model import Key, Record, zone_of
from zonemesh.registry import Registry
from zonemesh.template import TemplateError
from zonemesh.virtualoutbound import VIRTUAL_OUTBOUND, Rendered, VirtualOutbound

MESH = "Mesh"
SERVICE_VIP_PORT = 80
_SERVICE = "service"
_HOST = "host"
_TAG_VALUE = re.compile(r"[a-zA-Z0-9._\-]+")
_IGNORED = "Ignored"
_EXCLUSIVE = "Exclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """`dnsServer` of the configuration. Fixed for the life of an index: a change asks for a new."""

    domain: str = "mesh"
    port: int = SERVICE_VIP_PORT
    services: bool = True
    """`serviceVipEnabled`: VirtualOutbounds work without it."""


@dataclass(slots=True)
class Touched:
    """Keys to look at again; those that only may have changed are among them."""

    names: set[str] = field(default_factory=set)
    """Their existence, or which names they have."""
    endpoints: set[str] = field(default_factory=set)
    """Their ports, or what stands behind these."""

    def __bool__(self) -> bool:
        return bool(self.names or self.endpoints)


class Port(NamedTuple):
    """A port of a legacy name."""

    port: int
    service: str
    """What its cluster is called; the host, if a VirtualOutbound tells no service."""
    virtual_outbound: VirtualOutbound | None
    """None: the service's own."""
    values: str
    """As in `Rendered`; empty for a service's own."""
    dataplanes: tuple[str, ...]
    """Keys, sorted. Which of their inbounds: `inbounds_behind`."""


class Conflict(NamedTuple):
    """What was wanted twice."""

    name: str
    port: int | None
    """None: the whole name."""
    winner: str
    """A legacy name's key, or with a port a VirtualOutbound's."""
    loser: str


def service_key(mesh: str, service: str) -> str:
    # Tables, indexes and maps hold it: once instead of three times, at 100,000 services.
    return sys.intern(f"{mesh}//{_SERVICE}/{service}")


def host_key(mesh: str, host: str) -> str:
    return sys.intern(f"{mesh}//{_HOST}/{host}")


def is_name_key(key: str) -> bool:
    """Whether a packed key, of foreign origin, could be a legacy name's."""
    mesh, _, rest = key.partition("//")
    what, _, name = rest.partition("/")
    return bool(mesh and name) and "/" not in mesh + name and what in (_SERVICE, _HOST)


def legacy_names_enabled(mode: str | None) -> bool:
    """Whether a mesh has legacy names by its `meshServices.mode`; None if it has none."""
    return mode != _EXCLUSIVE


class _Mesh:
    """What is derived of one mesh."""

    def __init__(self) -> None:
        self.services: dict[str, Holders] = {}
        """Dataplanes by the service's key."""
        self.aliases: dict[str, Holders] = {}
        """Services' keys by the names that they want and are not spelled like."""
        self.rules: dict[str, HostClaims] = {}
        self.modes: dict[str, str | None] = {}
        """By the key of the Mesh: while a zone joins, it has its own and global's."""

    @property
    def enabled(self) -> bool:
        return legacy_names_enabled(self.modes[min(self.modes)] if self.modes else None)

    def hosts(self) -> set[str]:
        return {host for rule in self.rules.values() for host in rule}


class LegacyIndex:
    """Legacy names of all meshes, kept current from the records of one or more registries."""

    def __init__(self, naming: Naming | None = None) -> None:
        self._naming = naming or Naming()
        self._meshes: dict[str, _Mesh] = {}
        self._sides: list[_Side] = []
        self._touched = Touched()

    def attach(self, registry: Registry, sees: Callable[[str], bool] | None = None) -> None:
        """Follow a registry as well: those of its records whose keys `sees` admits; None: all.

        A key must be seen in one registry only: a zone sees its own in its own log, not in its copy
        of global's.
        """
        side = _Side(self, registry, sees)
        self._sides.append(side)
        registry.add_index(side)

    def detach(self) -> None:
        """Follow nothing any more."""
        for side in self._sides:
            side.registry.remove_index(side)
        self._sides.clear()

    def enabled(self, mesh: str) -> bool:
        """Whether a mesh has legacy names at all."""
        state = self._meshes.get(mesh)
        return state is None or state.enabled

    def take(self) -> Touched:
        """What was touched since this was asked last."""
        taken, self._touched = self._touched, Touched()
        return taken

    def wants(self, key: str) -> bool:
        """Whether the name behind a key must exist: be bound, and served."""
        mesh, kind, name = _split(key)
        state = self._meshes.get(mesh)
        if state is None or not state.enabled:
            return False
        if kind == _HOST:
            return self._claimed(state, name)
        return self._naming.services and key in state.services

    def wanted(self) -> Iterator[str]:
        """The keys of all names that must exist."""
        for mesh, state in self._meshes.items():
            if state.enabled:
                yield from self._keys(mesh, state)

    def leading_to(self, zone: str) -> Iterator[str]:
        """Those of `wanted` that may have a Dataplane of a zone behind a port: none is missing."""
        for mesh, state in self._meshes.items():
            if state.enabled:
                yield from self._leading_to(mesh, state, zone)

    def candidates(self, key: str) -> tuple[str, ...]:
        """The names that a key wants, whoever has them."""
        _, kind, name = _split(key)
        return (name,) if kind == _HOST else service_names(name, self._naming.domain)

    def contenders(self, mesh: str, name: str) -> list[str]:
        """The keys that want a name; the first has it, and only the first may serve it."""
        state = self._meshes.get(mesh)
        return [] if state is None or not state.enabled else self._contenders(mesh, state, name)

    def names(self, key: str) -> list[str]:
        """The names that a key has."""
        if not self.wants(key):
            return []
        mesh = _split(key)[0]
        return [name for name in self.candidates(key) if self.contenders(mesh, name)[0] == key]

    def ports(self, key: str) -> list[Port]:
        """The ports of a legacy name, ascending.

        A VirtualOutbound that takes over a service's name leaves its port in use behind the new
        address, unless it renders that very port.
        """
        if not self.wants(key):
            return []
        mesh, kind, name = _split(key)
        state = self._meshes[mesh]
        if kind == _SERVICE:
            return [self._own_port(state, key)]
        found = {
            port: _port(name, claims[0])
            for port, claims in ranked(state.rules.values(), name).items()
        }
        services = [each for each in self._contenders(mesh, state, name) if _is_service(each)]
        if services and self._naming.port not in found:
            found[self._naming.port] = self._own_port(state, services[0])
        return [found[port] for port in sorted(found)]

    def conflicts(self, key: str) -> list[Conflict]:
        """What a key lost, and for a host which VirtualOutbounds lost a port of it."""
        if not self.wants(key):
            return []
        mesh, kind, name = _split(key)
        found = []
        for wanted in self.candidates(key):
            winner = self.contenders(mesh, wanted)[0]
            if winner != key:
                found.append(Conflict(wanted, None, winner, key))
        if kind == _HOST:
            for port, claims in ranked(self._meshes[mesh].rules.values(), name).items():
                winner, *losers = (claim.policy.key for claim in claims)
                found += [Conflict(name, port, winner, loser) for loser in losers]
        return found

    def _own_port(self, state: _Mesh, key: str) -> Port:
        service = _split(key)[2]
        dataplanes = holders.members(state.services.get(key))
        return Port(self._naming.port, service, None, "", tuple(sorted(dataplanes)))

    def _contenders(self, mesh: str, state: _Mesh, name: str) -> list[str]:
        found = [host_key(mesh, name)] if self._claimed(state, name) else []
        if not self._naming.services:
            return found
        base = name.removesuffix(f".{self._naming.domain}")
        # The service that is spelled so, if any; a name outside the domain is none's.
        exact = service_key(mesh, base)
        if base != name and exact in state.services:
            found.append(exact)

        def rank(key: str) -> tuple[bool, str]:
            service = _split(key)[2]
            return service.lower() != base, service

        return found + sorted(holders.members(state.aliases.get(name)), key=rank)

    @staticmethod
    def _claimed(state: _Mesh, host: str) -> bool:
        return any(host in rule for rule in state.rules.values())

    def _keys(self, mesh: str, state: _Mesh) -> Iterator[str]:
        if self._naming.services:
            yield from state.services
        for host in state.hosts():
            yield host_key(mesh, host)

    def _leading_to(self, mesh: str, state: _Mesh, zone: str) -> Iterator[str]:
        services = state.services.items() if self._naming.services else ()
        for key, dataplanes in services:
            if _any_of(zone, dataplanes):
                yield key
                # A host that a service's name was lost to has the service's port as well.
                for name in self.candidates(key):
                    if self._claimed(state, name):
                        yield host_key(mesh, name)
        for rule in state.rules.values():
            for host in rule:
                if any(_any_of(zone, dataplanes) for _, dataplanes in rule.on(host)):
                    yield host_key(mesh, host)

    # Following records

    def changed(self, side: _Side, kind: str, key: str, *versions: bytes | None) -> None:
        """A record of a side has changed, from its first version to its second."""
        if kind not in (DATAPLANE, VIRTUAL_OUTBOUND, MESH):
            return
        old, new = (None if each is None else Record.unpack(each) for each in versions)
        parsed = Key.parse(key)
        mesh = parsed.name if kind == MESH else parsed.mesh
        state = self._meshes.setdefault(mesh, _Mesh())
        if kind == DATAPLANE:
            self._move_services(mesh, state, key, services_of(old), services_of(new))
            for rule in state.rules.values():
                before, after = _claims(rule.policy, old), _claims(rule.policy, new)
                self._move_claims(mesh, rule, key, before, after)
        elif kind == VIRTUAL_OUTBOUND:
            self._set_rule(mesh, state, key, new)
        else:
            self._set_mode(mesh, state, key, new)

    def _move_services(
        self, mesh: str, state: _Mesh, key: str, old: Collection[str], new: Collection[str]
    ) -> None:
        for service in dict.fromkeys((*old, *new)):
            names = service_names(service, self._naming.domain)
            if not names:
                continue  # no client could ask for it
            target = service_key(mesh, service)
            existed = target in state.services
            put = _add if service in new else _remove
            put(state.services, target, key)
            self._touched.endpoints.add(target)
            self._touched.endpoints.update(
                host_key(mesh, name) for name in names if self._claimed(state, name)
            )
            if existed != (target in state.services):
                self._touched.names.add(target)
                self._want(mesh, state, target, names)

    def _want(self, mesh: str, state: _Mesh, key: str, names: Collection[str]) -> None:
        """Note which names a service wants, now that it is there or gone, and who else does."""
        put = _add if key in state.services else _remove
        for name in names:
            if name != f"{_split(key)[2]}.{self._naming.domain}":
                put(state.aliases, name, key)
            self._touched.names.update(self._contenders(mesh, state, name))

    def _move_claims(
        self, mesh: str, rule: HostClaims, key: str, old: set[Rendered], new: set[Rendered]
    ) -> None:
        for each in old | new:
            existed = each.host in rule
            put = rule.add if each in new else rule.remove
            put(each, key)
            self._touched.endpoints.add(host_key(mesh, each.host))
            if existed != (each.host in rule):
                self._touch_host(mesh, each.host)

    def _touch_host(self, mesh: str, host: str) -> None:
        self._touched.endpoints.add(host_key(mesh, host))
        self._touched.names.add(host_key(mesh, host))
        self._touched.names.update(self._contenders(mesh, self._meshes[mesh], host))

    def _set_rule(self, mesh: str, state: _Mesh, key: str, new: Record | None) -> None:
        former = state.rules.pop(key, None)
        hosts = set(former or ())
        if new is not None:
            # One that a newer build stored makes no names here, and stops nothing.
            with suppress(InputError):
                rule = HostClaims(VirtualOutbound.parse(key, new))
                for dataplane, record in self._dataplanes(mesh):
                    for each in _claims(rule.policy, record):
                        rule.add(each, dataplane)
                state.rules[key] = rule
                hosts.update(rule)
        for host in hosts:
            self._touch_host(mesh, host)

    def _dataplanes(self, mesh: str) -> Iterator[tuple[str, Record]]:
        prefix = f"{mesh}/"
        for side in self._sides:
            for key, payload in side.registry.table(DATAPLANE).items():
                if key.startswith(prefix) and side.sees(key):
                    yield key, Record.unpack(payload)

    def _set_mode(self, mesh: str, state: _Mesh, key: str, new: Record | None) -> None:
        enabled = state.enabled
        if new is None:
            state.modes.pop(key, None)
        else:
            state.modes[key] = (new.spec.get("meshServices") or {}).get("mode")
        if enabled != state.enabled:
            keys = set(self._keys(mesh, state))
            self._touched.names |= keys
            self._touched.endpoints |= keys


class _Side:
    """One registry as the index hears of it."""

    def __init__(
        self, index: LegacyIndex, registry: Registry, sees: Callable[[str], bool] | None
    ) -> None:
        self._index = index
        self.registry = registry
        self.sees = sees or (lambda _: True)

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if self.sees(key):
            self._index.changed(self, kind, key, old, new)


def inbounds_behind(port: Port, record: Record) -> list[Mapping[str, Any]]:
    """The inbounds of a Dataplane that take a port's connections."""
    return [inbound for inbound in _served(record) if _stands_behind(port, _tags(inbound))]


def _stands_behind(port: Port, tags: Mapping[str, str]) -> bool:
    if port.virtual_outbound is None:
        return tags.get(SERVICE_TAG) == port.service
    rendered = _rendered(port.virtual_outbound, tags)
    return rendered is not None and (rendered.port, rendered.values) == (port.port, port.values)


def _port(host: str, claim: Claim) -> Port:
    service = claim.policy.service(claim.values) or host
    dataplanes = tuple(sorted(claim.dataplanes))
    return Port(claim.port, service, claim.policy, claim.values, dataplanes)


def _split(key: str) -> tuple[str, str, str]:
    """Mesh, whether service or host, and name of a legacy name's key."""
    mesh, _, kind, name = key.split("/")
    return mesh, kind, name


def _any_of(zone: str, dataplanes: Holders) -> bool:
    if isinstance(dataplanes, str):  # asked of every service: a generator would double the time
        return zone_of(dataplanes) == zone
    return any(zone_of(each) == zone for each in dataplanes)


def _is_service(key: str) -> bool:
    return _split(key)[1] == _SERVICE


def _served(record: Record | None) -> Iterator[Mapping[str, Any]]:
    for inbound in inbounds(record) if record is not None else ():
        if inbound.get("state") != _IGNORED:
            yield inbound


def _tags(tagged: Mapping[str, Any]) -> dict[str, str]:
    # Another plane may have stored what ours would refuse.
    tags = tagged.get("tags")
    if not isinstance(tags, dict):
        return {}
    return {tag: value for tag, value in tags.items() if isinstance(value, str)}


def services_of(record: Record | None) -> list[str]:
    """The distinct services of a Dataplane's inbounds.

    A gateway takes connections from outside of the mesh: as in Kuma, its tags make no name.
    """
    found = dict.fromkeys(_tags(each).get(SERVICE_TAG, "") for each in _served(record))
    return [each for each in found if _TAG_VALUE.fullmatch(each)]


def _claims(policy: VirtualOutbound, record: Record | None) -> set[Rendered]:
    found = {_rendered(policy, _tags(inbound)) for inbound in _served(record)}
    return {each for each in found if each is not None}


def _rendered(policy: VirtualOutbound, tags: Mapping[str, str]) -> Rendered | None:
    """What an inbound gets, if anything: tags that make no host and port get nothing."""
    if not tags.get(SERVICE_TAG):
        return None
    with suppress(TemplateError):
        return policy.render(tags)
    return None


def _add(index: dict[str, Holders], at: str, key: str) -> None:
    index[at] = holders.added(index.get(at), key)


def _remove(index: dict[str, Holders], at: str, key: str) -> None:
    left = holders.removed(index.get(at), key)
    if left is None:
        index.pop(at, None)
    else:
        index[at] = left
