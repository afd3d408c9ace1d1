"""Documents as Kuma writes them ⇄ the parts that are stored: a pure translation, both ways.

Older kinds are flat: the fields of their spec stand beside the metadata. Others have a `spec` and a
`status`. What the server computes (`creationTime`, `modificationTime`, `kri`, `snis`, `status`) is
written and, on input, ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import msgspec
import yaml

from zonemesh.errors import Violation
from zonemesh.model import DEPTH_MAX, TIME_MS_MAX, Key
from zonemesh.resources import ports
from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest.backend import Found
from zonemesh.rest.errors import MalformedError

_META = frozenset(
    {
        *("type", "mesh", "name", "labels", "creationTime", "modificationTime"),
        *("kri", "snis", "status"),
    }
)

YAML_NODES_MAX = 200_000
"""Values in one document. Its aliases may multiply: 1 MiB of YAML can mean terabytes."""

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
"""What msgpack, in which records are kept, can hold."""

_LONG_NUMBER = re.compile(rb"[0-9]{19}")

_decode = msgspec.json.Decoder().decode


def from_json(data: bytes) -> dict[str, Any]:
    """Parse one JSON document.

    Raises:
        MalformedError: Not JSON, or not an object.
    """
    try:
        document = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedError(f"not a JSON document: {error}") from error
    if type(document) is not dict:
        raise MalformedError("a resource is a JSON object")
    # Fewer brackets than levels that are allowed: nearly every document, and at no cost.
    deep = data.count(b"{") + data.count(b"[") > DEPTH_MAX
    if deep or _LONG_NUMBER.search(data):
        _check_size(document)
    return document


_TOO_DEEP = f"nested deeper than {DEPTH_MAX} levels"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The C parser where there is one; timestamps stay text, as in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012 -- PyYAML's class attribute
        first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def from_yaml(data: bytes) -> dict[str, Any]:
    """Parse one YAML document. Slow (about 1 s for 1 MiB): call it in a thread.

    Raises:
        MalformedError: Not YAML, not a mapping, or not expressible in JSON.
    """
    try:
        _check_yaml_depth(data)
        document = yaml.load(data, _Loader)  # noqa: S506 -- derived from the safe one
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise MalformedError(f"not a YAML document: {' '.join(str(error).split())}") from error
    if type(document) is not dict:
        raise MalformedError("a resource is a mapping")
    _check_size(document)
    return document


def _check_yaml_depth(data: bytes) -> None:
    """Count levels event by event: building a deep document overflows the C stack."""
    depth = 0
    for event in yaml.parse(data, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise MalformedError(_TOO_DEEP)


def _check_size(document: Any) -> None:
    """Refuse what could not be stored: aliases that multiply, huge integers, keys not strings."""
    for count, value in enumerate(_walk(document, depth=0)):
        if count > YAML_NODES_MAX:
            raise MalformedError(f"more than {YAML_NODES_MAX} values in one document")
        if type(value) is int and not _INT_MIN <= value <= _INT_MAX:
            raise MalformedError(f"{value} does not fit 64 bits")


def _walk(value: Any, depth: int) -> Iterator[Any]:
    if depth > DEPTH_MAX:
        raise MalformedError(_TOO_DEEP)
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise MalformedError(f"the key {key!r} is not a string")
            yield from _walk(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, depth + 1)
    elif not isinstance(value, str | int | float | bool | None):
        raise MalformedError(f"{type(value).__name__} is not a JSON type")
    yield value


def spec_of(kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as the client sent it.

    Raises:
        MalformedError: `spec` is not an object.
    """
    if kind.flat:
        return {name: value for name, value in document.items() if name not in _META}
    spec = document.get("spec")
    if spec is None:
        return {}
    if type(spec) is not dict:
        raise MalformedError("spec must be an object")
    return cast("dict[str, Any]", spec)


def meta_faults(kind: Kind, mesh: str, name: str, document: Mapping[str, Any]) -> list[Violation]:
    """Where a document says something else than its URL. An absent field says nothing."""
    asked = {"type": kind.name, "name": name}
    if kind.scope is Scope.MESH:
        asked["mesh"] = mesh
    return [
        Violation(field, f"{field} from the URL has to be the same as in body")
        for field, value in asked.items()
        if document.get(field, value) != value
    ]


def render(
    kind: Kind,
    found: Found,
    *,
    name: str,
    labels: Mapping[str, str],
    status: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A resource as a client reads it, its keys in Kuma's order.

    Args:
        kind: The resource's kind.
        found: What is stored.
        name: What the resource is called here, hashed if synced.
        labels: All of them, computed ones included.
        status: What was computed for it; left out where the kind has none.
    """
    key, record = found.key, found.record
    document: dict[str, Any] = {"type": kind.name}
    if kind.scope is Scope.MESH:
        document["mesh"] = key.mesh
    document["name"] = name
    document["creationTime"] = rfc3339(record.created_ms)
    document["modificationTime"] = rfc3339(record.modified_ms)
    document["labels"] = labels
    if kind.short:
        document["kri"] = kind.kri(key)
    if kind.flat:
        return document | dict(record.spec)
    if kind.pool:
        document["snis"] = snis(kind, key, record.spec)
    document["spec"] = record.spec
    if status is not None:
        document["status"] = status
    return document


def render_kubernetes(kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
    """A rendered resource as a Kubernetes object, for `?format=k8s`."""
    labels = {label: value for label, value in document["labels"].items() if value}
    result: dict[str, Any] = {"apiVersion": "kuma.io/v1alpha1", "kind": kind.name}
    if kind.flat and kind.scope is Scope.MESH:
        result["mesh"] = document["mesh"]
    elif kind.scope is Scope.MESH:
        labels["kuma.io/mesh"] = document["mesh"]
    result["metadata"] = {"name": document["name"], "creationTimestamp": None}
    if kind.scope is Scope.MESH or not kind.flat:
        result["metadata"]["namespace"] = "kuma-system"
    result["metadata"]["labels"] = labels
    result["spec"] = spec_of(kind, document)
    return result


@lru_cache(maxsize=1024)  # what was written together has one time, and is listed together
def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as UTC, fractions only where there are some.

    A time beyond what can be written, which only a foreign record has, is shown as the nearest.
    """
    ms = min(max(ms, 0), TIME_MS_MAX)
    text = datetime.fromtimestamp(ms // 1000, UTC).isoformat()[:19]
    fraction = f".{ms % 1000:03}".rstrip("0") if ms % 1000 else ""
    return f"{text}{fraction}Z"


def parse_kri(text: str) -> tuple[str, Key]:
    """The kind's short name and the key of a KRI; the section is left out.

    Raises:
        MalformedError: Not seven parts of which the first is `kri`.
    """
    parts = text.split("_")
    if len(parts) != 7 or parts[0] != "kri" or not parts[1] or not parts[5]:
        raise MalformedError(
            f"{text!r} is not kri_<type>_<mesh>_<zone>_<namespace>_<name>_<section>"
        )
    _, short, mesh, zone, namespace, name, _ = parts
    return short, Key(mesh, zone, namespace, name)


def snis(kind: Kind, key: Key, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The TLS server names under which a zone proxy finds each port of a service."""
    place = ""
    if key.zone:
        place = f".{key.zone}.{key.namespace}" if key.namespace else f".{key.zone}"
    prefix = f"sni.{kind.short}.{key.mesh}{place}.{key.name}"
    return [
        {"port": each.port["port"], "sni": f"{prefix}.{each.section}"}
        for each in ports.served(ports.listed(spec))
    ]
