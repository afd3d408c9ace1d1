"""Tags: Kuma 2's labels of inbounds, by which older kinds select."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zonemesh.labels import SERVICE
from zonemesh.resources.validation import PROTOCOLS, Node

PROTOCOL = "kuma.io/protocol"
ANY = "*"
"""In a selector: the tag must be there, with whatever value."""

_NAME = re.compile(r"[a-zA-Z0-9._\-/]+")
_VALUE = re.compile(r"[a-zA-Z0-9._\-]*")
_NAME_REASON = (
    "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
)
_VALUE_REASON = "tag value must consist of alphanumeric characters, dots, dashes and underscores"
_NO_TAG = "must have at least one tag"


def is_tag_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def tags_of(node: Node) -> dict[str, str]:
    """The `tags` of an inbound. Absent or empty they are Kuma 3's way of saying nothing."""
    document = node.node("tags")
    tags = document.entries() if document is not None else {}
    if document is None or not tags:
        return tags
    if not document.has(SERVICE):
        document.fault_at(SERVICE, "tag has to exist")
    protocol = tags.get(PROTOCOL)
    if protocol and protocol.lower() not in PROTOCOLS:
        reason = f'tag "{PROTOCOL}" has an invalid value "{protocol}"'
        document.fault_at(PROTOCOL, f"{reason}. Allowed values: {', '.join(PROTOCOLS)}")
    _check(document, tags)
    return tags


def matched_tags(node: Node) -> dict[str, str]:
    """The `match` of a selector: at least one tag, each with a value or `*`."""
    document = node.node("match")
    if document is None:
        if not node.has("match"):
            node.fault("match", _NO_TAG)
        return {}
    tags = document.entries()
    if document.empty:
        node.fault("match", _NO_TAG)
    _check(document, {name: "any" if value == ANY else value for name, value in tags.items()})
    return tags


def _check(document: Node, tags: Mapping[str, str]) -> None:
    for name, value in tags.items():
        if not value:
            document.fault_at(name, "tag value cannot be empty")
        if not is_tag_name(name):
            document.fault_at(name, _NAME_REASON)
        if not _VALUE.fullmatch(value):
            document.fault_at(name, _VALUE_REASON)
