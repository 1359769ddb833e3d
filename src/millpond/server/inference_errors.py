"""Errors of the inference app as the protocol's error bodies."""

from __future__ import annotations

import json
import logging

from starlette.responses import Response

from millpond.core.errors import (
    AccessDenied,
    MillpondError,
    NotAuthenticated,
    NotFound,
    PayloadTooLarge,
    RequestError,
    Unavailable,
)
from millpond.core.ids import new_id
from millpond.serving.protocol import error_body

logger = logging.getLogger(__name__)

#: The first class that fits decides.
_STATUS: tuple[tuple[type[MillpondError], int], ...] = (
    (PayloadTooLarge, 413),
    (RequestError, 400),
    (NotFound, 404),
    (NotAuthenticated, 401),
    (AccessDenied, 403),
    (Unavailable, 503),
)


def status_of(error: Exception) -> int:
    """The HTTP status that tells `error`; 500 for whatever is not the caller's to mend."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_response(error: Exception, status: int | None = None) -> Response:
    """The answer that tells `error`: {"error", "type", "what", "where", "hint"}, and "id" where the log has the rest.

    `status` is the one of `status_of` unless it is given.

    An error of our own says what it says; of any other only its id is told.
    """
    status = status or status_of(error)
    error_id = new_id("e") if status == 500 else None
    if error_id is not None:
        logger.error("inference failed, error id %s", error_id, exc_info=error)
    headers = {"retry-after": "1"} if status == 503 else {}
    if status == 408:
        headers["connection"] = "close"
    return Response(error_body(error, id=error_id), status, headers, media_type="application/json")


def json_response(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; text that is not valid Unicode is escaped."""
    text = json.dumps(document, allow_nan=False)
    return Response(text, status, headers, media_type="application/json")
