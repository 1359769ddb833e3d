"""`/v2` on the one port, against a real worker behind a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(running: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, headers=running.headers, timeout=20) as opened:
        yield opened


def test_a_request_arrives_as_it_was_sent(client: httpx.Client) -> None:
    seen = client.post("/v2/models/a%2Fb%20c/infer?x=1&x=%C3%A4", content=b"12345", headers={"x-own": "y"}).json()
    assert (seen["path"], seen["query"]) == ("/v2/models/a%2Fb%20c/infer", "x=1&x=%C3%A4")
    assert (seen["method"], seen["size"], seen["headers"]["x-own"]) == ("POST", 5, "y")
    for method in ("GET", "PUT", "DELETE"):
        assert client.request(method, "/v2/models").json()["method"] == method
    assert client.head("/v2/models").status_code == 200


def test_predictions_of_the_other_face_are_the_same_requests(client: httpx.Client) -> None:
    seen = client.post("/api/v1/models/late%20arrival/predict?x=1", content=b"12345").json()
    assert (seen["path"], seen["query"]) == ("/v2/models/late%20arrival/predict", "x=1")
    assert (seen["size"], seen["headers"]["x-millpond-user"]) == (5, "admin")
    assert client.get("/api/v1/models/late_arrival/predict").status_code == 405
    large = client.post("/api/v1/models/late_arrival/predict", content=bytes(5 << 20)).json()
    assert large["size"] == 5 << 20


def test_who_asks_cannot_be_made_up(client: httpx.Client, running: Any) -> None:
    headers = [
        ("X-Millpond-User", "root"),
        ("x-millpond-user", "root"),
        ("x-millpond_user", "root"),
        ("X_MILLPOND_USER", "root"),
        ("x-millpond-role", "owner"),
        ("cookie", "a=b"),
    ]
    seen = client.get("/v2/who", headers=headers).json()["headers"]
    assert {name: text for name, text in seen.items() if "millpond" in name} == {"x-millpond-user": "admin"}
    assert not {"authorization", "cookie"} & set(seen)
    seen = client.get("/mlflow/who", headers=headers).json()
    assert {name: text for name, text in seen["headers"].items() if "millpond" in name} == {"x-millpond-user": "admin"}
    assert not {"authorization", "cookie"} & set(seen["headers"])


def test_mlflow_sees_its_paths_without_the_prefix(client: httpx.Client) -> None:
    assert client.get("/mlflow/api/2.0/runs").json()["path"] == "/api/2.0/runs"
    assert client.get("/mlflow/").json()["path"] == "/"
    assert client.get("/mlflow").headers["location"] == "/mlflow/"


def test_open_health_routes_reach_the_worker(running: Any) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        answer = httpx.get(running.url + path, headers={"x-millpond-user": "root"})
        assert answer.json() == {"ready": True}


def test_metrics_of_the_worker_are_among_ours(client: httpx.Client) -> None:
    text = client.get("/metrics").text
    assert 'millpond_predictions_total{worker="0"} 7' in text
    assert "millpond_server_serving_up 1" in text


def test_a_body_is_streamed_to_the_worker(client: httpx.Client) -> None:
    """The worker has the first pieces long before the client has sent the last one."""

    def pieces() -> Iterator[bytes]:
        for _ in range(4):
            yield b"x" * 1000
            time.sleep(0.25)

    times = client.post("/v2/arrival", content=pieces()).json()["times"]
    assert len(times) == 4
    assert times[-1] - times[0] > 0.5


def test_a_large_body_takes_no_memory(client: httpx.Client, running: Any) -> None:
    def resident() -> int:
        pages = Path(f"/proc/{running.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1 << 20)

    client.post("/v2/warm", content=bytes(1 << 20))
    before = resident()
    assert client.post("/v2/large", content=pieces()).json()["size"] == 100 << 20
    assert resident() - before < 30 << 20


def test_an_answer_is_streamed_back(client: httpx.Client) -> None:
    began, times = time.monotonic(), list[float]()
    with client.stream("GET", "/v2/slowly") as answer:
        times.extend(time.monotonic() - began for _ in answer.iter_raw())
    assert len(times) >= 4
    assert times[0] < times[-1] - 0.4


def test_an_early_refusal_of_the_worker_comes_back(client: httpx.Client) -> None:
    answer = client.post("/v2/too-large", content=bytes(5 << 20))
    assert (answer.status_code, answer.json()) == (413, {"error": "too large"})


def test_a_client_that_goes_away_is_missed_by_the_worker(client: httpx.Client, wait_until: Callable[..., None]) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v2/hang", content=b"x", timeout=0.5)
    wait_until(lambda: client.get("/v2/events").json()[-3:] == ["began", "client gone", "ended"], 5)


def test_a_client_that_breaks_off_its_body_harms_nobody(client: httpx.Client, running: Any) -> None:
    address = urlsplit(running.url)
    head = f"POST /v2/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {running.token}\r\ncontent-length: 1000000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(head.encode() + b"x" * 1000)
            time.sleep(0.05)
    assert client.get("/v2/after").status_code == 200
    log = running.state / "logs" / "server.log"
    assert "Traceback" not in (log.read_text() if log.exists() else "")


def test_many_at_once(running: Any) -> None:
    async def ask() -> list[int]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(
            base_url=running.url, headers=running.headers, limits=limits, timeout=30
        ) as opened:

            async def one(number: int) -> int:
                answer = await opened.post(f"/v2/x/{number}", content=body(number))
                return answer.json()["size"] - number

            return await asyncio.gather(*(one(number) for number in range(100)))

    async def body(number: int) -> AsyncIterator[bytes]:
        yield b"x" * number

    assert set(asyncio.run(ask())) == {0}


def test_a_worker_that_is_killed_is_missed_politely_and_comes_back(client: httpx.Client, running: Any) -> None:
    before = client.get("/api/v1/status").json()["children"][0]
    os.kill(before["pid"], signal.SIGKILL)
    hurried = client.post("/v2/models/late_arrival/infer", content=b"{}", headers={"x-request-timeout": "0.001"})
    assert hurried.status_code == 503
    assert hurried.headers["retry-after"]
    assert "try again" in hurried.json()["error"]
    assert client.get("/healthz").json()["serving"] == "starting"
    assert client.get("/v2/health/ready").status_code == 503
    assert client.post("/v2/models/late_arrival/infer", content=b"12345").json()["size"] == 5
    after = client.get("/api/v1/status").json()["children"][0]
    assert (after["restarts"], after["exit_code"]) == (before["restarts"] + 1, -9)
    assert after["pid"] != before["pid"]


def test_a_worker_killed_in_the_middle_of_a_request(
    client: httpx.Client, running: Any, wait_until: Callable[..., None]
) -> None:
    import threading

    wait_until(lambda: client.get("/healthz").json()["serving"] == "ready")
    pid = client.get("/api/v1/status").json()["children"][0]["pid"]
    threading.Timer(0.4, os.kill, (pid, signal.SIGKILL)).start()
    assert client.post("/v2/hang", content=b"x").status_code == 503
    wait_until(lambda: client.get("/healthz").json()["serving"] == "ready")
