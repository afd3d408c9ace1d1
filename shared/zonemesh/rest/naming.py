"""What a resource is called in URLs and lists here, and which one such a name means.

A resource has its own name where it was made, and a hashed one wherever it was copied to
(`zonemesh.labels.shown_name`). One that is in a Kubernetes namespace is called `<name>.<namespace>`
where it was made, as on Kuma for Kubernetes; its bare name is understood too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from zonemesh import labels, names
from zonemesh.model import Key
from zonemesh.resources.kind import Kind
from zonemesh.rest.backend import Backend

SHORTENED_LENGTH = 236
"""Where Kuma cuts a display name, so that 17 octets of hash still fit 253."""


class Namespaces:
    """Where objects in Kubernetes namespaces come from; an index of registries."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[tuple[str, str]]] = {}

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if old is not None and new is not None:
            return
        place, namespace, _ = key.rsplit("/", 2)
        if not namespace:
            return
        counts = self._counts.setdefault(kind, Counter())
        origin = place.rpartition("/")[2], namespace
        counts[origin] += 1 if new is not None else -1
        if not counts[origin]:
            del counts[origin]

    def of(self, kind: str) -> Iterable[tuple[str, str]]:
        """The (zone, namespace) pairs that objects of a kind have; none without a namespace."""
        return tuple(self._counts.get(kind, ()))


def shown(kind: Kind, key: Key, here: str) -> str:
    """The name in lists; `here` is this zone, "" on global."""
    name = labels.shown_name(kind, key, here)
    return f"{name}.{key.namespace}" if key.namespace and key.zone == here else name


def resolve(backend: Backend, kind: Kind, mesh: str, name: str) -> Key | None:
    """The key of the resource that is called `name` here; None if there is none."""
    own = Key(mesh, backend.zone, "", name)
    if backend.get(kind, own) is not None:
        return own
    for key in _candidates(backend, kind, mesh, name):
        if backend.get(kind, key) is not None:
            return key
    return None


def _candidates(backend: Backend, kind: Kind, mesh: str, name: str) -> Iterator[Key]:
    """Keys that may be called so, in order of precedence: made here first, then copies."""
    here = backend.zone
    places = list(backend.origins(kind))
    for zone, namespace in places:
        if zone == here and namespace:
            yield Key(mesh, zone, namespace, name.removesuffix(f".{namespace}"))
    if not kind.hashed:
        yield from (Key(mesh, zone, namespace, name) for zone, namespace in places if zone != here)
        return
    split = names.split_hashed(name)
    for display in _displays(backend, kind, mesh, split[0]) if split else ():
        keys = (Key(mesh, zone, namespace, display) for zone, namespace in places if zone != here)
        # Looked up first: that is cheaper than the hash.
        yield from (key for key in keys if backend.get(kind, key) and _hashed(key) == name)


def _hashed(key: Key) -> str:
    return names.hashed_name(key.mesh, key.name, key.zone, key.namespace)


def _displays(backend: Backend, kind: Kind, mesh: str, shortened: str) -> Iterator[str]:
    """The display names that a hashed name's first part may stand for.

    One, unless it is so long that it was cut: then a search.
    """
    yield shortened
    if len(shortened) >= SHORTENED_LENGTH:
        for packed in list(backend.keys(kind, mesh)):
            name = Key.parse(packed).name
            if name != shortened and name.startswith(shortened):
                yield name
