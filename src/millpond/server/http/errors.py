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
from millpond.serving.protocol import error_body

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


def error_answer(error: Exception, status: int) -> bytes:
    """The body that tells `error`; where the server is to blame, with an id under which the log has the rest."""
    if isinstance(error, Refusal):
        error = error.error
    if status != 500:
        return error_body(error)
    id = new_id("e")
    logger.error("inference failed, error id %s", id, exc_info=error)
    return error_body(error, id=id)


def to_json(document: object) -> bytes:
    """A document as JSON; text that is not valid Unicode is escaped."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, allow_nan=False).encode()
