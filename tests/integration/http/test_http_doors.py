"""Who may come in by the port, and that a worker that is killed does not take it with it."""

from __future__ import annotations

import base64
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from millpond.server.sockets import listen

Body = Callable[..., bytes]
INFER = "/v2/models/sum/infer"


@pytest.fixture
def ask(server: Any, infer_body: Body) -> Callable[..., httpx.Response]:
    def ask(**headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(f"http://127.0.0.1:{server.port}{INFER}", content=infer_body(1), headers=named)

    return ask


def test_a_token_says_who_asks(ask: Callable[..., httpx.Response]) -> None:
    basic = base64.b64encode(b"whoever:ben").decode()
    for authorization, user in (("Bearer ann", "ann"), ("bearer  ben", "ben"), (f"Basic {basic}", "ben")):
        answer = ask(authorization=authorization, x_millpond_user="root", X_Millpond_User="root")
        assert answer.json()["outputs"][0]["data"] == [f"p_{user}_0"]


@pytest.mark.parametrize("authorization", ["Bearer mallory", "Bearer", "Basic x", "Digest ann", "Bearer " + "x" * 5000])
def test_others_stay_out(ask: Callable[..., httpx.Response], authorization: str) -> None:
    answer = ask(authorization=authorization, x_millpond_user="ann")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "NotAuthenticated"


def test_only_health_is_open(server: Any) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers={"x-millpond-user": "ann"}) as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready?x=1").json() == {"ready": True}
        for path in ("/v2", "/v2/models/sum", "/v2/models/sum/ready", "/metrics", "/internal/traffic", "/healthz2"):
            assert client.get(path).status_code == 401, path
        assert client.post("/v2/repository/models/sum/unload").status_code == 401
        client.headers["authorization"] = "Bearer ann"
        assert client.get("/internal/traffic").status_code == 404
        assert client.get("/v2/models/sum").status_code == 200


def test_a_stranger_cannot_make_it_hold_a_body(server: Any, post: Callable[..., bytes]) -> None:
    with server.raw_port() as raw:
        raw.send(post("sum", b"", "content-length: 1000000"))
        status, headers, _ = raw.answer()
        assert (status, headers["connection"]) == (401, "close")


def test_a_revoked_token_is_refused_within_two_seconds(start: Any, infer_body: Body) -> None:
    server = start("--port", "0")
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers={"authorization": "Bearer ann"}) as client:
        began = time.monotonic()
        for _ in range(200):
            assert client.post(INFER, content=infer_body(1)).status_code == 200
        assert len(server.lookups()) <= 2 + (time.monotonic() - began)
        server.tokens.write_text("ben")
        revoked = time.monotonic()
        while client.post(INFER, content=infer_body(1)).status_code == 200:
            assert time.monotonic() - revoked < 2.5
        server.tokens.write_text("ann")  # and a token that was not good before is
        given = time.monotonic()
        while client.post(INFER, content=infer_body(1)).status_code == 401:
            assert time.monotonic() - given < 2.5


def test_many_strangers_at_once(server: Any, infer_body: Body) -> None:
    statuses: list[int] = []

    def knock(first: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
            for number in range(20):
                headers = {"authorization": f"Bearer x{first}-{number}"}
                statuses.append(client.post(INFER, content=infer_body(1), headers=headers).status_code)

    threads = [threading.Thread(target=knock, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {401}
    assert len(statuses) == 160


@pytest.mark.slow
def test_a_killed_worker_does_not_take_the_port_with_it(start: Any, infer_body: Body) -> None:
    """Connections wait in the socket that the parent holds; none is refused while a new worker starts."""
    refused: list[Exception] = []
    answered = [0]
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        worker = start(inherited=listener.fileno())
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    headers = {"authorization": "Bearer ann"}
                    answer = httpx.post(f"http://127.0.0.1:{port}{INFER}", content=infer_body(1), headers=headers)
                    answered[0] += answer.status_code == 200
                except httpx.ConnectError as error:
                    refused.append(error)
                except httpx.TransportError:
                    continue  # cut off with the worker: ask again

        asking = threading.Thread(target=ask)
        asking.start()
        for _ in range(2):
            time.sleep(0.3)
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.wait(10)
            before = answered[0]
            worker = start(inherited=listener.fileno())
            deadline = time.monotonic() + 10
            while answered[0] < before + 3:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        done.set()
        asking.join()
    assert refused == []
