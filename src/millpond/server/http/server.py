"""All connections of a serving worker's HTTP wire: accepted, watched, and ended without losing what was read."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol, TypeVar

from millpond.server.http.connection import Connection, Head
from millpond.server.http.encoding import decompress, known_encoding
from millpond.server.http.limits import Limits
from millpond.server.sockets import BACKLOG

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from millpond.server.http.doors import Door
    from millpond.server.http.exchange import Exchange

_SWEEP_SECONDS = 0.25
_DRAIN_SWEEP_SECONDS = 0.05
_THREADS = 2

_log = logging.getLogger("millpond.serving")
T = TypeVar("T")


class Handler(Protocol):
    """Answers whole requests, in the thread of the event loop; at once or later."""

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, or see to it that it is answered. What it raises is the answer."""
        ...


class HttpServer:
    """The HTTP wire: listens on sockets that were made for it, and hands requests to a handler.

    Everything is called in the thread of one running event loop.

    Args:
        handler: Answers requests.
        limits: Bounds on what callers may ask.

    Attributes:
        limits: As given.
        connections: Those that are open.
        heads: Request heads by their text, which were parsed and taken before.
        held: Bytes of bodies that have come in part.
        draining: Whether the server is ending.
        date_line: The header `Date`, as it is now.
        threads: For what may block: lookups of tokens, compression.
    """

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()
        self.heads: dict[bytes, Head] = {}
        self.held = 0
        self.draining = False
        self.date_line = _date_line()
        self.threads: Executor = ThreadPoolExecutor(_THREADS, "http")
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._sweeping: asyncio.TimerHandle | None = None

    async def listen(self, listener: socket.socket, door: Door) -> None:
        """Accept the connections of a listening socket, until `stop` closes it."""

        def connection() -> Connection:
            return Connection(self, door)

        if listener.family == socket.AF_UNIX:
            server = await self._loop.create_unix_server(connection, sock=listener, backlog=BACKLOG)
        else:
            server = await self._loop.create_server(connection, sock=listener, backlog=BACKLOG)
        self._servers.append(server)
        if self._sweeping is None:
            self._sweep()

    async def stop(self, grace: float) -> None:
        """Accept no more, answer what was read, and end; what is not answered after `grace` seconds is cut off."""
        self.draining = True
        for server in self._servers:
            server.close()
        self._sweep()
        until = time.monotonic() + grace
        while self.connections and time.monotonic() < until:
            await asyncio.sleep(_DRAIN_SWEEP_SECONDS)
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self.connections:
            _log.warning("%s connections had to be cut off after %g seconds", len(self.connections), grace)
        for connection in tuple(self.connections):
            connection.abort()
        await asyncio.sleep(0)
        self.threads.shutdown(wait=False, cancel_futures=True)

    def welcome(self, connection: Connection) -> bool:
        """Whether one more connection is taken."""
        if len(self.connections) >= self.limits.connections:
            return False
        self.connections.add(connection)
        return True

    def dispatch(self, exchange: Exchange) -> None:
        """Have a whole request answered, its body decompressed first."""
        try:
            if b"content-encoding" in exchange.headers:
                self._decompress(exchange)
            else:
                self._handler.handle(exchange)
        except Exception as error:
            exchange.fail(error)

    def offload(self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Run `work` in a thread, and `then` with what it gives here; or `failed` with what it raised."""

        def run() -> None:
            try:
                done: Callable[[], None] = _call(then, work())
            except Exception as error:
                done = _call(failed, error)
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(done)

        self.threads.submit(run)

    def _decompress(self, exchange: Exchange) -> None:
        encoding = known_encoding(exchange.headers[b"content-encoding"].decode("latin-1"))
        if not encoding:
            self._handler.handle(exchange)
            return

        def plain(body: bytes) -> None:
            exchange.body = body
            try:
                self._handler.handle(exchange)
            except Exception as error:
                exchange.fail(error)

        body = exchange.body
        self.offload(lambda: decompress(body, encoding, self.limits.body_bytes), plain, exchange.fail)

    def _sweep(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.date_line = _date_line()
        now = time.monotonic()
        for connection in tuple(self.connections):
            try:
                connection.sweep(now)
            except Exception:
                _log.exception("a connection could not be looked after")
                connection.abort()
        self._sweeping = self._loop.call_later(_DRAIN_SWEEP_SECONDS if self.draining else _SWEEP_SECONDS, self._sweep)


def _call(function: Callable[[T], None], value: T) -> Callable[[], None]:
    return lambda: function(value)


def _date_line() -> bytes:
    return b"date: %b\r\n" % formatdate(usegmt=True).encode()
