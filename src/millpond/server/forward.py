"""Streams a request to a part that listens on a Unix socket, and its answer back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
#: Not for the part behind: it is told who asks by a header of ours, and needs no credential.
_KEPT_BACK = frozenset({b"authorization", b"cookie", b"host"})
_TIMEOUT = {"connect": 2.0, "write": 60.0, "read": None, "pool": 10.0}


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
    _transport: httpx.AsyncHTTPTransport | None = field(default=None, init=False, repr=False)

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
        request = httpx.Request("GET", f"http://part{path}")
        try:
            with anyio.fail_after(timeout):
                response = await self._connect().handle_async_request(request)
                try:
                    await response.aread()
                finally:
                    await response.aclose()
        except (httpx.TransportError, TimeoutError):
            return None
        return response.text if response.status_code == 200 else None

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    def _connect(self) -> httpx.AsyncHTTPTransport:
        if self._transport is None:
            limits = httpx.Limits(max_connections=200, max_keepalive_connections=20, keepalive_expiry=30)
            self._transport = httpx.AsyncHTTPTransport(uds=str(self.socket), limits=limits)
        return self._transport

    async def _answer(self, scope: Scope, receive: Receive, send: Send, received: anyio.Event) -> None:
        request = _request(scope, receive, received)
        try:
            response = await self._connect().handle_async_request(request)
        except _ClientGone:
            return
        except httpx.TransportError:
            await self._unavailable(scope, receive, send)
            return
        headers = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in _HOP_BY_HOP]
        try:
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for chunk in response.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _unavailable(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"{self.name} is starting, or has just stopped and is being started again; try again in a moment."
        await JSONResponse({"error": text}, 503, {"retry-after": "1"})(scope, receive, send)


def _request(scope: Scope, receive: Receive, received: anyio.Event) -> httpx.Request:
    dropped = _HOP_BY_HOP | _KEPT_BACK
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in dropped]
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    url = httpx.URL("http://part", raw_path=target)
    names = {name.lower() for name, _ in scope["headers"]}
    if names & {b"content-length", b"transfer-encoding"}:
        content: AsyncIterator[bytes] | None = _body(receive, received)
    else:
        content = None
        received.set()
    return httpx.Request(scope["method"], url, headers=headers, content=content, extensions={"timeout": _TIMEOUT})


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
