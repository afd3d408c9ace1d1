"""Which MeshServices stand behind each MeshMultiZoneService: label selectors, kept up to date.

Kuma lists all services for each selector every five seconds, and compares meshes not at all. Here a
changed service is compared with the selectors that ask for one of its labels, in its own mesh.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from zonemesh.labels import DISPLAY_NAME

Labels = Mapping[str, str]


class Matches:
    """One direction each: selector -> services, and service -> selectors that have it."""

    def __init__(self) -> None:
        self._wanted: dict[str, Labels] = {}
        self._by_pair: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
        """(mesh, label, value) -> the selectors that are looked up by it, their rarest pair."""
        self._members: dict[str, set[str]] = {}
        self._of: defaultdict[str, set[str]] = defaultdict(set)

    def members(self, selector: str) -> list[str]:
        """Packed keys of the services that a selector matches, sorted."""
        return sorted(self._members.get(selector, ()))

    def of(self, service: str) -> frozenset[str]:
        """The selectors that match a service."""
        return frozenset(self._of.get(service, ()))

    def services(self) -> list[str]:
        """Every service that a selector matches."""
        return list(self._of)

    def put_selector(self, selector: str, wanted: Labels | None) -> bool:
        """Set or (None) remove the selector of a MeshMultiZoneService, named by its packed key.

        Returns:
            Whether the services that were put before have to be put again, in any order and with
            others between: a selector begins without members.
        """
        if self._wanted.get(selector) == wanted:
            return False
        mesh = selector.partition("/")[0]
        former = self._wanted.pop(selector, None)
        if former is not None:
            self._by_pair[(mesh, *_rarest(former))].discard(selector)
        for service in self._members.pop(selector, ()):
            self._leave(service, selector)
        if not wanted:  # matches nothing: Kuma refuses a selector without labels
            return False
        self._wanted[selector] = wanted
        self._by_pair[(mesh, *_rarest(wanted))].add(selector)
        self._members[selector] = set()
        return True

    def put_service(self, service: str, labels: Labels | None) -> set[str]:
        """Note a service's labels, or (None) that it is gone.

        Returns:
            The selectors that have gained or lost it.
        """
        former = self._of.get(service, set())
        if not former and not self._wanted:
            return set()
        now = set() if labels is None else self._selectors_of(service, labels)
        changed = former ^ now
        for selector in changed:
            if selector in now:
                self._members[selector].add(service)
                self._of[service].add(selector)
            else:
                self._members[selector].discard(service)
                self._leave(service, selector)
        return changed

    def _selectors_of(self, service: str, labels: Labels) -> set[str]:
        mesh = service.partition("/")[0]
        return {
            selector
            for pair in labels.items()
            for selector in self._by_pair.get((mesh, *pair), ())
            if matches(self._wanted[selector], labels)
        }

    def _leave(self, service: str, selector: str) -> None:
        of = self._of[service]
        of.discard(selector)
        if not of:
            del self._of[service]


def match_labels(spec: Mapping[str, Any]) -> Labels:
    """What a MeshMultiZoneService asks of services; empty matches none, as in Kuma."""
    selector = spec.get("selector") or {}
    found: Labels = (selector.get("meshService") or {}).get("matchLabels") or {}
    return found


def matches(wanted: Labels, labels: Labels) -> bool:
    """Whether a service has all the labels that are wanted."""
    return all(labels.get(name) == value for name, value in wanted.items())


def _rarest(wanted: Labels) -> tuple[str, str]:
    """The pair that fewest services have: their name, if it is asked for."""
    name = wanted.get(DISPLAY_NAME)
    return min(wanted.items()) if name is None else (DISPLAY_NAME, name)
