"""Whatever bytes come over a gRPC connection, the server and its other connections stay whole.

The server runs in a thread of the test, on a real socket; every callback that raises is caught by the loop's handler.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
import uvloop
from hpack import Decoder, Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.server.grpc import frames
from millpond.server.grpc.calls import Method, reply
from millpond.server.grpc.frames import frame, settings_frame
from millpond.server.grpc.headers import HeaderReader, header_block, well_formed
from millpond.server.grpc.limits import GrpcLimits
from millpond.server.grpc.server import GrpcServer

FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Test/Echo"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
MESSAGE = b"\0\0\0\0\x02ok"
KNOWN_ERRORS = set(range(0xE))


class Served:
    def __init__(self) -> None:
        self.problems: list[dict] = []
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.problems.append(context))
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        echo = Method(lambda stream, _user, message: reply(stream, message), open=True)
        limits = GrpcLimits(message_bytes=4096, waiting_bytes=20_000, streams=8, header_bytes=2048)
        self.server = GrpcServer({b"/test.Test/Echo": echo}, lambda _token, done: done("ann"), limits)
        started = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(self.server.start(sock))
            started.set()
            self.loop.run_forever()
            self.loop.run_until_complete(asyncio.sleep(0.02))
            self.loop.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert started.wait(5)
        self.beside, self.number = self.connect(), 1
        self.encoder, self.decoder = Encoder(), Decoder()
        self.beside.sendall(frames.PREFACE + settings_frame({}))

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def answers_beside(self) -> None:
        """The connection that behaves is still answered."""
        number, self.number = self.number, self.number + 2
        self.beside.sendall(
            frame(frames.HEADERS, frames.END_HEADERS, number, self.encoder.encode(FIELDS))
            + frame(frames.DATA, frames.END_STREAM, number, MESSAGE)
        )
        rest = b""
        while True:
            rest += self.beside.recv(65_536)
            while len(rest) >= 9 and len(rest) >= 9 + int.from_bytes(rest[:3]):
                size, kind, flags = int.from_bytes(rest[:3]), rest[3], rest[4]
                payload, rest = rest[9 : 9 + size], rest[9 + size :]
                if kind == frames.DATA:
                    assert payload == MESSAGE
                elif kind == frames.HEADERS:
                    self.decoder.decode(payload)
                    if flags & frames.END_STREAM:
                        return

    def stop(self) -> None:
        self.beside.close()
        self.loop.call_soon_threadsafe(self.server.abort)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


@pytest.fixture(scope="module")
def served():
    made = Served()
    yield made
    made.stop()
    assert made.problems == []


@st.composite
def any_frame(draw) -> bytes:
    """A frame that may be right, slightly wrong, or nonsense."""
    kind = draw(st.sampled_from([*range(10), 0x42]))
    number = draw(st.sampled_from([0, 1, 1, 3, 5, 7, 2, frames.LAST_STREAM, 0xFFFFFFFF]))
    flags = draw(st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]))
    block = Encoder().encode(FIELDS)
    payload = draw(
        st.one_of(
            st.sampled_from(
                [b"", bytes(4), bytes(5), bytes(6), bytes(8), b"\0\0\0\0\x02ok", block, block[:9], block[9:]]
            ),
            st.sampled_from(
                [b"\0\3\0\0\0\0", b"\0\4\0\0\0\0", b"\0\4\x7f\xff\xff\xff", b"\0\5\0\0\x40\0", b"\x7f\xff\xff\xff"]
            ),
            st.binary(max_size=40),
            st.binary(min_size=1, max_size=1).map(lambda byte: byte * 5000),
        )
    )
    whole = frame(kind, flags, number, payload)
    return draw(st.sampled_from([whole] * 9 + [whole[:-1]]))


def right_call(number: int) -> bytes:
    block = header_block([(name.encode(), value.encode()) for name, value in FIELDS])
    return frame(frames.HEADERS, 4, number, block) + frame(frames.DATA, 1, number, MESSAGE)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    st.lists(st.one_of(any_frame(), st.sampled_from([right_call(1), right_call(3), right_call(9)])), max_size=12),
    st.lists(st.integers(1, 60), max_size=6),
    st.binary(max_size=30),
)
def test_any_bytes_harm_nobody_else(served, greet, sent, cuts, tail):
    data = (frames.PREFACE + settings_frame({}) if greet else b"") + b"".join(sent) + tail
    with served.connect() as client:
        try:
            for cut in cuts:
                client.sendall(data[:cut])
                data = data[cut:]
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while more := client.recv(65_536):
                answer += more
        except OSError:  # cut off by the server
            answer = b""
    whole_frames(answer)
    served.answers_beside()
    deadline = time.monotonic() + 5
    while served.server.connections > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert served.server.connections == 1
    assert served.server.waiting_bytes == 0
    assert served.problems == []


def whole_frames(answer: bytes) -> None:
    """What the server says consists of whole frames that it may send, with error codes that there are."""
    at = 0
    while at < len(answer):
        size, kind, number = (
            int.from_bytes(answer[at : at + 3]),
            answer[at + 3],
            int.from_bytes(answer[at + 5 : at + 9]),
        )
        payload = answer[at + 9 : at + 9 + size]
        assert len(payload) == size
        assert kind not in (frames.PRIORITY, frames.PUSH_PROMISE, frames.CONTINUATION)
        assert (number == 0) == (kind in (frames.SETTINGS, frames.PING, frames.GOAWAY)) or kind == frames.WINDOW_UPDATE
        if kind == frames.RST_STREAM:
            assert int.from_bytes(payload) in KNOWN_ERRORS
        if kind == frames.GOAWAY:
            assert int.from_bytes(payload[4:8]) in KNOWN_ERRORS
        at += 9 + size


names = st.sampled_from([b"grpc-timeout", b"x-a", b"te", b":path", b":method", b":scheme", b"content-type", b"cookie"])
values = st.sampled_from([b"", b"1S", b"trailers", b"/a", b"POST", b"http", b"application/grpc", b"v" * 300])
sizes = st.sampled_from([None, 0, 100, 4096])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(names, values), max_size=6), st.sampled_from([None, 0, 100, 4096])), max_size=30
    )
)
def test_remembered_blocks_mean_what_they_would_if_decoded(requests):
    """The memory of header blocks against a decoder that remembers nothing, over tables that change."""
    reader = HeaderReader(tuple, 1 << 16)
    encoder, oracle = Encoder(), Decoder()
    for fields, size in requests:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields)
        decoded = [(bytes(name), bytes(value)) for name, value in oracle.decode(block, raw=True)]
        assert reader.request(block) == (tuple(decoded) if well_formed(decoded) else None)
