"""Reading a client's document field by field, so that all its faults are reported at once.

A getter answers the value, or None where the field is absent, null or faulty; a fault is noted with
its path and the reading goes on. Kinds ask for what they need and raise once, at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from zonemesh import names
from zonemesh.errors import ValidationError, Violation

T = TypeVar("T")

PORT_MAX = 65_535
PORT_REASON = "port must be a valid (1-65535)"
PROTOCOLS = ("grpc", "http", "http2", "kafka", "tcp")
EMPTY = "must not be empty"
UNDEFINED = "must be defined"


class Violations:
    """The faults of one document, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, reason: str) -> None:
        self._found.append(Violation(field, reason))

    def raise_if_any(self) -> None:
        """Raise ValidationError if anything was added."""
        if self._found:
            raise ValidationError(self._found)


class Node:
    """One object of a document: its fields by name, and where it stands."""

    __slots__ = ("_value", "_violations", "path")

    def __init__(self, value: Mapping[str, Any], path: str, violations: Violations) -> None:
        """`path` is what the client calls this object; "" for fields beside the metadata."""
        self._value = value
        self.path = path
        self._violations = violations

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def fault(self, name: str, reason: str) -> None:
        """Note a fault of a field; of the object itself if `name` is ""."""
        self._violations.add(self.at(name) if name else self.path, reason)

    def fault_of_name(self, reason: str | None) -> None:
        """Note what is wrong with the resource's name, if anything is."""
        if reason is not None:
            self._violations.add("name", reason)

    def fault_at(self, key: str, reason: str) -> None:
        """Note a fault of an entry, where the object is a map whose keys are not field names."""
        self._violations.add(f'{self.path}["{key}"]', reason)

    def has(self, name: str) -> bool:
        """Whether the field is there. A null is an absent field, as in protobuf's JSON."""
        return self._value.get(name) is not None

    @property
    def empty(self) -> bool:
        return not self._value

    def raw(self, name: str) -> Any:
        """The field as sent, whatever it is."""
        return self._value.get(name)

    def copy(self) -> dict[str, Any]:
        """The fields as sent, unknown ones included, to put defaults into."""
        return dict(self._value)

    def string(self, name: str, *, required: bool = False) -> str | None:
        """A string; "" counts as absent, since clients written in Go send it for unset fields."""
        value = self._typed(name, str, "a string")
        if required and (value == "" or not self.has(name)):
            self.fault(name, EMPTY)
        return value or None

    def integer(
        self,
        name: str,
        low: int | None,
        high: int | None,
        *,
        reason: str = "",
        required: bool = False,
    ) -> int | None:
        """An integer within bounds, None being none; `reason` is what is said beyond them."""
        value = self._typed(name, int, "an integer")
        if value is None:
            if required and not self.has(name):
                self.fault(name, UNDEFINED)
            return None
        if (low is not None and value < low) or (high is not None and value > high):
            self.fault(name, reason)
            return None
        return value

    def port(self, name: str, *, required: bool = True, reason: str = PORT_REASON) -> int | None:
        return self.integer(name, 1, PORT_MAX, reason=reason, required=required)

    def integer_or_string(self, name: str) -> int | str | None:
        value = self._value.get(name)
        if value is None:
            return None
        if type(value) not in (int, str):
            self.fault(name, "must be an integer or a string")
            return None
        if value == "":
            self.fault(name, EMPTY)
        return value or None

    def boolean(self, name: str) -> bool | None:
        return self._typed(name, bool, "a boolean")

    def choice(self, name: str, allowed: Collection[str], *, required: bool = False) -> str | None:
        value = self.string(name, required=required)
        if value is not None and value not in allowed:
            self.fault(name, f"must be one of: {', '.join(allowed)}")
            return None
        return value

    def protocol(self, name: str, allowed: Collection[str] = PROTOCOLS) -> str | None:
        """A protocol's name in lower case; Kuma compares without regard to case."""
        value = self.string(name)
        if value is not None and value.lower() not in allowed:
            self.fault(name, f"must be one of: {', '.join(allowed)}")
            return None
        return value and value.lower()

    def node(self, name: str, *, required: bool = False) -> Node | None:
        value = self._typed(name, dict, "an object")
        if value is None:
            if required and not self.has(name):
                self.fault(name, UNDEFINED)
            return None
        return Node(value, self.at(name), self._violations)

    def nodes(self, name: str, *, empty: str = "") -> list[Node]:
        """The elements of a list of objects; those that are not objects are noted, left out.

        `empty`: what is said of a list that is absent or has no element, which else is none.
        """
        found = []
        if empty and self._value.get(name) in (None, []):
            self.fault(name, empty)
        for index, value in self._elements(name):
            path = f"{self.at(name)}[{index}]"
            if isinstance(value, dict):
                found.append(Node(value, path, self._violations))
            else:
                self._violations.add(path, "must be an object")
        return found

    def strings(self, name: str) -> list[str]:
        found = []
        for index, value in self._elements(name):
            if isinstance(value, str):
                found.append(value)
            else:
                self._violations.add(f"{self.at(name)}[{index}]", "must be a string")
        return found

    def string_map(self, name: str) -> dict[str, str] | None:
        node = self.node(name)
        return None if node is None else node.entries()

    def entries(self) -> dict[str, str]:
        """The object as a map of strings; entries of another type are noted and left out."""
        found = {}
        for key, value in self._value.items():
            if isinstance(value, str):
                found[key] = value
            else:
                self.fault_at(key, "must be a string")
        return found

    def _elements(self, name: str) -> Iterator[tuple[int, Any]]:
        return enumerate(self._typed(name, list, "a list") or ())

    def _typed(self, name: str, wanted: type[T], called: str) -> T | None:
        value = self._value.get(name)
        if value is None:
            return None
        # Not isinstance: JSON's true is an int to Python.
        if type(value) is not wanted:
            self.fault(name, f"must be {called}")
            return None
        return value


def match_labels(node: Node, name: str) -> dict[str, str] | None:
    """The `matchLabels` of a selector field; None if the field is absent or faulty.

    An empty or absent `matchLabels` selects everything, as in Kuma.
    """
    selector = node.node(name)
    return None if selector is None else selector.string_map("matchLabels") or {}


def dns_label_name(node: Node, name: str) -> None:
    """The rule for names that become labels of hostnames."""
    node.fault_of_name(names.dns_label_fault(name))
