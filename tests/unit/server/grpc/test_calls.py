"""Unary gRPC calls: framing, compression, deadlines, identities and statuses."""

from __future__ import annotations

import time
import zlib
from urllib.parse import unquote

import pytest

from millpond.core.errors import (
    AccessDenied,
    Conflict,
    DeadlineExceeded,
    MillpondError,
    NotAuthenticated,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RequestError,
    Unavailable,
)
from millpond.server.grpc import frames
from millpond.server.grpc.calls import bearer_token, read_timeout
from millpond.server.grpc.frames import frame
from millpond.server.grpc.headers import header_block
from millpond.server.grpc.status import percent_encoded, status_of

ACCEPTED = "identity,gzip,deflate"


def ask(client, wire, number, message=b"m", *, path="/test.Test/Echo", body=None, **fields):
    client.send(client.headers(number, client.head(path, **fields)))
    client.send(wire.data(number, wire.message(message) if body is None else body))
    return client.answer(number)


def test_compressed_messages(client, wire):
    squeezed = zlib.compressobj(wbits=31)
    body = wire.message(squeezed.compress(b"long " * 100) + squeezed.flush(), compressed=True)
    assert ask(client, wire, 1, body=body, grpc_encoding="gzip")[0] == b"long " * 100
    body = wire.message(zlib.compress(b"short"), compressed=True)
    assert ask(client, wire, 3, body=body, grpc_encoding="deflate")[0] == b"short"
    assert ask(client, wire, 5, b"plain", grpc_encoding="gzip")[0] == b"plain"
    for number, encoding, sent in [
        (7, "gzip", b"no gzip"),
        (9, "identity", b"x"),
        (11, "deflate", zlib.compress(b"y")[:-3]),
    ]:
        fields = ask(client, wire, number, body=wire.message(sent, compressed=True), grpc_encoding=encoding)[1]
        assert fields["grpc-status"] == "13"
    fields = ask(client, wire, 13, grpc_encoding="snappy")[1]
    assert (fields["grpc-status"], fields["grpc-accept-encoding"]) == ("12", ACCEPTED)


@pytest.mark.parametrize("body", [b"", b"\0\0", b"\0\0\0\0\x05abc", b"\0\0\0\0\x01abc", b"\0\0\0\0\x01a" * 2])
def test_a_call_carries_exactly_one_message(client, wire, body):
    assert ask(client, wire, 1, body=body)[1]["grpc-status"] == "12"


def test_what_is_no_call_of_ours(client, wire):
    assert ask(client, wire, 1, path="/test.Test/None")[1]["grpc-status"] == "12"
    fields = ask(client, wire, 3, content_type="application/json")[1]
    assert (fields[":status"], fields["grpc-status"]) == ("415", "13")
    client.send(client.headers(5, client.head(**{":method": "GET"}), 5))
    fields = client.answer(5)[1]
    assert (fields[":status"], fields["allow"]) == ("405", "POST")
    assert ask(client, wire, 7, content_type="application/grpc+proto")[0] == b"m"
    assert ask(client, wire, 9, grpc_timeout="soon")[1]["grpc-status"] == "13"


def test_identities(client, wire):
    def who(number, **fields):
        return ask(client, wire, number, path="/test.Test/Who", **fields)

    assert who(1, authorization="Bearer mp_known")[0] == b"ann"
    assert who(3, authorization="bearer  mp_later ")[0] == b"lee"
    assert who(5)[1]["grpc-status"] == "16"
    assert who(7, authorization="Bearer mp_wrong")[1]["grpc-status"] == "16"
    assert who(9, authorization="Basic mp_known")[1]["grpc-status"] == "16"
    assert who(11, authorization="Bearer mp_known")[0] == b"ann"


def test_errors_say_what_they_may(client, wire, caplog):
    fields = ask(client, wire, 1, b"ours", path="/test.Test/Raise")[1]
    assert fields["grpc-status"] == "3"
    assert unquote(fields["grpc-message"]) == "it is wrong: ä% (here); mend it"
    for number, message in ((3, b"now"), (5, b"later")):
        fields = ask(client, wire, number, message, path="/test.Test/Raise")[1]
        assert fields["grpc-status"] == "13"
        assert "secret" not in fields["grpc-message"]
        id = unquote(fields["grpc-message"]).rpartition("[")[2].rstrip("]")
        assert id in caplog.messages[-1]
    kept = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [repr(error) for error in kept] == ["KeyError('secret')"] * 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("x"), 3),
        (NotFound("x"), 5),
        (NotAuthenticated("x"), 16),
        (AccessDenied("x"), 7),
        (Overloaded("x"), 8),
        (PayloadTooLarge("x"), 8),
        (DeadlineExceeded("x"), 4),
        (Unavailable("x"), 14),
        (Conflict("x"), 10),
        (MillpondError("x"), 13),
        (ValueError("x"), 13),
    ],
)
def test_every_error_has_its_status(error, code):
    assert status_of(error).code == code


def test_the_wire_keeps_deadlines_that_nobody_else_keeps(start, wire):
    server = start(streams=1)
    with wire.Client(server.port) as client:
        begun = time.monotonic()
        fields = ask(client, wire, 1, path="/test.Test/Hold", grpc_timeout="200m")[1]
        assert fields["grpc-status"] == "4"
        assert 0.2 <= time.monotonic() - begun < 2
        stream = server.held.calls[0][0]
        assert stream.is_gone()
        # The work goes on, and so the place stays taken until it is done.
        client.call(3, b"x")
        assert client.reset_code(3) == frames.REFUSED_STREAM
        server.inside(lambda: stream.answer(b"\x88", b"late", b""))
        client.send(frame(frames.PING, 0, 0, bytes(8)))
        assert client.until(frames.PING, frames.DATA, frames.HEADERS)[0] == frames.PING
        assert ask(client, wire, 5, grpc_timeout="5S")[0] == b"m"


def test_timeouts():
    assert [read_timeout(each) for each in (b"1H", b"2M", b"3S", b"4m", b"5u", b"6n")] == pytest.approx(
        [3600, 120, 3, 4e-3, 5e-6, 6e-9]
    )
    for wrong in (b"", b"S", b"1", b"-1S", b"1.5S", b"123456789S", b"1s", b"\xd9\xa1S"):
        assert read_timeout(wrong) is None


def test_tokens():
    assert bearer_token(b"Bearer mp_x") == "mp_x"
    for none in (b"", b"Bearer", b"Bearer ", b"mp_x", b"Basic mp_x", b"Bearer \xff"):
        assert bearer_token(none) is None


def test_messages_are_encoded_and_cut():
    assert percent_encoded("a b%\n\x7fü") == b"a b%25%0A%7F%C3%BC"
    cut = percent_encoded("ü" * 2000)
    assert len(cut) < 4000
    assert unquote(cut.decode()).endswith("ü ...")


def test_blocks_of_all_lengths_can_be_read(client):
    fields = [(b":status", b"415"), (b"content-type", b"x" * 200), (b"grpc-message", b"y" * 20_000), (b"z" * 127, b"")]
    assert client.decoder.decode(header_block(fields), raw=True) == fields
