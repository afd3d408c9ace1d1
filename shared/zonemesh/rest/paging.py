"""Query parameters of lists: size, offset, name, filter; and what they select."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multidict import MultiMapping
from yarl import URL

from zonemesh.resources.kind import Kind
from zonemesh.rest.errors import ParameterError

SIZE_DEFAULT = 100
SIZE_MAX = 1000

_FILTER = re.compile(r"filter\[([^\]]*)\](.*)")
_GATEWAY = ("true", "false", "delegated", "builtin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One page of one selection."""

    size: int = SIZE_DEFAULT
    offset: int = 0
    name: str = ""
    """A part of the name."""
    labels: Mapping[str, str]
    """Values that labels must have, computed ones included."""
    tags: tuple[tuple[str, str], ...] = ()
    """Of Dataplanes: (tag or label, part of its value)."""
    gateway: str | None = None
    """Of Dataplanes: one of `true`, `false`, `delegated`, `builtin`."""

    @property
    def by_content(self) -> bool:
        """Whether records must be looked into; else names and counts suffice."""
        return bool(self.labels or self.tags or self.gateway)


def parse(query: MultiMapping[str], kind: Kind) -> Query:
    """Read a list's parameters; unknown ones are ignored, as Kuma does.

    Raises:
        ParameterError: The first that is wrong.
    """
    dataplanes = kind.name == "Dataplane"
    return Query(
        size=_size(query.get("size")),
        offset=_offset(query.get("offset")),
        name=query.get("name", ""),
        labels=_labels(query),
        tags=_tags(query.getall("tag", [])) if dataplanes else (),
        gateway=_gateway(query.get("gateway")) if dataplanes else None,
    )


def next_page(url: URL, query: Query, total: int) -> str | None:
    """The absolute URL of the page after this one; None at the end."""
    offset = query.offset + query.size
    if offset >= total:
        return None
    return str(url.update_query(offset=str(offset), size=str(query.size)))


def page(url: URL, query: Query, items: Sequence[Any], *, total: int) -> dict[str, Any]:
    """A list's body: what stands on one page of `total`."""
    return {"total": total, "items": items, "next": next_page(url, query, total)}


def selects(query: Query, labels: Mapping[str, str], spec: Mapping[str, Any]) -> bool:
    """Whether a resource's content is what was asked for; its name is checked elsewhere."""
    if any(labels.get(name) != value for name, value in query.labels.items()):
        return False
    if query.gateway is not None and not _is_gateway(query.gateway, spec):
        return False
    return all(_has_tag(name, value, labels, spec) for name, value in query.tags)


def _size(text: str | None) -> int:
    if text is None:
        return SIZE_DEFAULT
    size = _number(text)
    if size is None:
        raise ParameterError("Invalid page size", "size", "invalid format")
    if size <= 0:
        raise ParameterError("Invalid page size", "size", "must be greater than 0")
    if size > SIZE_MAX:
        reason = f"invalid page size of {size}. Maximum page size is {SIZE_MAX}"
        raise ParameterError("Invalid page size", "size", reason)
    return size


def _offset(text: str | None) -> int:
    offset = _number(text or "0")
    if offset is None or offset < 0:
        raise ParameterError("Invalid offset", "offset", "Invalid format")
    return offset


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _labels(query: MultiMapping[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for parameter, value in query.items():
        match = _FILTER.fullmatch(parameter)
        if match is None:
            continue
        if match[2]:
            raise ParameterError("Invalid filter", parameter, "advanced filters are not supported")
        if not match[1].startswith("labels."):
            raise ParameterError(
                "Invalid filter", parameter, "filters are only supported on labels"
            )
        labels[match[1].removeprefix("labels.")] = value
    return labels


def _tags(values: list[str]) -> tuple[tuple[str, str], ...]:
    # A value may hold colons, a key may not. Malformed ones are ignored, as in Kuma.
    pairs = (value.partition(":") for value in values)
    return tuple((name, value) for name, colon, value in pairs if colon)


def _gateway(value: str | None) -> str | None:
    if value is not None and value not in _GATEWAY:
        raise ParameterError(
            "Invalid gateway filter", "gateway", f"must be one of: {', '.join(_GATEWAY)}"
        )
    return value


def _is_gateway(asked: str, spec: Mapping[str, Any]) -> bool:
    gateway = spec.get("networking", {}).get("gateway")
    if asked in ("true", "false"):
        return (gateway is not None) is (asked == "true")
    return gateway is not None and gateway.get("type", "DELEGATED").lower() == asked


def _has_tag(name: str, value: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> bool:
    networking = spec.get("networking", {})
    tagged = [*networking.get("inbound", ()), networking.get("gateway") or {}]
    found = [labels.get(name), *((node.get("tags") or {}).get(name) for node in tagged)]
    return any(tag is not None and value in tag for tag in found)
