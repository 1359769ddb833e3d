"""The HTTP wire, byte by byte: what RFC 9112 asks for, and what it takes to stay up among bad callers."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

Post = Callable[..., bytes]
Body = Callable[..., bytes]
LIMIT = 1 << 20


def sums(body: bytes) -> list[float]:
    outputs = {each["name"]: each["data"] for each in json.loads(body)["outputs"]}
    found: list[float] = outputs["prediction"]
    return found


def test_a_connection_is_kept(server: Any, post: Post, infer_body: Body) -> None:
    with server.raw() as raw:
        for number in range(3):
            raw.send(post("sum", infer_body(number)))
            status, headers, body = raw.answer()
            assert (status, headers["content-type"]) == (200, "application/json")
            assert "date" in headers
            assert sums(body) == [float(number)]


def test_pipelined_requests_are_answered_in_order(server: Any, post: Post, infer_body: Body) -> None:
    with server.raw() as raw:
        raw.send(post("later", infer_body(0.3)) + post("sum", infer_body(1)) + post("later", infer_body(0.1)))
        raw.send(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert [sums(raw.answer()[2]) for _ in range(3)] == [[0.3], [1.0], [0.1]]
        assert json.loads(raw.answer()[2]) == {"live": True}


def test_more_requests_than_are_read_ahead(server: Any, post: Post, infer_body: Body) -> None:
    with server.raw() as raw:
        raw.send(post("later", infer_body(0.2)))
        sending = threading.Thread(target=lambda: [raw.send(post("sum", infer_body(each))) for each in range(300)])
        sending.start()
        found = [sums(raw.answer()[2])[0] for _ in range(301)]
        sending.join()
    assert found == [0.2, *(float(each) for each in range(300))]


def test_a_request_may_come_byte_by_byte(server: Any, post: Post, infer_body: Body) -> None:
    with server.raw() as raw:
        for byte in post("sum", infer_body(7)):
            raw.send(bytes([byte]))
        assert sums(raw.answer()[2]) == [7.0]


def test_a_chunked_body_and_its_trailer(server: Any, post: Post, infer_body: Body) -> None:
    body = infer_body(1, 2)
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(each), each) for each in (body[:10], body[10:]))
    request = post("sum", chunks + b"0\r\nx-millpond-user: mallory\r\n\r\n", "transfer-encoding: chunked")
    with server.raw() as raw:
        raw.send(request + post("sum", infer_body(3)))
        answer = json.loads(raw.answer()[2])
        assert answer["outputs"][0]["data"] == ["p_ann_0", "p_ann_1"]
        assert sums(raw.answer()[2]) == [3.0]


def test_it_says_when_to_go_on(server: Any, post: Post, infer_body: Body) -> None:
    body = infer_body(4)
    head = post("sum", b"", f"content-length: {len(body)}", "expect: 100-continue")
    with server.raw() as raw:
        raw.send(head)
        assert raw.answer()[0] == 100
        raw.send(body)
        assert sums(raw.answer()[2]) == [4.0]
        # not before its turn among pipelined requests
        raw.send(post("later", infer_body(0.2)) + head)
        assert [raw.answer()[0], raw.answer()[0]] == [200, 100]
        raw.send(body)
        assert raw.answer()[0] == 200
        raw.send(post("sum", b"", "content-length: 5", "expect: tea"))
        assert raw.answer()[0] == 417
    with server.raw() as raw:
        raw.send(post("sum", b"", f"content-length: {LIMIT + 1}", "expect: 100-continue"))
        assert raw.answer()[0] == 413


def test_methods(server: Any) -> None:
    with server.raw() as raw:
        raw.send(b"HEAD /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        status, headers, _ = raw.answer(head=True)
        assert (status, headers["content-length"]) == (200, "13")
        raw.send(b"DELETE /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        status, headers, _ = raw.answer()
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        raw.send(b"GET /v2/models/sum/infer HTTP/1.1\r\nhost: x\r\n\r\n")
        status, headers, _ = raw.answer()
        assert (status, headers["allow"]) == (405, "POST")
        raw.send(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
        assert raw.answer()[0] == 404
        raw.send(b"GET http://worker:1/v2/health/live?x=1 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert raw.answer()[0] == 200


def test_connections_end_when_asked_to(server: Any, post: Post, infer_body: Body) -> None:
    with server.raw() as raw:
        raw.send(post("sum", infer_body(1), "connection: close"))
        status, headers, _ = raw.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert raw.rest() == b""
    with server.raw() as raw:
        raw.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        assert raw.rest().endswith(b'{"live":true}')
    with server.raw() as raw:
        raw.send(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        assert raw.answer()[0] == 200
        assert raw.rest() == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("content-length: 5\r\ntransfer-encoding: chunked", 400),
        ("transfer-encoding: chunked\r\ncontent-length: 5", 400),
        ("content-length: 5\r\ncontent-length: 6", 400),
        ("content-length: 5, 5", 400),
        ("content-length: -5", 400),
        ("content-length: +5", 400),
        ("content-length: 0x5", 400),
        ("content-length : 5", 400),
        ("content-length: 99999999999999999999999", 400),
        ("transfer-encoding: gzip, chunked", 501),
        ("transfer-encoding: chunked, identity", 400),
        ("transfer-encoding: xchunked", 501),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", 400),
        ("host: other\r\ncontent-length: 5", 400),
        ("content-length: 5\n\nGET /smuggled HTTP/1.1", 400),
        ("x: a\r\n folded: b\r\ncontent-length: 5", 400),
        ("content-encoding: br\r\ncontent-length: 5", 415),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(server: Any, head: str, status: int) -> None:
    request = f"POST /v2/models/sum/infer HTTP/1.1\r\nhost: x\r\nx-millpond-user: ann\r\n{head}\r\n\r\n"
    smuggled = b"0\r\n\r\nGET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    with server.raw() as raw:
        raw.send(request.encode() + smuggled)
        found, headers, body = raw.answer()
        assert found == status, body
        assert headers["connection"] == "close"
        assert json.loads(body)["what"]
        assert raw.rest() == b"", "what followed was answered"


def test_no_host(server: Any) -> None:
    with server.raw() as raw:
        raw.send(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        assert raw.answer()[0] == 400


@pytest.mark.parametrize("how", ["one header", "many headers", "target", "name"])
def test_headers_have_a_bound(server: Any, how: str) -> None:
    start = b"GET /v2 HTTP/1.1\r\nhost: x\r\n"
    piece = {"one header": b"x", "many headers": b"x: 123456789\r\n", "target": b"x", "name": b"n"}[how]
    start = {"target": b"GET /", "one header": start + b"x: ", "name": start}.get(how, start)
    with server.raw() as raw:
        raw.send(start + piece * (9000 // len(piece)))
        assert raw.answer()[0] == 431
    with server.raw() as raw:  # all at once, and complete
        raw.send(b"GET /v2 HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 9000 + b"\r\n\r\n")
        assert raw.answer()[0] == 431


def test_a_body_over_the_limit_is_refused_before_it_comes(server: Any, post: Post) -> None:
    with server.raw() as raw:
        began = time.monotonic()
        raw.send(post("sum", b"x", f"content-length: {LIMIT + 1}"))
        status, _, body = raw.answer()
        assert (status, json.loads(body)["type"]) == (413, "PayloadTooLarge")
        assert time.monotonic() - began < 0.9
        assert raw.rest() == b""


def test_a_refused_caller_gets_to_read_why(server: Any, post: Post) -> None:
    """Over TCP, where closing a connection with bytes unread takes the answer with it."""
    with server.raw_port() as raw:
        raw.send(post("sum", bytes(3 << 20), "authorization: Bearer ann"))
        assert raw.answer()[0] == 413


@pytest.mark.slow
@pytest.mark.parametrize("head", ["content-length: 1073741824", "transfer-encoding: chunked"])
def test_a_gigabyte_takes_no_memory(server: Any, post: Post, head: str) -> None:
    before = server.resident()
    most = [0]
    megabyte = bytes(1 << 20)
    with server.raw() as raw:
        raw.send(post("sum", b"", head))
        try:
            for _ in range(1024):
                raw.send(b"100000\r\n" + megabyte + b"\r\n" if "chunked" in head else megabyte)
                most[0] = max(most[0], server.resident())
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert raw.rest().startswith(b"HTTP/1.1 413 ")
    assert most[0] - before < 12 << 20


def test_a_body_of_tiny_chunks_is_refused(server: Any, post: Post) -> None:
    with server.raw() as raw:
        raw.send(post("sum", b"", "transfer-encoding: chunked"))
        raw.send(b"1\r\nx\r\n" * 1000)
        time.sleep(0.05)
        raw.send(b"1\r\nx\r\n" * 30_000)
        status, _, body = raw.answer()
        assert (status, "too small" in json.loads(body)["what"]) == (400, True)


def test_an_endless_trailer_is_refused(server: Any, post: Post) -> None:
    with server.raw() as raw:
        raw.send(post("sum", b"2\r\n{}\r\n0\r\nx: ", "transfer-encoding: chunked"))
        time.sleep(0.05)
        raw.send(b"x" * 40_000)
        assert raw.answer()[0] == 400


class TestSlowCallers:
    def test_a_slow_head(self, server: Any) -> None:
        with server.raw() as raw:
            raw.send(b"GET /v2/health/live HTTP/1.1\r\n")
            for _ in range(4):  # a byte now and then does not help
                time.sleep(0.2)
                raw.send(b"x: 1\r\n")
            status, headers, body = raw.answer()
            assert (status, headers["connection"]) == (408, "close")
            assert "within 1 seconds" in json.loads(body)["what"]
            assert raw.rest() == b""

    def test_a_slow_body(self, server: Any, post: Post) -> None:
        with server.raw() as raw:
            raw.send(post("sum", b"{", "content-length: 100"))
            began = time.monotonic()
            assert raw.answer()[0] == 408
            assert 0.7 < time.monotonic() - began < 2.5

    def test_an_idle_connection_is_closed(self, server: Any, post: Post, infer_body: Body) -> None:
        with server.raw() as raw:
            raw.send(post("sum", infer_body(1)))
            raw.answer()
            began = time.monotonic()
            assert raw.rest() == b""
            assert 1.0 < time.monotonic() - began < 4

    def test_many_slow_callers_leave_the_others_alone(self, server: Any, client: httpx.Client) -> None:
        slow = [server.raw() for _ in range(200)]
        for each in slow:
            each.send(b"POST /v2/models/sum/infer HTTP/1.1\r\nhost: x\r\n")
        began = time.monotonic()
        for _ in range(20):
            assert client.get("/v2/health/live").status_code == 200
        assert time.monotonic() - began < 1
        assert all(each.answer()[0] == 408 for each in slow)
        for each in slow:
            each.socket.close()

    def test_a_caller_that_does_not_read_is_not_read_from(self, server: Any, post: Post, infer_body: Body) -> None:
        """Answers pile up until its own sends block; then it is cut off, and memory stays."""
        before = server.resident()
        request = post("sum", infer_body(*range(2000)))
        with server.raw() as raw:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            raw.socket.settimeout(0.4)
            sent = 0
            with suppress(OSError):
                for _ in range(5000):
                    raw.send(request)
                    sent += 1
            assert 0 < sent < 5000
            assert server.resident() - before < 24 << 20


class TestDisconnects:
    def test_the_engine_is_told(self, server: Any, post: Post, infer_body: Body, until: Callable[..., None]) -> None:
        before = server.traffic()["gone"]
        with server.raw() as raw:
            raw.send(post("later", infer_body(0.4)))
            time.sleep(0.1)
        until(lambda: server.traffic()["gone"] == before + 1)

    def test_in_the_middle_of_a_body(self, server: Any, post: Post, client: httpx.Client) -> None:
        for _ in range(20):
            with server.raw() as raw:
                raw.send(post("sum", b"{", "content-length: 1000"))
        assert client.get("/v2/health/live").status_code == 200

    def test_what_is_no_http(self, server: Any) -> None:
        with server.raw() as raw:
            raw.send(b"\x16\x03\x01 no http\r\n\r\n")
            status, _, body = raw.answer()
            assert (status, "HTTP/1.1" in json.loads(body)["what"]) == (400, True)


class TestDeadlines:
    def test_the_callers_own(self, client: httpx.Client, infer_body: Body) -> None:
        for headers, more in (
            ({"x-request-timeout": "0.2"}, {}),
            ({}, {"parameters": {"timeout": 200_000}}),
        ):
            began = time.monotonic()
            answer = client.post("/v2/models/never/infer", content=infer_body(1, **more), headers=headers)
            assert answer.status_code == 504, answer.text
            assert "model 'never' did not answer within 0.2 seconds" in answer.json()["what"]
            assert 0.15 < time.monotonic() - began < 0.9

    def test_the_servers(self, client: httpx.Client, infer_body: Body) -> None:
        began = time.monotonic()
        answer = client.post("/v2/models/never/infer", content=infer_body(1), headers={"x-request-timeout": "3600"})
        assert (answer.status_code, 1.4 < time.monotonic() - began < 3) == (504, True)

    def test_a_late_answer_is_nobodys(self, server: Any, post: Post, infer_body: Body) -> None:
        with server.raw() as raw:
            raw.send(post("later", infer_body(0.3), "x-request-timeout: 0.1") + post("sum", infer_body(5)))
            assert raw.answer()[0] == 504
            assert sums(raw.answer()[2]) == [5.0]
            time.sleep(0.4)
            raw.send(post("sum", infer_body(6)))
            assert sums(raw.answer()[2]) == [6.0]

    @pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf"])
    def test_one_that_is_none(self, client: httpx.Client, infer_body: Body, value: str) -> None:
        answer = client.post("/v2/models/sum/infer", content=infer_body(1), headers={"x-request-timeout": value})
        assert answer.status_code == 400
        assert value in answer.json()["what"]


class TestCompression:
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
    def test_requests(self, client: httpx.Client, infer_body: Body, encoding: str) -> None:
        body = infer_body(8)
        raw = zlib.compressobj(wbits=-15)
        packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}.get(
            encoding, raw.compress(body) + raw.flush()
        )
        headers = {"content-encoding": encoding.rpartition(" ")[2]}
        answer = client.post("/v2/models/sum/infer", content=packed, headers=headers)
        assert sums(answer.content) == [8.0]

    def test_a_bomb(self, client: httpx.Client, server: Any) -> None:
        before = server.resident()
        headers = {"content-encoding": "gzip"}
        answer = client.post("/v2/models/sum/infer", content=gzip.compress(bytes(200 << 20), 9), headers=headers)
        assert answer.status_code == 413
        assert server.resident() - before < 24 << 20

    def test_what_ends_early(self, client: httpx.Client, infer_body: Body) -> None:
        packed = gzip.compress(infer_body(8))[:-9]
        answer = client.post("/v2/models/sum/infer", content=packed, headers={"content-encoding": "gzip"})
        assert answer.status_code == 400

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_answers_of_those_who_ask_for_it(self, client: httpx.Client, infer_body: Body, encoding: str) -> None:
        body = infer_body(*range(500))
        answer = client.post("/v2/models/sum/infer", content=body, headers={"accept-encoding": encoding})
        assert answer.headers["content-encoding"] == encoding
        assert sums(answer.content)[499] == 499
        answer = client.post("/v2/models/sum/infer", content=body, headers={"accept-encoding": "gzip, deflate"})
        assert "content-encoding" not in answer.headers


def test_plain_records(client: httpx.Client) -> None:
    answer = client.post("/v2/models/sum/predict", json={"rows": [{"a": 1, "b": 2}, {"a": 3}]})
    assert answer.status_code == 200, answer.text
    assert [each["prediction"] for each in answer.json()["predictions"]] == [3.0, 3.0]


def test_errors_say_what_to_do(client: httpx.Client, infer_body: Body) -> None:
    answer = client.post("/v2/models/summ/infer", content=infer_body(1))
    assert (answer.status_code, "did you mean 'sum'?" in answer.json()["error"]) == (404, True)
    answer = client.post(
        "/v2/models/sum/infer", json={"inputs": [{"name": "b", "shape": [1], "datatype": "FP64", "data": [1]}]}
    )
    assert answer.status_code == 400
    assert "model 'sum'" in answer.json()["where"]
    answer = client.post("/v2/models/broken/infer", content=infer_body(1))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["id"]


def test_metrics(client: httpx.Client, infer_body: Body) -> None:
    client.post("/v2/models/sum/versions/3/infer", content=infer_body(1, 2))
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'millpond_inference_rows_total{model="sum",version="3",variant="live"}' in answer.text
    assert "millpond_inference_waiting 0" in answer.text


class TestDrain:
    def test_all_that_was_read_is_answered(self, start: Any, post: Post, infer_body: Body) -> None:
        server = start()
        with server.raw() as busy, server.raw() as half, server.raw() as idle:
            busy.send(post("later", infer_body(0.6)) + post("sum", infer_body(2)))
            half.send(post("sum", infer_body(3))[:-5])
            idle.send(post("sum", infer_body(1)))
            assert idle.answer()[1].get("connection") is None
            time.sleep(0.1)
            server.process.terminate()
            time.sleep(0.1)
            half.send(infer_body(3)[-5:])
            status, headers, body = half.answer()
            assert (status, headers["connection"], sums(body)) == (200, "close", [3.0])
            assert idle.rest() == b""
            with pytest.raises(OSError):  # noqa: PT011
                server.raw()
            assert sums(busy.answer()[2]) == [0.6]
            assert sums(busy.answer()[2]) == [2.0]
            assert busy.rest() == b""
        assert server.process.wait(5) == 0

    def test_it_ends_within_its_grace(self, start: Any, post: Post, infer_body: Body) -> None:
        server = start("--grace", "0.5")
        with server.raw() as raw:
            raw.send(post("never", infer_body(1)))
            time.sleep(0.1)
            began = time.monotonic()
            server.process.terminate()
            assert server.process.wait(5) == 0
            assert 0.4 < time.monotonic() - began < 2


def test_requests_leave_nothing_to_the_garbage_collector(start: Any, infer_body: Body) -> None:
    server = start("--count-garbage")
    with server.client() as client:
        for times in (2, 50):  # the first time for what is made once
            for number in range(times):
                assert client.post("/v2/models/sum/infer", content=infer_body(number)).is_success
                assert client.post("/v2/models/later/infer", content=infer_body(0.0)).is_success
                assert client.post("/v2/models/broken/infer", content=infer_body(number)).status_code == 500
            garbage = client.get("/internal/traffic").json()["garbage"]
    assert garbage < 50
