"""A connection of HTTP/1.1: bytes in, requests in order; answers in order, bytes out.

Source: RFC 9112. Requests are parsed by httptools (llhttp), which refuses what could be read in two ways: several
lengths, a length beside chunks, bare line feeds, spaces in names.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from millpond.core.errors import Overloaded, RequestError
from millpond.server.http.encoding import known_encoding, too_large
from millpond.server.http.errors import Refusal
from millpond.server.http.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from millpond.server.http.doors import Door
    from millpond.server.http.server import HttpServer

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Most of a refused request that is thrown away before its connection is cut.
_LINGER_BYTES = 64 << 20

#: Bytes on the wire for each byte of a chunked body; more is made to keep us busy.
_CHUNK_COST = 4

#: Seconds that a connection without a request is kept while the server ends: what was sent before is read by then.
_DRAIN_IDLE = 0.2

# Why nothing is read from a connection, as bits.
_WRITING, _ENTERING, _QUEUEING = 1, 2, 4


#: What ends a head, and what makes one that is parsed each time anew.
_END_OF_HEAD = b"\r\n\r\n"
_NEVER_KNOWN = frozenset({b"transfer-encoding", b"expect", b"upgrade"})

#: Heads that are remembered, and the longest of them in bytes.
_KNOWN_HEADS, _LONGEST_KNOWN_HEAD = 1024, 2048


class Head(NamedTuple):
    """A request line and headers that the parser has taken, for a body of `length` bytes. Never changed."""

    method: bytes
    target: bytes
    headers: Mapping[bytes, bytes]
    length: int


class Connection(asyncio.Protocol):
    """One connection. Made by an event loop for each that is accepted.

    Attributes:
        server: What all connections share.
        door: Tells who a request comes from.
        closed: Whether it is over.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_exchange",
        "_head_bytes",
        "_headers",
        "_held",
        "_idle_since",
        "_last",
        "_lingering",
        "_parser",
        "_pauses",
        "_queue",
        "_raw",
        "_size",
        "_stopped",
        "_transport",
        "_until",
        "_url",
        "_wants_continue",
        "_write_paused_at",
        "closed",
        "door",
        "server",
    )

    def __init__(self, server: HttpServer, door: Door) -> None:
        self.server = server
        self.door = door
        self.closed = False
        self._parser = HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()  # of requests whose answers are not written, in order
        self._exchange: Exchange | None = None  # the one whose body is being read
        self._transport: asyncio.Transport
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._last: Exchange | None = None  # one that this very piece of data made whole
        self._begun = False  # some of a request was read, and not all
        self._stopped = False  # no further request is read
        self._lingering = False
        self._wants_continue = False
        self._pauses = 0
        self._head_bytes = self._size = self._raw = self._held = 0
        self._until = self._write_paused_at = 0.0
        self._idle_since = time.monotonic()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self.server.welcome(self):
            self._stopped = self.closed = True
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = self._stopped = True
        self.server.connections.discard(self)
        self._release()
        self._queue.clear()

    def eof_received(self) -> None:
        """The caller has closed; whoever shuts down one direction alone is taken to be gone as well."""

    def pause_writing(self) -> None:
        self._write_paused_at = time.monotonic()
        self._pause(_WRITING)

    def resume_writing(self) -> None:
        self._write_paused_at = 0.0
        self._resume(_WRITING)

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            self._throw_away(data)
            return
        fresh = not self._begun
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD) if fresh else 0
        known = self.server.heads.get(data[:end]) if fresh else None
        if known is not None and known.length == len(data) - end:
            self._take(known, data[end:])
            self._last = None
            return
        in_body = self._exchange is not None
        if not in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._parse_failed(error)
            return
        except HttpParserUpgrade:
            self._stopped = True
            return
        if self._stopped:
            return
        if self._begun:
            self._check_partial(len(data) if in_body else 0)
        elif fresh:
            self._remember(data, end)
        self._last = None

    def _take(self, head: Head, body: bytes) -> None:
        """Go on with a whole request whose head was parsed before, for this or another connection."""
        exchange = self._exchange = Exchange(self, head.method, head.target, head.headers, keep=True)
        self._queue.append(exchange)
        try:
            self.door.enter(exchange)
        except Exception as error:
            self._refuse(exchange, error)
            return
        if exchange.user is None:
            self._pause(_ENTERING)
        self._body, self._size = body, len(body)
        self.on_message_complete()

    def _remember(self, data: bytes, end: int) -> None:
        """Keep the head of a request that came whole and by itself: clients send the same one again and again."""
        exchange = self._last
        if exchange is None or end > _LONGEST_KNOWN_HEAD or not exchange.keep:
            return
        headers = exchange.headers
        length = headers.get(b"content-length")
        if length is None or int(length) != len(data) - end or headers.keys() & _NEVER_KNOWN:
            return
        heads = self.server.heads
        if len(heads) >= _KNOWN_HEADS:
            heads.clear()
        heads[data[:end]] = Head(exchange.method, exchange.target, headers, int(length))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            return  # a trailer: nothing that a request says after its body counts
        name = name.lower()
        headers = self._headers
        headers[name] = headers[name] + b"," + value if name in headers else value

    def on_headers_complete(self) -> None:
        parser = self._parser
        exchange = Exchange(self, parser.get_method(), self._url, self._headers, parser.should_keep_alive())
        self._exchange = exchange
        self._queue.append(exchange)
        try:
            self._check_head(exchange)
            self.door.enter(exchange)
        except Exception as error:
            self._refuse(exchange, error)
            raise
        self._url, self._headers = b"", {}
        self._head_bytes = self._size = 0
        if exchange.user is None:
            self._pause(_ENTERING)
        if self._wants_continue:
            self._say_continue()

    def on_body(self, data: bytes) -> None:
        size = self._size = self._size + len(data)
        exchange = self._exchange
        assert exchange is not None
        if size > self.server.limits.body_bytes:
            error = too_large(self.server.limits.body_bytes, "is longer")
            self._refuse(exchange, error)
            raise error
        if size == len(data):
            self._body = data
            return
        # A bytearray, as a list of small chunks would take many times their size.
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += data
        self.server.held += size - self._held
        self._held = size
        if self.server.held > self.server.limits.held_bytes:
            full = Overloaded(
                f"{self.server.held} bytes of requests are being received already",
                where="request body",
                hint="ask again in a moment",
            )
            self._refuse(exchange, full)
            raise full

    def on_message_complete(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        if self._size:
            exchange.body = bytes(self._body)
            self._release()
        self._exchange = None
        self._begun = self._wants_continue = False
        self._raw = 0
        self._until = 0.0
        self._idle_since = exchange.started
        exchange.whole = True
        self._last = exchange
        if not exchange.keep:
            self._stopped = True
        if len(self._queue) > self.server.limits.pipelined:
            self._pause(_QUEUEING)
        if exchange.user is not None:
            self.server.dispatch(exchange)

    # What exchanges and doors call.

    def admitted(self, exchange: Exchange) -> None:
        """Go on with a request whose caller was not known until now; `exchange.user` is set."""
        self._resume(_ENTERING)
        if self._wants_continue:
            self._say_continue()
        if exchange.whole and not exchange.gone():
            self.server.dispatch(exchange)

    def refused(self, exchange: Exchange, error: Exception) -> None:
        """Answer a request that may not go on."""
        self._resume(_ENTERING)
        if exchange.whole:
            exchange.fail(error)
        elif not self.closed:
            self._refuse(exchange, error)

    def is_last(self, exchange: Exchange) -> bool:
        """Whether the server is ending, and this is the last answer that the connection waits for."""
        return self.server.draining and bool(self._queue) and self._queue[-1] is exchange

    def deliver(self) -> None:
        """Write what has been answered, in the order of the requests. The event loop joins the writes of one turn."""
        queue, transport = self._queue, self._transport
        while queue and queue[0].answered:
            first = queue.popleft()
            if transport.is_closing():
                continue
            if len(first.pieces) == 1:
                transport.write(first.pieces[0])
            else:
                transport.writelines(first.pieces)
            if not first.keep:
                self._end(linger=not first.whole)
                return
        if self._pauses & _QUEUEING and len(queue) <= self.server.limits.pipelined // 2:
            self._resume(_QUEUEING)
        if self._wants_continue:
            self._say_continue()

    # What the server calls now and then.

    def sweep(self, now: float) -> None:
        """Look for what takes too long."""
        limits = self.server.limits
        if self._lingering:
            if now > self._until:
                self._transport.abort()
            return
        if self._write_paused_at and now > self._write_paused_at + limits.message_seconds:
            self._transport.abort()
            return
        for exchange in tuple(self._queue):
            if exchange.expire is not None and now > exchange.expires and not exchange.answered:
                exchange.expire()
        if self._until and now > self._until and not self._stopped:
            self._refuse_now(408, f"the request did not arrive within {limits.message_seconds:g} seconds")
        elif self._queue or self._begun:
            self._idle_since = now
        elif now > self._idle_since + (limits.idle_seconds if not self.server.draining else _DRAIN_IDLE):
            self._transport.close()

    def abort(self) -> None:
        """End it, whatever it is doing."""
        self._transport.abort()

    # Reading

    def _check_head(self, exchange: Exchange) -> None:
        headers, limits = exchange.headers, self.server.limits
        if self._head_bytes > limits.head_bytes:
            size = len(exchange.target) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size > limits.head_bytes:
                raise _head_too_large(limits.head_bytes)
        if b"host" not in headers:
            if self._parser.get_http_version() != "1.0":
                raise Refusal(400, RequestError("the request has no Host", where="headers", hint="send one"))
        elif b"," in headers[b"host"]:
            raise Refusal(400, RequestError("the request has several Hosts", where="headers", hint="send one"))
        length = headers.get(b"content-length")
        if length is not None:
            if b"transfer-encoding" in headers:
                what = "the request says its length, and that it comes in chunks"
                raise Refusal(400, RequestError(what, where="headers", hint="send one of the two"))
            if int(length) > limits.body_bytes:
                raise too_large(limits.body_bytes, f"has {int(length)} bytes")
        elif b"transfer-encoding" in headers and (
            headers[b"transfer-encoding"].strip().lower() != b"chunked" or self._parser.get_http_version() == "1.0"
        ):
            what = f"the transfer encoding {headers[b'transfer-encoding'].decode('latin-1')!r} is not taken"
            raise Refusal(501, RequestError(what, where="Transfer-Encoding", hint="send it as chunked"))
        if b"content-encoding" in headers:
            known_encoding(headers[b"content-encoding"].decode("latin-1"))
        if b"upgrade" in headers:
            exchange.keep = False
        if b"expect" in headers and self._parser.get_http_version() != "1.0":
            if headers[b"expect"].strip().lower() != b"100-continue":
                raise Refusal(417, RequestError("the expectation is not known", where="Expect", hint="100-continue"))
            self._wants_continue = True

    def _check_partial(self, raw: int) -> None:
        """Look at a request of which `raw` bytes of body came, and more is to come."""
        limits = self.server.limits
        if not self._until:
            self._until = time.monotonic() + limits.message_seconds
        if self._exchange is None:
            if self._head_bytes > limits.head_bytes:
                self._refuse_error(_head_too_large(limits.head_bytes))
            return
        self._raw += raw
        if self._raw > _CHUNK_COST * self._size + 2 * limits.head_bytes:
            self._refuse_now(400, "the chunks of the body are too small, or have too much between them")

    def _say_continue(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.user is not None and self._queue[0] is exchange:
            self._wants_continue = False
            if not self._size:
                self._transport.write(_CONTINUE)

    def _throw_away(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _LINGER_BYTES:
            self._transport.abort()

    # Refusing

    def _parse_failed(self, error: HttpParserError) -> None:
        if self._stopped:
            return
        if isinstance(error, HttpParserCallbackError):
            self._refuse_error(error.__context__ if isinstance(error.__context__, Exception) else error)
        else:
            self._refuse_now(400, f"the request is not HTTP/1.1: {error}")

    def _refuse_now(self, status: int, what: str) -> None:
        self._refuse_error(Refusal(status, RequestError(what, where=self._url.decode("latin-1"), hint="send it again")))

    def _refuse_error(self, error: Exception) -> None:
        """Refuse the request that is being read, however little of it is there."""
        exchange = self._exchange
        if exchange is None:
            exchange = Exchange(self, b"", self._url, {}, keep=False)
            self._queue.append(exchange)
        self._refuse(exchange, error)

    def _refuse(self, exchange: Exchange, error: Exception) -> None:
        """Answer a request of which more is to come, and read nothing after it."""
        self._stopped = True
        self._wants_continue = False
        self._until = 0.0
        self._release()
        exchange.fail(error)

    def _release(self) -> None:
        self._body = b""
        self.server.held -= self._held
        self._held = 0

    # Pausing and ending

    def _pause(self, why: int) -> None:
        if not self._pauses and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses |= why

    def _resume(self, why: int) -> None:
        if self._pauses & why:
            self._pauses &= ~why
            if not self._pauses and not self._transport.is_closing():
                self._transport.resume_reading()

    def _end(self, *, linger: bool) -> None:
        """End the connection once all is written; with `linger`, once the caller has had time to read it."""
        self._stopped = True
        self._queue.clear()
        if not linger or self._transport.is_closing():
            self._transport.close()
            return
        # Closed with bytes unread, the connection would be reset, and the answer lost with it.
        self._transport.write_eof()
        self._lingering = True
        self._size = 0
        self._until = time.monotonic() + self.server.limits.linger_seconds
        self._resume(self._pauses)


def _head_too_large(limit: int) -> Refusal:
    what = f"the request line and headers are longer than {limit} bytes"
    return Refusal(431, RequestError(what, where="headers", hint="send fewer or shorter headers"))
