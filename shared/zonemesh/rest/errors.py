"""Errors as Kuma's API tells them: one middleware, one table of status codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.typedefs import Handler

from zonemesh.errors import (
    ConflictError,
    DeniedError,
    InputError,
    MeshError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
    ValidationError,
    Violation,
)
from zonemesh.rest import answer

log = structlog.get_logger(__name__)

TITLE = web.RequestKey("title", str)
"""Set by a handler whose operation is not what its method says."""

COULD_NOT_PROCESS = "Could not process a resource"
NOT_VALID = "Resource is not valid"


class MeshMissingError(NotFoundError):
    title: ClassVar[str] = "Failed to retrieve Mesh"


class MalformedError(InputError):
    """Not a document at all, or a field of another type than every document has."""

    code = "malformed"
    title: ClassVar[str] = "Bad Request"


class ReadOnlyError(DeniedError):
    code = "read_only"
    title: ClassVar[str] = "Method not allowed"


class ParameterError(ValidationError):
    """A query parameter; `detail` replaces the words about the resource."""

    code = "invalid_parameter"

    def __init__(self, detail: str, field: str, reason: str) -> None:
        super().__init__([Violation(field, reason)])
        self.detail = detail


# The first match counts: the more special family first.
_STATUS: Mapping[type[MeshError], HTTPStatus] = {
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InputError: HTTPStatus.BAD_REQUEST,
    DeniedError: HTTPStatus.METHOD_NOT_ALLOWED,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    MeshError: HTTPStatus.SERVICE_UNAVAILABLE,  # a fault of the log; heals by itself
}

_TITLES: Mapping[HTTPStatus, str] = {
    HTTPStatus.CONFLICT: "Conflict",
    HTTPStatus.SERVICE_UNAVAILABLE: "Service Unavailable",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Request Entity Too Large",
}


def problem(error: MeshError, title: str) -> dict[str, Any]:
    """Kuma's error body for an error; `title` names the operation that failed."""
    status = next(status for family, status in _STATUS.items() if isinstance(error, family))
    title = _TITLES.get(status) or str(getattr(error, "title", title))
    if isinstance(error, ValidationError):
        return body(status, title, getattr(error, "detail", NOT_VALID), error.violations)
    return body(status, title, "Not found" if status == HTTPStatus.NOT_FOUND else str(error))


def body(
    status: int, title: str, detail: str, violations: Sequence[Violation] = ()
) -> dict[str, Any]:
    """The document; `details` and `causes` repeat the others for clients before Kuma 2.4."""
    document: dict[str, Any] = {
        "type": "/std-errors",
        "status": int(status),
        "title": title,
        "detail": detail,
    }
    if violations:
        document["invalid_parameters"] = [
            {"field": violation.field, "reason": violation.reason} for violation in violations
        ]
    document["details"] = detail
    if violations:
        document["causes"] = [
            {"field": violation.field, "message": violation.reason} for violation in violations
        ]
    return document


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer."""
    try:
        return await handler(request)
    except MeshError as error:
        document = problem(error, title_of(request))
        response = answer.json(document, status=document["status"])
        if isinstance(error, OverloadedError):
            response.headers["Retry-After"] = str(error.retry_after_s)
        return response
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _from_aiohttp(error)
    except ConnectionError:
        raise  # the client is gone; aiohttp ends the connection
    except (web.RequestPayloadError, BadHttpMessage) as error:
        # The body ended early, or is not encoded as it says.
        why = f"the body cannot be read: {getattr(error, 'message', '') or error}"
        return answer.json(body(HTTPStatus.BAD_REQUEST, "Bad Request", why), status=400)
    except Exception:  # a bug in one request must not take the feed of 1,000 agents down
        log.exception("request_failed", method=request.method, path=request.path)
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return answer.json(body(status, "Internal Server Error", "see the log"), status=status)


def title_of(request: web.Request) -> str:
    """What Kuma calls the operation of a request when it fails."""
    if TITLE in request:
        return request[TITLE]
    match request.method:
        case "GET" | "HEAD":
            one = "name" in request.match_info
            return "Could not retrieve a resource" if one else "Could not retrieve resources"
        case "DELETE":
            return "Could not delete a resource"
        case _:
            return COULD_NOT_PROCESS


def _from_aiohttp(error: web.HTTPException) -> web.Response:
    """What the router and the body reader refuse."""
    match error:
        case web.HTTPNotFound():
            document = body(404, "Not found", "Page Not Found")
        case web.HTTPMethodNotAllowed():
            document = body(405, "Method not allowed", f"{error.method} is not allowed here")
        case web.HTTPRequestEntityTooLarge():
            document = body(413, "Request Entity Too Large", error.text or error.reason)
        case _:
            document = body(error.status, error.reason, error.text or error.reason)
    response = answer.json(document, status=error.status)
    for name, value in error.headers.items():
        response.headers.setdefault(name, value)  # `Allow`, and what `proxy` adds
    return response
