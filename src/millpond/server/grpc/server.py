"""Serving the Open Inference Protocol over gRPC in the running event loop."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping

from millpond.server.grpc.calls import Calls, Identify, Method
from millpond.server.grpc.http2 import Http2Connection, Waiting
from millpond.server.grpc.infer import Metrics
from millpond.server.grpc.limits import GrpcLimits
from millpond.server.grpc.service import InferenceService
from millpond.serving.ports import Answering

#: Seconds between two looks at deadlines and slow clients.
_SWEEP_SECONDS = 0.25


class GrpcServer:
    """A gRPC server on one listening socket; used in the thread of its event loop.

    Args:
        methods: What it answers, by path.
        identify: Establishes who asks.
        limits: What one client may ask for.
    """

    def __init__(self, methods: Mapping[bytes, Method], identify: Identify, limits: GrpcLimits) -> None:
        self._calls = Calls(methods, identify, limits)
        self._limits = limits
        self._waiting = Waiting()
        self._open: set[Http2Connection] = set()
        self._listener: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None

    def connection(self) -> Http2Connection:
        """The protocol of a new connection."""
        return Http2Connection(self._calls, self._limits, self._waiting, self._open)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of requests that are still arriving."""
        return self._waiting.held

    async def start(self, sock: socket.socket) -> None:
        """Serve on a bound TCP socket, which is closed with the server."""
        self._listener = await asyncio.get_running_loop().create_server(self.connection, sock=sock, backlog=1024)
        self._sweep_later()

    async def drain(self, seconds: float) -> None:
        """Stop: take no new connections, answer what was asked, then close.

        Clients are told, and ask another server from then on. What is not done within `seconds` is cut off.
        """
        if self._listener is not None:
            self._listener.close()
        for each in list(self._open):
            each.drain()
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self.abort()

    def abort(self) -> None:
        """Stop at once."""
        if self._listener is not None:
            self._listener.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for each in list(self._open):
            each.abort()

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep_now)

    def _sweep_now(self) -> None:
        now = time.monotonic()
        for each in list(self._open):
            each.sweep(now)
        self._sweep_later()


async def serve_grpc(
    answering: Answering,
    identify: Identify,
    sock: socket.socket,
    limits: GrpcLimits | None = None,
    *,
    metrics: Metrics | None = None,
    ending: Callable[[], bool] = lambda: False,
) -> GrpcServer:
    """Serve `inference.GRPCInferenceService` and gRPC's health service on a bound TCP socket, in this event loop.

    The port speaks HTTP/2 with prior knowledge; TLS is the business of a proxy before it.

    Args:
        answering: What is asked.
        identify: Establishes who holds a token; called for every call but those about health.
        sock: Taken over; may be shared with other processes.
        limits: What one client may ask for.
        metrics: Counts inferences; may be shared with other wires of the process.
        ending: Whether the process is ending, and so not ready.

    Returns:
        The server; `drain` ends it.
    """
    service = InferenceService(answering, metrics, ending)
    server = GrpcServer(service.methods(), identify, limits or GrpcLimits())
    await server.start(sock)
    return server
