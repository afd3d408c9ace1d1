"""JSON as Kuma writes it: indented by one space, no HTML escaping, a newline at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

JSON_TYPE = "application/json"

_HEADERS = CIMultiDictProxy(CIMultiDict({"Content-Type": JSON_TYPE}))


def _plain(value: Any) -> Any:
    """Read-only views, which msgspec does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, float | int | str):  # subclasses, such as StrEnum
        return value
    raise NotImplementedError(f"{type(value).__name__} in an answer")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)

encode = _ENCODER.encode
"""Compact JSON, for streams of lines."""


def pretty(document: Any) -> bytes:
    """An answer's body."""
    return msgspec.json.format(_ENCODER.encode(document), indent=1) + b"\n"


def json(document: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=pretty(document), status=status, headers=_HEADERS)


def empty(*, status: int = 200) -> web.Response:
    """`{}`: what Kuma answers to a write without warnings. No encoder: the fast path of PUT."""
    return web.Response(body=b"{}\n", status=status, headers=_HEADERS)


def warned(warnings: Sequence[str], *, status: int) -> web.Response:
    """What Kuma answers to a write: its warnings, where there are some."""
    return json({"warnings": warnings}, status=status) if warnings else empty(status=status)
