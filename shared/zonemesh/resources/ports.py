"""Ports of a service: which of those that a document lists can be listened on, and as what.

Kuma takes any number and any repeats, so that documents with such ports exist. They are stored as
they are, answered with warnings, and here is what is left of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from zonemesh.resources.validation import PORT_MAX, Node

_DIGITS_MAX = 19
"""What Go's int64 holds; int() would take any number of digits."""


class Served(NamedTuple):
    """One port that can be listened on."""

    position: int
    """Its place among the service's ports."""
    section: str
    """Identifies it within its service, for KRIs and SNIs: its name, else its number."""
    port: Mapping[str, Any]
    """As stored."""


def port_number(node: Node) -> int | None:
    """The number of a service's port; any integer, since Kuma takes any."""
    return node.integer("port", None, None, required=True)


def is_port(number: Any) -> bool:
    return type(number) is int and 0 < number <= PORT_MAX


def parsed_port(text: str) -> int | None:
    """The port that a template's text says, None if it says none."""
    if len(text) > _DIGITS_MAX or not (text.isascii() and text.isdecimal()):
        return None
    return int(text) if is_port(int(text)) else None


def listed(spec: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """A service's ports; an external one has exactly one, in `match`."""
    found: Sequence[Mapping[str, Any]] = spec.get("ports") or ()
    return found or ((spec["match"],) if "match" in spec else ())


def served(ports: Sequence[Mapping[str, Any]]) -> Iterator[Served]:
    """The ports that can be listened on, in order, with distinct numbers and sections.

    Left out are numbers that are no port and, of equal numbers, all but the first. A name that was
    taken before, or that is another port's number, is not used: that port goes by its number.
    """
    numbers = {str(port.get("port")) for port in ports}
    taken: set[int | str] = set()
    for index, port in enumerate(ports):
        number = port.get("port")
        if number is None or not is_port(number) or number in taken:
            continue
        name = port.get("name") or ""
        section = str(number)
        if name and name not in taken and name not in numbers:
            section = name
        taken.update((number, section))
        yield Served(index, section, port)


def warnings(ports: Sequence[Mapping[str, Any]], path: str = "spec.ports") -> list[str]:
    """What is odd about a service's valid ports; `path` is where they stand in the document."""
    if not ports:
        return [f"{path}: none, so nothing can connect to this service"]
    sections = {each.position: each.section for each in served(ports)}
    return [
        f"{path}[{index}].{warning}"
        for index, port in enumerate(ports)
        for warning in _warnings(port, sections.get(index))
    ]


def _warnings(port: Mapping[str, Any], section: str | None) -> Iterator[str]:
    number, name = port["port"], port.get("name")
    if not is_port(number):
        yield f"port: {number} is not a port (1-{PORT_MAX}) and is not served"
    elif section is None:
        yield f"port: {number} is defined more than once; only the first is served"
    elif name and section != name:
        yield f"name: {name} means another port too; this one goes by its number, {section}"
