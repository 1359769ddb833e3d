"""Streams a request to a part that listens on Unix sockets, and its answer back."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpcore
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from millpond.platform.workers import LOOK_EVERY, PATIENCE

_log = logging.getLogger("millpond.server")

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
#: Not for the part behind: it is told who asks by a header of ours, and needs no credential.
_KEPT_BACK = frozenset({b"authorization", b"cookie", b"host"})
_TIMEOUT = {"connect": 2.0, "write": 60.0, "read": None, "pool": 10.0}
#: The header in which a caller says how many seconds it waits.
_CALLERS_TIMEOUT = b"x-request-timeout"
#: Paths that tell how the part is, and so do not wait until it is better.
_HEALTH = "/v2/health/"
#: Requests that may wait so; more are refused at once.
_MOST_WAITING = 256
_NOT_ANSWERING = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


class _ClientGone(Exception):
    """The client closed the connection before its request was complete."""


@dataclass
class Forward:
    """An ASGI application that answers with what the part behind the sockets answers.

    The processes of a part are equal: requests go to the one that has the fewest, and to another where it cannot be
    reached. Neither body is held in memory. When the client goes away, the request behind is dropped. While nothing
    listens, as when a lone process is started again, requests wait, but those that ask after its health. When that
    takes too long, and when the part ends before it has answered, the answer is 503 with Retry-After.

    Attributes:
        sockets: The Unix socket of each process of the part.
        name: What the part is called in messages.
        patience: Seconds for which a request waits at most; less where its caller says so.
    """

    sockets: tuple[Path, ...]
    name: str
    patience: float = PATIENCE
    _pools: dict[int, httpcore.AsyncConnectionPool] = field(default_factory=dict, init=False, repr=False)
    _busy: Counter[int] = field(default_factory=Counter, init=False, repr=False)
    _turn: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False)
    _waiting: int = field(default=0, init=False, repr=False)

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
        """The text of a small document of one process; None where none answers within `timeout` seconds."""
        for number in self._order():
            text = await self._fetch(number, path, timeout)
            if text is not None:
                return text
        return None

    async def fetch_all(self, path: str, timeout: float = 2.0) -> dict[int, str]:
        """The text of a small document of each process, by number; left out are those that do not answer in time."""
        found: dict[int, str] = {}

        async def one(number: int) -> None:
            text = await self._fetch(number, path, timeout)
            if text is not None:
                found[number] = text

        async with anyio.create_task_group() as group:
            for number in range(len(self.sockets)):
                group.start_soon(one, number)
        return dict(sorted(found.items()))

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    async def _fetch(self, number: int, path: str, timeout: float) -> str | None:
        request = httpcore.Request("GET", _url(path.encode()), headers=[(b"host", b"part")])
        try:
            with anyio.fail_after(timeout):
                response = await self._connections(number).handle_async_request(request)
                try:
                    body = await response.aread()
                finally:
                    await response.aclose()
        except (*_NOT_ANSWERING, TimeoutError):
            return None
        return body.decode("utf-8", "replace") if response.status == 200 else None

    def _order(self) -> list[int]:
        """The processes, those with the fewest requests first, and in turns where they have as many."""
        count = len(self.sockets)
        first = next(self._turn) % count
        return sorted(range(count), key=lambda number: (self._busy[number], (number - first) % count))

    def _connections(self, number: int) -> httpcore.AsyncConnectionPool:
        if number not in self._pools:
            self._pools[number] = httpcore.AsyncConnectionPool(
                uds=str(self.sockets[number]), max_connections=200, max_keepalive_connections=20, keepalive_expiry=30
            )
        return self._pools[number]

    async def _ask(self, number: int, request: httpcore.Request) -> httpcore.Response | None:
        """The answer of a process; None where nothing of the request has reached it."""
        try:
            return await self._connections(number).handle_async_request(request)
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send, received: anyio.Event) -> None:
        request = _request(scope, receive, received)
        try:
            if await self._offer(request, send) or await self._offer_again(request, send, self._waits(scope)):
                return
        except _ClientGone:
            return
        except _NOT_ANSWERING as error:
            _log.warning("%s ended before it answered: %r", self.name, error)
        await self._unavailable(scope, receive, send)

    async def _offer(self, request: httpcore.Request, send: Send) -> bool:
        """Pass on the answer of a process; False where nothing of the request has reached one."""
        for number in self._order():
            self._busy[number] += 1
            try:
                response = await self._ask(number, request)
                if response is not None:
                    await self._pass_on(response, send)
                    return True
            finally:
                self._busy[number] -= 1
        return False

    async def _offer_again(self, request: httpcore.Request, send: Send, seconds: float) -> bool:
        """As `_offer`, as often as it takes, for some seconds."""
        if self._waiting >= _MOST_WAITING:
            return False
        until = anyio.current_time() + seconds
        self._waiting += 1
        try:
            while anyio.current_time() < until:
                await anyio.sleep(LOOK_EVERY)
                if await self._offer(request, send):
                    return True
        finally:
            self._waiting -= 1
        return False

    def _waits(self, scope: Scope) -> float:
        """Seconds for which a request waits for a process."""
        if scope["path"].startswith(_HEALTH):
            return 0.0
        stated = next((value for name, value in scope["headers"] if name.lower() == _CALLERS_TIMEOUT), None)
        try:
            seconds = self.patience if stated is None else float(stated)
        except ValueError:  # the part will say what is wrong with it
            return self.patience
        return min(seconds, self.patience) if seconds > 0 else 0.0

    async def _pass_on(self, response: httpcore.Response, send: Send) -> None:
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
