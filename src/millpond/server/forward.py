"""Streams a request to a part that listens on a Unix socket, and its answer back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpcore
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

_log = logging.getLogger("millpond.server")

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
#: Not for the part behind: it is told who asks by a header of ours, and needs no credential.
_KEPT_BACK = frozenset({b"authorization", b"cookie", b"host"})
_TIMEOUT = {"connect": 2.0, "write": 60.0, "read": None, "pool": 10.0}
_NOT_ANSWERING = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


class _ClientGone(Exception):
    """The client closed the connection before its request was complete."""


@dataclass
class Forward:
    """An ASGI application that answers with what the part behind the socket answers.

    Neither body is held in memory. When the client goes away, the request behind is dropped. While nothing listens,
    and when the part ends before it has answered, the answer is 503 with Retry-After.

    Attributes:
        socket: The Unix socket.
        name: What the part is called in messages.
    """

    socket: Path
    name: str
    _pool: httpcore.AsyncConnectionPool | None = field(default=None, init=False, repr=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group:
            received = anyio.Event()

            async def watch() -> None:
                await received.wait()
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            await self._answer(scope, receive, send, received)
            group.cancel_scope.cancel()

    async def fetch(self, path: str, timeout: float = 2.0) -> str | None:
        """The text of a small document of the part; None where it does not answer within `timeout` seconds."""
        request = httpcore.Request("GET", _url(path.encode()), headers=[(b"host", b"part")])
        try:
            with anyio.fail_after(timeout):
                response = await self._connections().handle_async_request(request)
                try:
                    body = await response.aread()
                finally:
                    await response.aclose()
        except (*_NOT_ANSWERING, TimeoutError):
            return None
        return body.decode("utf-8", "replace") if response.status == 200 else None

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    def _connections(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                uds=str(self.socket), max_connections=200, max_keepalive_connections=20, keepalive_expiry=30
            )
        return self._pool

    async def _answer(self, scope: Scope, receive: Receive, send: Send, received: anyio.Event) -> None:
        request = _request(scope, receive, received)
        try:
            response = await self._connections().handle_async_request(request)
        except _ClientGone:
            return
        except _NOT_ANSWERING:
            await self._unavailable(scope, receive, send)
            return
        headers = [(name.lower(), value) for name, value in response.headers if name.lower() not in _HOP_BY_HOP]
        try:
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for chunk in response.aiter_stream():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except _NOT_ANSWERING as error:
            # Left incomplete, the answer makes the server cut the connection: the client sees that it is not whole.
            _log.warning("%s ended in the middle of an answer: %r", self.name, error)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _unavailable(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"{self.name} is starting, or has just stopped and is being started again; try again in a moment."
        await JSONResponse({"error": text}, 503, {"retry-after": "1"})(scope, receive, send)


def _url(target: bytes) -> httpcore.URL:
    return httpcore.URL(scheme=b"http", host=b"part", port=None, target=target)


def _request(scope: Scope, receive: Receive, received: anyio.Event) -> httpcore.Request:
    dropped = _HOP_BY_HOP | _KEPT_BACK
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in dropped]
    headers.append((b"host", b"part"))
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    names = {name.lower() for name, _ in scope["headers"]}
    content: AsyncIterator[bytes] | None = None
    if names & {b"content-length", b"transfer-encoding"}:
        content = _body(receive, received)
        if b"content-length" not in names:
            headers.append((b"transfer-encoding", b"chunked"))
    else:
        received.set()
    return httpcore.Request(
        scope["method"], _url(target), headers=headers, content=content, extensions={"timeout": _TIMEOUT}
    )


async def _body(receive: Receive, received: anyio.Event) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            received.set()
            return
