"""The HTTP/2 layer, frame by frame."""

from __future__ import annotations

import gc
import time
import zlib
from functools import partial

import pytest

from millpond.server.grpc import frames
from millpond.server.grpc.frames import frame, rst_stream, settings_frame, window_update


def until(fact):
    deadline = time.monotonic() + 5
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_call_is_answered(client):
    client.call(1, b"hello")
    body, fields = client.answer(1)
    assert body == b"hello"
    assert fields == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}


def test_many_calls_in_one_packet_and_byte_by_byte(client, wire):
    packet = b""
    for number in range(1, 201, 2):
        packet += client.headers(number, client.head()) + wire.data(number, wire.message(b"m%d" % number))
    client.send(packet)
    for number in range(1, 201, 2):
        assert client.answer(number)[0] == b"m%d" % number
    for byte in client.headers(201, client.head()) + wire.data(201, wire.message(b"slow")):
        client.send(bytes((byte,)))
    assert client.answer(201)[0] == b"slow"


def test_the_same_header_block_means_something_else_when_the_table_has_changed(client, wire):
    # Index 62 is the newest entry of the dynamic table.
    client.send(client.headers(1, client.head()) + wire.data(1, wire.message(b"a")))
    client.answer(1)
    table = [f"{name.decode()}={value.decode()}" for name, value in client.encoder.header_table.dynamic_entries]
    path = 62 + next(index for index, each in enumerate(table) if each.startswith(":path="))
    others = [62 + index for index, each in enumerate(table) if "content-type" in each or each.startswith("te=")]
    block = bytes((0x83, 0x86, 0x80 | path, *(0x80 | each for each in others)))
    for number in (3, 5):
        client.send(client.headers(number, block) + wire.data(number, wire.message(b"7")))
        assert client.answer(number)[0] == b"7"
    # A new entry shifts the others, so that the very same bytes now name another method.
    shifting = client.head("/test.Test/Grow")
    client.send(client.headers(7, shifting) + wire.data(7, wire.message(b"3")))
    assert client.answer(7)[0] == b"xxx"
    client.send(client.headers(9, block) + wire.data(9, wire.message(b"7")))
    assert client.answer(9)[0] == b"xxxxxxx"


def test_header_blocks_in_pieces_and_with_padding_and_priority(client, wire):
    block = client.head()
    client.send(client.headers(1, block[:5], 0))
    client.send(frame(frames.CONTINUATION, 0, 1, block[5:9]) + frame(frames.CONTINUATION, 4, 1, block[9:]))
    client.send(wire.data(1, b"\x03" + wire.message(b"padded") + b"\0\0\0", frames.PADDED | frames.END_STREAM))
    assert client.answer(1)[0] == b"padded"
    block = client.head()
    flags = frames.END_HEADERS | frames.PADDED | frames.PRIORITIZED
    client.send(client.headers(3, b"\x02" + b"\0\0\0\0\x10" + block + b"\0\0", flags))
    client.send(
        wire.data(3, wire.message(b"again")[:4], 0) + wire.data(3, b"", 0) + wire.data(3, wire.message(b"again")[4:])
    )
    assert client.answer(3)[0] == b"again"


def test_trailers_end_a_request(client, wire):
    client.send(client.headers(1, client.head()) + wire.data(1, wire.message(b"t"), 0))
    client.send(client.headers(1, client.encoder.encode([("x-sum", "1")]), frames.END_HEADERS | frames.END_STREAM))
    assert client.answer(1)[0] == b"t"


def test_pings_are_answered_and_unknown_frames_are_not(client):
    client.send(
        frame(0x42, 0xFF, 0, b"what")
        + frame(frames.PRIORITY, 0, 5, b"\0\0\0\0\x10")
        + frame(frames.PING, 0, 0, b"12345678")
    )
    assert client.until(frames.PING) == (frames.PING, frames.ACK, 0, b"12345678")


def test_answers_keep_within_the_windows_that_the_client_gives(start, wire):
    server = start()
    settings = {frames.INITIAL_WINDOW_SIZE: 100, frames.MAX_FRAME_SIZE: 20_000, frames.HEADER_TABLE_SIZE: 0}
    with wire.Client(server.port, settings=settings) as client:
        client.call(1, b"100000", "/test.Test/Grow")
        client.call(3, b"10", "/test.Test/Grow")
        payload = client.until(frames.DATA, number=1)[3]
        assert len(payload) == 100
        assert client.answer(3)[0] == b"x" * 10
        client.send(window_update(1, 50_000))
        sizes = [len(client.until(frames.DATA, number=1)[3]) for _ in range(3)]
        assert sizes == [20_000, 20_000, 10_000]
        # All streams' windows move with the setting; and the connection's window holds at 65,535.
        client.send(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 1_000_000}))
        sent = 100 + 50_000 + 15
        while sent < 65_535:
            sent += len(client.until(frames.DATA, number=1)[3])
        assert sent == 65_535
        client.send(frame(frames.PING, 0, 0, b"any more"))
        assert client.until(frames.DATA, frames.PING)[0] == frames.PING
        client.send(window_update(0, 1_000_000))
        _, fields = client.answer(1)
        assert fields["grpc-status"] == "0"


def test_a_window_that_became_negative_is_waited_out(start, wire):
    server = start()
    with wire.Client(server.port, settings={frames.INITIAL_WINDOW_SIZE: 1000}) as client:
        client.call(1, b"5000", "/test.Test/Grow")
        assert len(client.until(frames.DATA)[3]) == 1000
        client.send(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}) + window_update(1, 1000))
        client.send(frame(frames.PING, 0, 0, b"any more"))
        assert client.until(frames.DATA, frames.PING)[0] == frames.PING
        client.send(window_update(1, 5000))
        assert len(client.until(frames.DATA)[3]) == 4005


def test_two_large_answers_share_the_connection(start, wire):
    with wire.Client(start().port, settings={frames.INITIAL_WINDOW_SIZE: 1 << 20}) as client:
        for number in (1, 3):
            client.call(number, b"120000", "/test.Test/Grow")
        sent = 0
        while sent < 65_535:
            sent += len(client.until(frames.DATA)[3])
        client.send(window_update(0, 1 << 20))
        order, left = [], {1, 3}
        while left:
            kind, flags, number, _ = client.until(frames.DATA, frames.HEADERS)
            order += [number] if kind == frames.DATA else []
            left -= {number} if flags & frames.END_STREAM else set()
        assert order[:6] in ([1, 3] * 3, [3, 1] * 3)


BLOCK = b"\x83\x86\x84"  # POST, http, "/": a request, though of no method that there is
PROTOCOL, SIZE, FLOW = frames.PROTOCOL_ERROR, frames.FRAME_SIZE_ERROR, frames.FLOW_CONTROL_ERROR
COMPRESSION, CLOSED, CALM = frames.COMPRESSION_ERROR, frames.STREAM_CLOSED, frames.ENHANCE_YOUR_CALM
headers, continuation = partial(frame, frames.HEADERS), partial(frame, frames.CONTINUATION)
ping, settings = partial(frame, frames.PING), partial(frame, frames.SETTINGS)
#: What is sent, how it must end, and whether a greeting goes before it.
FAULTS = [
    ("text", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", PROTOCOL, False),
    ("first frame", frames.PREFACE + ping(0, 0, bytes(8)), PROTOCOL, False),
    ("headers first", frames.PREFACE + headers(5, 1, BLOCK), PROTOCOL, False),
    ("data on zero", frame(frames.DATA, 0, 0, b"x"), PROTOCOL, True),
    ("data on idle", frame(frames.DATA, 0, 1, b"x"), PROTOCOL, True),
    ("even stream", headers(5, 2, BLOCK), PROTOCOL, True),
    ("headers on zero", headers(5, 0, BLOCK), PROTOCOL, True),
    ("old stream", headers(5, 5, BLOCK) + headers(5, 3, BLOCK), CLOSED, True),
    ("closed stream", headers(5, 5, BLOCK) * 2, CLOSED, True),
    ("continuation of nothing", continuation(4, 1, BLOCK), PROTOCOL, True),
    (
        "interleaved",
        headers(1, 1, BLOCK) + ping(0, 0, bytes(8)),
        PROTOCOL,
        True,
    ),
    (
        "other stream's continuation",
        headers(1, 1, BLOCK) + continuation(4, 3, b""),
        PROTOCOL,
        True,
    ),
    ("hpack index", headers(5, 1, b"\xff\xff\xff\xff\x0f"), COMPRESSION, True),
    ("hpack truncated", headers(5, 1, b"\x40\x7fabc"), COMPRESSION, True),
    ("hpack table", headers(5, 1, b"\x3f\xff\xff\x7f" + BLOCK), COMPRESSION, True),
    ("padding", headers(13, 1, b"\x09" + BLOCK), PROTOCOL, True),
    ("no padding", headers(13, 1, b""), SIZE, True),
    ("no priority", headers(0x25, 1, b"abc"), SIZE, True),
    (
        "frame size",
        b"\x01\x00\x01\x00\x00\x00\x00\x00\x01",
        SIZE,
        True,
    ),
    ("settings size", settings(0, 0, b"12345"), SIZE, True),
    ("settings of a stream", settings(0, 1, b""), PROTOCOL, True),
    ("settings ack", settings(1, 0, bytes(6)), SIZE, True),
    ("push", settings_frame({frames.ENABLE_PUSH: 2}), PROTOCOL, True),
    ("window", settings_frame({frames.INITIAL_WINDOW_SIZE: 1 << 31}), FLOW, True),
    ("frame setting", settings_frame({frames.MAX_FRAME_SIZE: 100}), PROTOCOL, True),
    ("ping size", ping(0, 0, b"1234567"), SIZE, True),
    ("ping of a stream", ping(0, 1, bytes(8)), PROTOCOL, True),
    ("push promise", frame(frames.PUSH_PROMISE, 4, 1, bytes(8)), PROTOCOL, True),
    ("reset size", frame(frames.RST_STREAM, 0, 1, b"123"), SIZE, True),
    ("reset of idle", rst_stream(1, 8), PROTOCOL, True),
    ("reset of zero", rst_stream(0, 8), PROTOCOL, True),
    ("window size", frame(frames.WINDOW_UPDATE, 0, 0, b"123"), SIZE, True),
    ("window by nothing", window_update(0, 0), PROTOCOL, True),
    ("window of idle", window_update(1, 5), PROTOCOL, True),
    ("window overflow", window_update(0, frames.LARGEST_WINDOW), FLOW, True),
    (
        "priority size",
        headers(5, 1, BLOCK) + frame(frames.PRIORITY, 0, 0, bytes(5)),
        PROTOCOL,
        True,
    ),
    ("goaway size", frame(frames.GOAWAY, 0, 0, b"1234"), SIZE, True),
    ("goaway of a stream", frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL, True),
    (
        "header flood",
        headers(1, 1, b"") + continuation(0, 1, b"") * 40,
        CALM,
        True,
    ),
    (
        "long header",
        headers(5, 1, b"\x40" + b"\x01a" + b"\x7f\xa1\x9c\x01" + b"v" * 20_000),
        CALM,
        True,
    ),
    (
        "header bomb",
        headers(5, 1, b"\x40\x01a\x7f\xe1\x06" + b"v" * 992 + b"\xbe" * 1000),
        CALM,
        True,
    ),
    ("ping flood", ping(0, 0, bytes(8)) * 3000, CALM, True),
    ("settings flood", settings_frame({}) * 3000, CALM, True),
]


@pytest.mark.parametrize(("sent", "code", "greet"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_a_broken_rule_ends_the_connection_that_broke_it_alone(shared, wire, sent, code, greet):
    with wire.Client(shared.port, greet=greet) as client:
        client.send(sent)
        assert client.goaway_code() == code
    shared.beside.call(shared.next_number(), b"still here")
    assert shared.beside.answer(shared.number)[0] == b"still here"


def test_malformed_requests_end_their_stream_alone(client, wire):
    malformed = [
        [(":method", "POST"), (":scheme", "http")],
        [(":method", "POST"), (":scheme", "http"), (":path", "")],
        [(":method", "POST"), (":method", "POST"), (":scheme", "http"), (":path", "/")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":status", "200")],
        [(":method", "POST"), (":scheme", "http"), ("te", "trailers"), (":path", "/")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("Upper", "x")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("connection", "close")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("te", "gzip")],
    ]
    for number, fields in zip(range(1, 100, 2), malformed, strict=False):
        client.send(client.headers(number, client.encoder.encode(fields)))
        assert client.reset_code(number) == frames.PROTOCOL_ERROR
        client.send(wire.data(number, b"late"))
    client.call(101, b"fine")
    assert client.answer(101)[0] == b"fine"


def test_stream_errors(start, wire):
    server = start()
    with wire.Client(server.port) as client:
        client.send(client.headers(1, client.head("/test.Test/Hold")) + wire.data(1, wire.message(b"")))
        client.send(wire.data(1, b"more"))
        assert client.reset_code(1) == frames.STREAM_CLOSED
        client.send(client.headers(3, client.head()) + window_update(3, frames.LARGEST_WINDOW))
        assert client.reset_code(3) == frames.FLOW_CONTROL_ERROR
        client.send(client.headers(5, client.head()) + window_update(5, 0))
        assert client.reset_code(5) == frames.PROTOCOL_ERROR
        client.send(client.headers(7, client.head()) + client.headers(7, client.encoder.encode([("a", "b")])))
        assert client.reset_code(7) == frames.PROTOCOL_ERROR
        client.send(client.headers(9, client.head()))
        client.send(b"".join(wire.data(9, bytes(65_536), 0) for _ in range(17)))
        client.call(11, b"fine")
        assert client.answer(11)[0] == b"fine"
        server.inside(lambda: [stream.end(b"\x88") for stream, _ in server.held.calls])


def test_more_streams_than_allowed_are_refused_even_if_reset(start, wire):
    server = start(streams=4)
    with wire.Client(server.port) as client:
        for number in (1, 3, 5, 7):
            client.call(number, b"x", "/test.Test/Hold")
        client.call(9, b"x", "/test.Test/Hold")
        assert client.reset_code(9) == frames.REFUSED_STREAM
        # A reset stream is still worked on, so it keeps its place.
        client.send(rst_stream(1, frames.CANCEL))
        client.call(11, b"x")
        assert client.reset_code(11) == frames.REFUSED_STREAM
        gone = server.inside(lambda: [stream.gone for stream, _ in server.held.calls])
        assert gone == [True, False, False, False]
        server.inside(lambda: server.held.calls[0][0].answer(b"\x88", b"late", b""))
        client.call(13, b"x")
        assert client.answer(13)[0] == b"x"
        for stream, _ in server.held.calls[1:]:
            server.inside(lambda stream=stream: stream.answer(b"\x88", wire.message(b"y"), b"\x88"))
        assert client.answer(7)[0] == b"y"


def test_rapid_reset_ends_the_connection(client):
    client.send(b"".join(client.headers(n, client.head()) + rst_stream(n, 8) for n in range(1, 4001, 2)))
    assert client.goaway_code() == frames.ENHANCE_YOUR_CALM


def test_updates_of_windows_are_noise_only_where_they_are_small(client):
    client.send(window_update(0, 2000) * 6000)
    client.call(1, b"fine")
    assert client.answer(1)[0] == b"fine"
    client.send(window_update(0, 1) * 6000)
    assert client.goaway_code() == frames.ENHANCE_YOUR_CALM


def test_a_message_over_the_limit_is_refused_and_not_held(start, wire):
    server = start(message_bytes=100_000)
    with wire.Client(server.port) as client:
        client.send(client.headers(1, client.head()) + b"".join(wire.data(1, bytes(16_384), 0) for _ in range(7)))
        _, fields = client.answer(1)
        assert fields["grpc-status"] == "8"
        assert "100000%20bytes" not in fields["grpc-message"]
        assert "longer than 100000 bytes" in fields["grpc-message"]
        assert client.reset_code(1) == frames.NO_ERROR
        assert server.inside(lambda: server.server.waiting_bytes) == 0
        squeezed = zlib.compressobj(wbits=31)
        bomb = squeezed.compress(bytes(10 << 20)) + squeezed.flush()
        client.send(client.headers(3, client.head(grpc_encoding="gzip")))
        client.send(wire.data(3, wire.message(bomb, compressed=True)))
        assert client.answer(3)[1]["grpc-status"] == "8"
        client.call(5, b"ok")
        assert client.answer(5)[0] == b"ok"


def test_requests_that_arrive_at_once_share_a_bound(start, wire):
    server = start(waiting_bytes=100_000)
    with wire.Client(server.port) as first, wire.Client(server.port) as second:
        first.send(first.headers(1, first.head()) + wire.data(1, wire.message(bytes(60_000)), 0))
        first.send(frame(frames.PING, 0, 0, bytes(8)))
        first.until(frames.PING)
        second.send(second.headers(1, second.head()) + wire.data(1, wire.message(bytes(60_000)), 0))
        assert second.answer(1)[1]["grpc-status"] == "8"
        first.sock.close()
        second.call(3, bytes(50_000))
        assert len(second.answer(3)[0]) == 50_000
        assert server.inside(lambda: server.server.waiting_bytes) == 0


@pytest.mark.slow
def test_slow_requests_greetings_and_idle_connections_end(start, wire):
    server = start(body_seconds=0.1, greeting_seconds=0.3, idle_seconds=0.6)
    with wire.Client(server.port) as client, wire.Client(server.port, greet=False) as silent:
        client.send(client.headers(1, client.head()) + wire.data(1, b"\0", 0))
        assert client.answer(1)[1]["grpc-status"] == "4"
        assert silent.goaway_code() == frames.PROTOCOL_ERROR
        assert client.goaway_code() == frames.NO_ERROR
    until(lambda: server.inside(lambda: server.server.connections) == 0)


@pytest.mark.slow
def test_silent_clients_are_asked_whether_they_are_there(start, wire):
    server = start(ping_seconds=0.1, pong_seconds=0.7)
    with wire.Client(server.port) as client:
        ping = client.until(frames.PING)
        client.send(frame(frames.PING, frames.ACK, 0, ping[3]))
        assert client.until(frames.PING)[3] == ping[3]
        assert client.frame() is None


def test_a_client_that_takes_nothing_is_cut_off_and_holds_nobody_up(start, wire):
    server = start(stall_seconds=0.3)
    settings = {frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW}
    with wire.Client(server.port, settings=settings) as stuck, wire.Client(server.port) as other:
        stuck.send(window_update(0, 1 << 30))
        for number in range(1, 9, 2):
            stuck.call(number, b"9000000", "/test.Test/Grow")
        time.sleep(0.1)
        other.call(1, b"fine")
        assert other.answer(1)[0] == b"fine"
        until(lambda: server.inside(lambda: server.server.connections) == 1)


def test_a_client_whose_window_stays_shut_loses_the_stream(start, wire):
    server = start(stall_seconds=0.3)
    with wire.Client(server.port, settings={frames.INITIAL_WINDOW_SIZE: 0}) as client:
        client.call(1, b"100", "/test.Test/Grow")
        assert client.reset_code(1) == frames.CANCEL


def test_connections_over_the_limit_are_closed(start, wire):
    server = start(connections=1)
    with wire.Client(server.port) as client:
        client.call(1, b"x")
        client.answer(1)
        with wire.Client(server.port) as more:
            assert more.frame() is None
        client.call(3, b"y")
        assert client.answer(3)[0] == b"y"


def test_a_drain_answers_what_was_asked_and_says_so(start, wire):
    import threading

    server = start()
    with wire.Client(server.port) as client:
        client.call(1, b"before", "/test.Test/Hold")
        client.send(frame(frames.PING, 0, 0, bytes(8)))
        client.until(frames.PING)
        drained = threading.Thread(target=server.drain, args=(5,))
        drained.start()
        first = client.until(frames.GOAWAY)[3]
        assert (int.from_bytes(first[:4]), int.from_bytes(first[4:8])) == (frames.LAST_STREAM, frames.NO_ERROR)
        client.call(3, b"meanwhile")
        ping = client.until(frames.PING)
        client.send(frame(frames.PING, frames.ACK, 0, ping[3]))
        assert client.answer(3)[0] == b"meanwhile"
        assert int.from_bytes(client.until(frames.GOAWAY)[3][:4]) == 3
        client.call(5, b"too late")
        server.inside(lambda: server.held.calls[0][0].answer(b"\x88", wire.message(b"done"), b"\x88"))
        assert client.answer(1)[0] == b"done"
        assert client.frame() is None
    drained.join(5)
    assert not drained.is_alive()


@pytest.mark.slow
def test_who_goes_on_after_the_end_is_cut_off(client):
    client.send(ping(0, 1, bytes(8)))
    assert client.goaway_code() == frames.PROTOCOL_ERROR

    def cut_off():
        try:
            client.send(bytes(1000))
        except OSError:
            return True
        return False

    until(cut_off)


def test_calls_leave_nothing_to_the_garbage_collector(client, wire):
    def call(numbers):
        for number in numbers:
            client.send(client.headers(number, client.head()) + wire.data(number, wire.message(b"m")))
            client.answer(number)

    call(range(1, 11, 2))
    gc.collect()
    gc.disable()
    try:
        call(range(11, 211, 2))
        assert gc.collect() < 50
    finally:
        gc.enable()
