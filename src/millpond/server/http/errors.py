"""Errors as HTTP answers of the Open Inference Protocol."""

from __future__ import annotations

import json
import logging

import orjson

from millpond.core.errors import (
    AccessDenied,
    DeadlineExceeded,
    MillpondError,
    NotAuthenticated,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RequestError,
    Unavailable,
)
from millpond.core.ids import new_id

logger = logging.getLogger("millpond.serving")

#: The first class that fits decides.
_STATUS: tuple[tuple[type[MillpondError], int], ...] = (
    (PayloadTooLarge, 413),
    (RequestError, 400),
    (NotFound, 404),
    (NotAuthenticated, 401),
    (AccessDenied, 403),
    (Overloaded, 429),
    (DeadlineExceeded, 504),
    (Unavailable, 503),
)

_HEADERS = {
    401: b'www-authenticate: Bearer realm="millpond"\r\n',
    429: b"retry-after: 1\r\n",
    503: b"retry-after: 1\r\n",
}


class Refusal(Exception):
    """A request that is refused with a status of its own; `error` says why, `headers` are whole lines."""

    def __init__(self, status: int, error: MillpondError, headers: bytes = b"") -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error
        self.headers = headers


def status_of(error: Exception) -> int:
    """The HTTP status that tells `error`; 500 for whatever is not the caller's to mend."""
    if isinstance(error, Refusal):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def headers_of(status: int) -> bytes:
    """Header lines that belong with a status."""
    return _HEADERS.get(status, b"")


def error_body(error: Exception, status: int) -> bytes:
    """The body that tells `error`: {"error", "type", "what", "where", "hint"}, and "id" where the log has the rest.

    An error of our own says what it says; of any other only its id is told.
    """
    if isinstance(error, Refusal):
        error = error.error
    body: dict[str, object]
    if isinstance(error, MillpondError):
        body = {
            "error": sentence(error),
            "type": type(error).__name__,
            "what": error.what,
            "where": error.where,
            "hint": error.hint,
        }
    else:
        body = {"what": "an internal error", "where": "", "hint": "look for the id in the log of the server"}
        body["error"] = f"an internal error; {body['hint']}"
    if status == 500:
        body["id"] = new_id("e")
        body["error"] = f"{body['error']} [{body['id']}]"
        logger.error("inference failed, error id %s", body["id"], exc_info=error)
    return to_json(body)


def to_json(document: object) -> bytes:
    """A document as JSON; text that is not valid Unicode is escaped."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, allow_nan=False).encode()


def sentence(error: MillpondError) -> str:
    """An error in one line."""
    place = f" ({error.where})" if error.where else ""
    return f"{error.what}{place}" + (f"; {error.hint}" if error.hint else "")
