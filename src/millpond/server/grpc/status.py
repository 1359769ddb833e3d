"""Errors as gRPC statuses.

Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html and the gRPC over HTTP/2 protocol.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from millpond.core.errors import (
    AccessDenied,
    Conflict,
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
from millpond.server.grpc.headers import header_block

logger = logging.getLogger(__name__)

OK: Final = 0
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
ABORTED: Final = 10
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

#: The first class that fits decides.
_CODES: tuple[tuple[type[MillpondError], int], ...] = (
    (PayloadTooLarge, RESOURCE_EXHAUSTED),
    (RequestError, INVALID_ARGUMENT),
    (NotFound, NOT_FOUND),
    (NotAuthenticated, UNAUTHENTICATED),
    (AccessDenied, PERMISSION_DENIED),
    (Overloaded, RESOURCE_EXHAUSTED),
    (DeadlineExceeded, DEADLINE_EXCEEDED),
    (Unavailable, UNAVAILABLE),
    (Conflict, ABORTED),
)

#: The HTTP status that says the same; 500 is that of every other.
_HTTP = {
    OK: 200,
    INVALID_ARGUMENT: 400,
    DEADLINE_EXCEEDED: 504,
    NOT_FOUND: 404,
    PERMISSION_DENIED: 403,
    RESOURCE_EXHAUSTED: 429,
    ABORTED: 409,
    UNAVAILABLE: 503,
    UNAUTHENTICATED: 401,
}

#: Longest `grpc-message`, in bytes before it is encoded: clients refuse long trailers.
_MESSAGE_BYTES = 1024
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}


class Status(NamedTuple):
    """How a call ended.

    Attributes:
        code: The gRPC status code.
        message: What the caller is told.
        fields: Further header fields of the answer.
        http: The HTTP status; other than 200 only where the request was no gRPC.
    """

    code: int
    message: str
    fields: tuple[tuple[bytes, bytes], ...] = ()
    http: int = 200


def code_of(error: Exception) -> int:
    """The status code that tells `error`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL)


def http_status(code: int) -> int:
    """The HTTP status that says the same as a gRPC status code."""
    return _HTTP.get(code, 500)


def status_of(error: Exception) -> Status:
    """The status that tells `error`. An error of our own says what it says; of any other only its id is told."""
    code = code_of(error)
    if isinstance(error, MillpondError):
        place = f" ({error.where})" if error.where else ""
        message = f"{error.what}{place}" + (f"; {error.hint}" if error.hint else "")
    else:
        message = "an internal error; look for the id in the log of the server"
    if code == INTERNAL:
        id = new_id("e")
        message = f"{message} [{id}]"
        logger.error("a gRPC call failed, error id %s", id, exc_info=error)
    return Status(code, message)


def trailers_only(status: Status) -> bytes:
    """The header block that is the whole answer of a call that failed."""
    return header_block(
        (
            (b":status", str(status.http).encode()),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", str(status.code).encode()),
            (b"grpc-message", percent_encoded(status.message)),
            *status.fields,
        )
    )


def percent_encoded(message: str) -> bytes:
    """A message as the header `grpc-message` carries it; cut where it is long, between characters."""
    data = message.encode(errors="replace")
    if len(data) > _MESSAGE_BYTES:
        data = (data[:_MESSAGE_BYTES].decode(errors="ignore") + " ...").encode()
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in data)
