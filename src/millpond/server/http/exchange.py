"""One request and its answer, in its place among those of its connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from millpond.server.http.encoding import WORTH_COMPRESSING, compress
from millpond.server.http.errors import Refusal, error_answer, headers_of, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from millpond.server.http.connection import Connection

JSON = b"application/json"
BINARY = b"application/octet-stream"

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in _REASONS.items()}


class Exchange:
    """A request that is answered once; later answers are dropped.

    Attributes:
        method: Such as b"POST".
        target: The request target as it came.
        headers: By name in small letters; of several with one name, the values with a comma between.
        body: The whole body, as it came or decompressed.
        user: Who asks; "" where nobody said, None while it is being found out.
        keep: Whether the connection goes on after the answer.
        whole: Whether all of the request is there.
        started: `time.monotonic()` at the end of the headers.
        answered: Whether an answer was given.
        expires: `time.monotonic()` at which `expire` is called, unless it was answered by then.
        expire: Answers that it took too long.
    """

    __slots__ = (
        "answered",
        "body",
        "connection",
        "expire",
        "expires",
        "headers",
        "keep",
        "method",
        "pieces",
        "started",
        "target",
        "user",
        "whole",
    )

    def __init__(
        self, connection: Connection, method: bytes, target: bytes, headers: Mapping[bytes, bytes], keep: bool
    ) -> None:
        self.connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self.keep = keep
        self.body = b""
        self.user: str | None = ""
        self.whole = False
        self.started = time.monotonic()
        self.answered = False
        self.pieces: Sequence[bytes] = ()
        self.expires = 0.0
        self.expire: Callable[[], None] | None = None

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.answered or self.connection.closed

    def answer(self, body: bytes, kind: bytes = JSON, *, status: int = 200, headers: bytes = b"") -> None:
        """Answer with a body; `headers` are whole lines."""
        if self.answered:
            return
        if status == 200 and len(body) >= WORTH_COMPRESSING and self._wants_compression:
            encoding = self.headers[b"accept-encoding"].decode().strip().lower()
            headers += b"content-encoding: %b\r\nvary: accept-encoding\r\n" % encoding.encode()
            self.connection.server.offload(
                lambda: compress(body, encoding),
                lambda packed: self._finish(status, kind, headers, packed),
                self.fail,
            )
            return
        self._finish(status, kind, headers, body)

    def answer_parts(self, document: bytes, buffers: Sequence[bytes]) -> None:
        """Answer with JSON and the binary tensors behind it (the protocol's binary tensor data extension)."""
        if not buffers:
            self.answer(document)
            return
        line = b"inference-header-content-length: %d\r\n" % len(document)
        self.answer(b"".join((document, *buffers)), BINARY, headers=line)

    def fail(self, error: Exception) -> None:
        """Answer with what went wrong."""
        if self.answered:
            return
        status = status_of(error)
        headers = headers_of(status)
        if isinstance(error, Refusal):
            headers += error.headers
        self._finish(status, JSON, headers, error_answer(error, status))

    @property
    def _wants_compression(self) -> bool:
        # Every browser and most libraries accept gzip; only who names one encoding alone asks for it.
        return self.headers.get(b"accept-encoding", b"").strip().lower() in (b"gzip", b"deflate")

    def _finish(self, status: int, kind: bytes, headers: bytes, body: bytes) -> None:
        if self.answered:
            return
        self.answered = True
        connection = self.connection
        if not self.whole:
            self.keep = False  # what is left of the request would be read as the next one
        if connection.closed:
            return
        last = connection.is_last(self)
        if last or not self.keep:
            headers += b"connection: close\r\n"
            self.keep = False
        head = b"%b%bcontent-type: %b\r\n%bcontent-length: %d\r\n\r\n" % (
            _LINES[status],
            connection.server.date_line,
            kind,
            headers,
            len(body),
        )
        if self.method == b"HEAD":
            body = b""
        # Copying a small body costs less than a second buffer.
        self.pieces = (head + body,) if len(body) < 65536 else (head, body)
        connection.deliver()
