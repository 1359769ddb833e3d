"""A server of plain methods, and a client that sends frames by hand."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from hpack import Decoder, Encoder

from millpond.core.errors import NotAuthenticated, RequestError
from millpond.server.grpc import frames
from millpond.server.grpc.calls import Method, fail, reply
from millpond.server.grpc.frames import frame
from millpond.server.grpc.limits import GrpcLimits
from millpond.server.grpc.server import GrpcServer


class Held:
    """Calls of a method that answers only when told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, bytes]] = []

    def take(self, stream: Any, _user: str, message: bytes) -> None:
        self.calls.append((stream, message))


class Running:
    """A server in a thread of its own."""

    def __init__(self, limits: GrpcLimits) -> None:
        self.held = Held()
        self.loop = uvloop.new_event_loop()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(64)
        self.port = self.sock.getsockname()[1]
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.problems.append(context))
        methods = {
            b"/test.Test/Echo": Method(lambda stream, _user, message: reply(stream, message), open=True),
            b"/test.Test/Who": Method(lambda stream, user, _message: reply(stream, user.encode())),
            b"/test.Test/Hold": Method(self.held.take, open=True),
            b"/test.Test/Grow": Method(lambda stream, _u, message: reply(stream, b"x" * int(message)), open=True),
            b"/test.Test/Raise": Method(self._raise, open=True),
        }
        self.server = GrpcServer(methods, self._identify, limits)
        self.thread = threading.Thread(target=self._run)
        self.started = threading.Event()
        self.thread.start()
        assert self.started.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.server.start(self.sock))
        self.started.set()
        self.loop.run_forever()
        self.loop.run_until_complete(asyncio.sleep(0.02))
        self.loop.close()

    def _identify(self, token: str, done: Callable[[str | Exception], None]) -> None:
        """Knows the token "mp_known" at once, and "mp_later" a turn later."""
        if token == "mp_known":
            done("ann")
        elif token == "mp_later":
            self.loop.call_soon(done, "lee")
        else:
            done(NotAuthenticated("the token is not valid"))

    def _raise(self, stream: Any, _user: str, message: bytes) -> None:
        if message == b"ours":
            raise RequestError("it is wrong: ä%", where="here", hint="mend it")
        if message == b"later":
            fail(stream, KeyError("secret"))
        else:
            raise KeyError("secret")

    def inside(self, call: Callable[[], Any]) -> Any:
        """Call in the server's thread."""

        async def run() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(5)

    def drain(self, seconds: float) -> None:
        asyncio.run_coroutine_threadsafe(self.server.drain(seconds), self.loop).result(seconds + 5)

    def stop(self) -> None:
        self.inside(self.server.abort)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


class Client:
    """Sends frames as it is told to."""

    def __init__(self, port: int, *, greet: bool = True, settings: dict[int, int] | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.buffer = b""
        if greet:
            self.send(frames.PREFACE + frames.settings_frame(settings or {}))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self, path: str = "/test.Test/Echo", *more: tuple[str, str], **over: str) -> bytes:
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        fields |= {"te": "trailers", "content-type": "application/grpc"}
        fields |= {name.replace("_", "-"): value for name, value in over.items()}
        return self.encoder.encode([*fields.items(), *more])

    def headers(self, number: int, block: bytes, flags: int = frames.END_HEADERS) -> bytes:
        return frame(frames.HEADERS, flags, number, block)

    def call(self, number: int, message: bytes, path: str = "/test.Test/Echo", *more: tuple[str, str]) -> None:
        self.send(self.headers(number, self.head(path, *more)) + data(number, grpc_message(message)))

    def frame(self) -> tuple[int, int, int, bytes] | None:
        """The next frame, or None at the connection's end."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3]):
            try:
                more = self.sock.recv(65536)
            except ConnectionError:
                return None
            if not more:
                return None
            self.buffer += more
        size, kind, flags, number = (
            struct.unpack(">I", b"\0" + self.buffer[:3])[0],
            *struct.unpack(">BBI", self.buffer[3:9]),
        )
        payload, self.buffer = self.buffer[9 : 9 + size], self.buffer[9 + size :]
        return kind, flags, number, payload

    def until(self, *kinds: int, number: int | None = None) -> tuple[int, int, int, bytes]:
        """The next frame of one of these types."""
        while (found := self.frame()) is not None:
            if found[0] in kinds and number in (None, found[2]):
                return found
        raise EOFError

    def answer(self, number: int) -> tuple[bytes, dict[str, str]]:
        """The whole answer on a stream: what its message says, and all fields."""
        body, fields = b"", {}
        while True:
            kind, flags, _, payload = self.until(frames.DATA, frames.HEADERS, frames.RST_STREAM, number=number)
            assert kind != frames.RST_STREAM, int.from_bytes(payload)
            if kind == frames.DATA:
                body += payload
            else:
                fields |= dict(self.decoder.decode(payload))
            if flags & frames.END_STREAM:
                return body[5:], fields

    def reset_code(self, number: int) -> int:
        return int.from_bytes(self.until(frames.RST_STREAM, number=number)[3])

    def goaway_code(self) -> int:
        """The error of the GOAWAY that comes, after which the connection must end."""
        code = int.from_bytes(self.until(frames.GOAWAY)[3][4:8])
        while self.frame() is not None:
            pass
        return code


def grpc_message(message: bytes, *, compressed: bool = False) -> bytes:
    return bytes((compressed,)) + len(message).to_bytes(4) + message


def data(number: int, payload: bytes, flags: int = frames.END_STREAM) -> bytes:
    return frame(frames.DATA, flags, number, payload)


@pytest.fixture
def wire() -> Any:
    """The names that tests of frames need."""
    return type("Wire", (), {"message": staticmethod(grpc_message), "data": staticmethod(data), "Client": Client})


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts servers; no callback of theirs may have raised when the test ends."""
    running: list[Running] = []

    def start(**limits: Any) -> Running:
        running.append(Running(GrpcLimits(**limits)))
        return running[-1]

    yield start
    for each in running:
        each.stop()
        assert each.problems == []


@pytest.fixture
def client(start: Callable[..., Running]) -> Iterator[Client]:
    with Client(start().port) as made:
        yield made


class Shared(Running):
    """A server for many tests, with a connection that must never notice the others."""

    def __init__(self) -> None:
        super().__init__(GrpcLimits())
        self.beside = Client(self.port)
        self.number = -1

    def next_number(self) -> int:
        self.number += 2
        return self.number


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    running = Shared()
    yield running
    running.beside.sock.close()
    running.stop()
    assert running.problems == []
