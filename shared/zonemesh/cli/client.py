"""Asking a control plane over REST, and its errors as lines that a person can act on."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from zonemesh.errors import ConfigError, MeshError, UnavailableError

PAGE = 1_000
"""The largest page that the API gives."""

Document = dict[str, Any]
Query = Sequence[tuple[str, str]]


class AnsweredError(MeshError):
    """The control plane understood, and said no."""

    code: ClassVar[str] = "answered"

    def __init__(self, status: int, lines: Iterable[str], *, titled: bool) -> None:
        self.status = status
        self.lines = tuple(lines)
        self.titled = titled
        """Whether it was Kuma's error document. Only then does a 404 mean that a thing is absent,
        and not that this is no control plane, or one without such a route."""
        super().__init__("\n".join(self.lines))

    @property
    def absent(self) -> bool:
        return self.status == 404 and self.titled


class Page(NamedTuple):
    items: list[Document]
    total: int
    offset: int | None
    """Of the page after this one; None at the end."""


class Answer(NamedTuple):
    status: int
    body: bytes


@dataclass(slots=True)
class Client:
    """One control plane. Connects when first asked and keeps the connection."""

    url: str
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those of every request: a token."""
    body_bytes_max: int | None = None
    """Read of an answer; what is longer is none. None: all of it."""
    _connection: http.client.HTTPConnection | None = None

    def get(self, path: str, query: Query = ()) -> Document:
        """The document at a path.

        Raises:
            AnsweredError: Any status but 200.
            UnavailableError: No answer, or none that can be read.
        """
        return self._document(self._ask("GET", f"{path}?{urlencode(query)}" if query else path))

    def ask(self, method: str, path: str) -> Document:
        """The same for any method, without a body."""
        return self._document(self._ask(method, path))

    def find(self, path: str) -> Document | None:
        """`get`; None if there is no such resource."""
        try:
            return self.get(path)
        except AnsweredError as error:
            if error.absent:
                return None
            raise

    def put(self, path: str, document: Mapping[str, Any]) -> list[str]:
        """Create or replace a resource; answers the control plane's warnings."""
        body = json.dumps(document).encode()
        answered = self._document(self._ask("PUT", path, body))
        return list(map(str, answered.get("warnings") or ()))

    def delete(self, path: str) -> None:
        self._document(self._ask("DELETE", path))

    def bulk(self, documents: Iterable[Mapping[str, Any]]) -> list[Document]:
        """Write many resources at once; one result per document that was answered, in order."""
        body = b"".join(json.dumps(document).encode() + b"\n" for document in documents)
        answer = self._ask("POST", "/_bulk", body)
        if answer.status != 200:
            raise _problem(answer)
        return [_parsed(line, self.url) for line in answer.body.splitlines() if line.strip()]

    def page(self, path: str, *, size: int, offset: int, query: Query = ()) -> Page:
        found = self.get(path, (*query, ("size", str(size)), ("offset", str(offset))))
        items = found.get("items") or []
        more = found.get("next") is not None and len(items) > 0
        return Page(items, found.get("total", len(items)), offset + size if more else None)

    def items(self, path: str, limit: int, query: Query = ()) -> Iterator[Document]:
        """The resources of a list, page after page, so many at most."""
        offset: int | None = 0
        while offset is not None and limit > 0:
            page = self.page(path, size=min(PAGE, limit), offset=offset, query=query)
            yield from page.items
            limit -= len(page.items)
            offset = page.offset

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _document(self, answer: Answer) -> Document:
        if answer.status not in (200, 201):
            raise _problem(answer)
        return _parsed(answer.body, self.url) if answer.body.strip() else {}

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        fresh = self._connection is None
        try:
            return self._send(method, path, body)
        except (http.client.RemoteDisconnected, ConnectionResetError) as error:
            # A connection that was kept may have been closed meanwhile; only a question is
            # asked again, as a write may have happened.
            if fresh or method != "GET":
                raise UnavailableError(f"{self.url} closed the connection: {error}") from error
            return self._ask(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{self.url} does not answer: {_reason(error)}") from error

    def _send(self, method: str, path: str, body: bytes | None) -> Answer:
        if self._connection is None:
            self._connection = _connection(self.url, self.timeout_s)
        headers = {"Accept": "application/json", **self.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        base = urlsplit(self.url).path.rstrip("/")
        try:
            self._connection.request(method, base + path, body, headers)
            response = self._connection.getresponse()
            return Answer(response.status, response.read(self.body_bytes_max))
        except (OSError, http.client.HTTPException):
            self.close()
            raise


def item_path(collection: str, mesh: str | None, name: str) -> str:
    """The path of a resource; `mesh` is None for kinds outside meshes."""
    return f"{list_path(collection, mesh)}/{quote(name, safe='')}"


def list_path(collection: str, mesh: str | None) -> str:
    """The path of a list: in one mesh, or for kinds outside meshes or across meshes (None)."""
    return f"/{collection}" if mesh is None else f"/meshes/{quote(mesh, safe='')}/{collection}"


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise ConfigError([f"--url: {url!r} is not a URL like http://127.0.0.1:5681"])
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, port, timeout=timeout_s)
    return http.client.HTTPConnection(parts.hostname, port, timeout=timeout_s)


def _parsed(data: bytes, url: str) -> Document:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"{url} did not answer with JSON: {error}") from error
    if not isinstance(document, dict):
        raise UnavailableError(f"{url} did not answer with a JSON object")
    return document


def _problem(answer: Answer) -> AnsweredError:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and document.get("title"):
        return AnsweredError(answer.status, problem_lines(document), titled=True)
    text = " ".join(answer.body.decode(errors="replace").split())
    return AnsweredError(answer.status, [f"({answer.status}): {text[:500]}"], titled=False)


def problem_lines(document: Mapping[str, Any]) -> list[str]:
    """Kuma's error document as kumactl prints it: `Title (detail)`, then `* field: reason`."""
    detail = document.get("detail") or document.get("details")
    title = str(document.get("title"))
    faults = document.get("invalid_parameters") or ()
    return [
        f"{title} ({detail})" if detail else title,
        *(f"* {each.get('field')}: {each.get('reason')}" for each in faults),
    ]


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
