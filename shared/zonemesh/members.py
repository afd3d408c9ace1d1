"""Which Dataplanes stand behind which service: an index, and the selectors that choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgpack

from zonemesh.model import Record
from zonemesh.registry import Registry

DATAPLANE = "Dataplane"
MESH_SERVICE = "MeshService"
MANAGED_BY = "kuma.io/managed-by"
GENERATOR = "meshservice-generator"
SERVICE_TAG = "kuma.io/service"
WORKLOAD_LABEL = "kuma.io/workload"


def place(key: str) -> str:
    """The `<mesh>/<zone>/` that a packed key begins with: services select within it."""
    return key[: key.index("/", key.index("/") + 1) + 1]


def tag_term(where: str, service: str) -> str:
    return f"{where}t:{service}"


def workload_term(where: str, workload: str) -> str:
    return f"{where}w:{workload}"


def generated(record: Record) -> bool:
    """Whether a MeshService was made from Dataplanes by its zone, not by a user."""
    return record.labels.get(MANAGED_BY) == GENERATOR


def inbounds(record: Record) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = (record.spec.get("networking") or {}).get("inbound") or []
    return found


def service_tags(record: Record) -> Iterator[str]:
    """The distinct `kuma.io/service` values of a Dataplane's inbounds, in order."""
    seen: set[str] = set()
    for inbound in inbounds(record):
        service = (inbound.get("tags") or {}).get(SERVICE_TAG)
        if service and service not in seen:
            seen.add(service)
            yield service


def service_names(record: Record) -> list[str]:
    """The services that a Dataplane names, by tag or by workload label."""
    names = list(service_tags(record))
    workload = record.labels.get(WORKLOAD_LABEL)
    return [*names, workload] if workload else names


def inbound_ready(inbound: Mapping[str, Any]) -> bool:
    """Whether an inbound takes connections: Kuma's `state`, or the older `health`."""
    health = inbound.get("health")
    if health is not None and health.get("ready") is False:
        return False
    return bool(inbound.get("state", "Ready") == "Ready")


def healthy(record: Record) -> bool:
    """A Dataplane counts while at least one of its inbounds takes connections."""
    return any(inbound_ready(inbound) for inbound in inbounds(record))


def terms(key: str, record: Record) -> list[str]:
    """What a Dataplane is found by."""
    where = place(key)
    found = [tag_term(where, service) for service in service_tags(record)]
    workload = record.labels.get(WORKLOAD_LABEL)
    if workload:
        found.append(workload_term(where, workload))
    return found


def selector_term(key: str, selector: Mapping[str, Any]) -> str | None:
    """The index term that narrows a MeshService's selector down; None if none does."""
    where = place(key)
    tags = selector.get("dataplaneTags") or {}
    if SERVICE_TAG in tags:
        return tag_term(where, tags[SERVICE_TAG])
    labels = (selector.get("dataplaneLabels") or {}).get("matchLabels") or {}
    if WORKLOAD_LABEL in labels:
        return workload_term(where, labels[WORKLOAD_LABEL])
    return None


def selects(selector: Mapping[str, Any], name: str, record: Record) -> bool:
    """Whether a MeshService's selector matches a Dataplane of its mesh and zone."""
    if not inbounds(record):
        return False
    ref = selector.get("dataplaneRef")
    if ref:
        return bool(ref.get("name") == name)
    labels = selector.get("dataplaneLabels")
    if labels is not None:
        wanted = labels.get("matchLabels") or {}
        return all(record.labels.get(label) == value for label, value in wanted.items())
    tags = selector.get("dataplaneTags")
    if not tags:
        return False
    return any(
        all((inbound.get("tags") or {}).get(tag) == value for tag, value in tags.items())
        for inbound in inbounds(record)
    )


def chosen(
    selector: Mapping[str, Any], candidates: Iterable[str], get: Callable[[str], bytes | None]
) -> Iterator[tuple[str, Record]]:
    """Those of some Dataplanes that a MeshService's selector matches; `get` reads a record."""
    for key in candidates:
        packed = get(key)
        record = None if packed is None else Record.unpack(packed)
        if record is not None and selects(selector, key.rpartition("/")[2], record):
            yield key, record


class Members:
    """An index from terms to Dataplanes. One member, the common case, costs no container."""

    def __init__(self) -> None:
        self._of: dict[str, str | tuple[str, ...]] = {}

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if kind != DATAPLANE:
            return
        before = terms(key, Record.unpack(old)) if old is not None else []
        after = terms(key, Record.unpack(new)) if new is not None else []
        for term in before:
            if term not in after:
                self._remove(term, key)
        for term in after:
            if term not in before:
                self._add(term, key)

    def of(self, term: str) -> tuple[str, ...]:
        found = self._of.get(term, ())
        return (found,) if isinstance(found, str) else found

    def _add(self, term: str, key: str) -> None:
        there = self.of(term)
        self._of[term] = (*there, key) if there else key

    def _remove(self, term: str, key: str) -> None:
        left = tuple(each for each in self.of(term) if each != key)
        if not left:
            self._of.pop(term, None)
        else:
            self._of[term] = left[0] if len(left) == 1 else left


def selected(
    key: str, selector: Mapping[str, Any], members: Members, dataplanes: Mapping[str, bytes]
) -> Iterator[tuple[str, Record]]:
    """The Dataplanes that a MeshService selects, by key.

    Args:
        key: The service's, packed.
        selector: Its own.
        members: An index of `dataplanes`, asked where it can tell.
        dataplanes: Packed records by key, of any place.
    """
    return chosen(selector, candidates(key, selector, members, dataplanes), dataplanes.get)


def candidates(
    key: str,
    selector: Mapping[str, Any],
    members: Members | DraftMembers,
    dataplanes: Mapping[str, bytes],
) -> Iterable[str]:
    """The Dataplanes that a MeshService may select: more than it does may come. As `selected`."""
    term = selector_term(key, selector)
    if term is not None:
        return members.of(term)
    end = ""
    wanted: Mapping[str, str] = {}
    if ref := selector.get("dataplaneRef"):
        end = f"/{ref.get('name')}"
    elif (labels := selector.get("dataplaneLabels")) is not None:
        wanted = labels.get("matchLabels") or {}
    elif tags := selector.get("dataplaneTags"):
        wanted = tags
    else:
        return ()
    where = place(key)
    found = [each for each in dataplanes if each.startswith(where) and each.endswith(end)]
    for value in wanted.values():
        # It stands in the payload as it is written: this spares decoding those that lack it.
        text = value.encode()
        found = [each for each in found if text in dataplanes[each]]
    return found


class DraftMembers:
    """`Members` as it will be once the Dataplanes noted here are committed."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._noted: set[str] = set()
        self._added: dict[str, dict[str, None]] = {}

    def note(self, key: str, terms_now: Iterable[str]) -> None:
        """A Dataplane was put (with the terms it has now) or removed (no terms)."""
        if key in self._noted:
            for keys in self._added.values():
                keys.pop(key, None)
        self._noted.add(key)
        for term in terms_now:
            self._added.setdefault(term, {})[key] = None

    def of(self, term: str) -> list[str]:
        there = [key for key in self._members.of(term) if key not in self._noted]
        return sorted([*there, *self._added.get(term, ())])


_LABELS_AT = 19
"""Where a packed record's labels begin today: an array header and two times of nine bytes each."""
_SOLE_LABEL: bytes = msgpack.packb({MANAGED_BY: GENERATOR})


def _is_generated(payload: bytes) -> bool:
    # Nearly every service is generated and has that one label: this saves decoding it.
    return payload.startswith(_SOLE_LABEL, _LABELS_AT) or generated(Record.unpack(payload))


class UserServices:
    """An index of the MeshServices that users made: their state follows Dataplanes they select.

    Each is found by one thing that every Dataplane it selects must have, the rarest that it names.
    """

    def __init__(self) -> None:
        self._by_need: dict[str, dict[str, None]] = {}
        self._keys: dict[str, None] = {}

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if kind != MESH_SERVICE:
            return
        if old is not None and not _is_generated(old):
            self._keys.pop(key, None)
            if need := _need(key, Record.unpack(old)):
                services = self._by_need[need]
                del services[key]
                if not services:
                    del self._by_need[need]
        if new is not None and not _is_generated(new):
            self._keys[key] = None
            if need := _need(key, Record.unpack(new)):
                self._by_need.setdefault(need, {})[key] = None

    def selecting(self, dataplane: str, *versions: Record | None) -> set[str]:
        """Those that may select a Dataplane in any of some versions; none that does is missing."""
        if not self._by_need:  # most zones, and each write would pay for it
            return set()
        found: set[str] = set()
        for need in {need for each in versions if each for need in _met(dataplane, each)}:
            found.update(self._by_need.get(need, ()))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)


def _need(key: str, service: Record) -> str | None:
    """What a Dataplane must have to be selected; None if the selector selects none."""
    where = place(key)
    selector = service.spec.get("selector") or {}
    if ref := selector.get("dataplaneRef"):
        return f"{where}/name/{ref.get('name')}"
    if (labels := selector.get("dataplaneLabels")) is not None:
        wanted = labels.get("matchLabels") or {}
        return _rarest(f"{where}/label", wanted, WORKLOAD_LABEL) or f"{where}/any"
    return _rarest(f"{where}/tag", selector.get("dataplaneTags") or {}, SERVICE_TAG)


def _rarest(where: str, wanted: Mapping[str, Any], name: str) -> str | None:
    """The pair that fewest Dataplanes have: what names their service, if it is asked for."""
    if not wanted:
        return None
    chosen = name if name in wanted else min(wanted)
    return f"{where}/{chosen}/{wanted[chosen]}"


def _met(key: str, dataplane: Record) -> Iterator[str]:
    """The needs that a Dataplane meets."""
    where = place(key)
    yield f"{where}/name/{key.rpartition('/')[2]}"
    yield f"{where}/any"
    for label, value in dataplane.labels.items():
        yield f"{where}/label/{label}/{value}"
    for inbound in inbounds(dataplane):
        for tag, value in (inbound.get("tags") or {}).items():
            yield f"{where}/tag/{tag}/{value}"


class Backing:
    """Services and Dataplanes of one registry: who stands behind whom."""

    def __init__(
        self,
        registry: Registry,
        members: Members | None = None,
        user_services: UserServices | None = None,
    ) -> None:
        """Use indexes that the registry has already, or give it what lacks."""
        self.registry = registry
        self._members = members or Members()
        self._user_services = user_services or UserServices()
        if members is None:
            registry.add_index(self._members)
        if user_services is None:
            registry.add_index(self._user_services)

    def members(self, service: str, record: Record) -> Iterator[tuple[str, Record]]:
        """The Dataplanes that a MeshService selects, with their keys."""
        selector = record.spec.get("selector") or {}
        return selected(service, selector, self._members, self.registry.table(DATAPLANE))

    def services(self, dataplane: str, *versions: bytes | None) -> set[str]:
        """The MeshServices that a Dataplane may stand behind, in any of some versions."""
        where = place(dataplane)
        records = [Record.unpack(packed) for packed in versions if packed is not None]
        found = self._user_services.selecting(dataplane, *records)
        for record in records:
            found.update(f"{where}/{name}" for name in service_names(record))
        return found
