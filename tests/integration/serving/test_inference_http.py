"""The Open Inference Protocol over a real server on a Unix socket, and what it says to bad callers."""

from __future__ import annotations

import json
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from millpond.serving.log.drain import find

pytestmark = pytest.mark.slow

INFER = "/v2/models/late_arrival/infer"
MEGABYTE = 1 << 20
NO_MODEL = Path("-")


@pytest.fixture
def client(worker: Any) -> Iterator[httpx.Client]:
    with worker.client() as client:
        yield client


def request(count: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "origin", "shape": [count], "datatype": "BYTES", "data": ["JFK"] * count},
            {"name": "distance", "shape": [count, 1], "datatype": "FP64", "data": [[1200.0]] * count},
        ],
        **fields,
    }


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """The protocol's error body, which says nothing of the inside."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert isinstance(body["error"], str)
    assert body["what"]
    assert {"error", "what", "where", "hint"} <= set(body)
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    return body


class TestProtocol:
    """Each route as the public specification of the Open Inference Protocol (REST) has it."""

    def test_health(self, client: httpx.Client) -> None:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}

    def test_server_metadata(self, client: httpx.Client) -> None:
        document = client.get("/v2").json()
        assert document["name"] == "millpond"
        assert isinstance(document["version"], str)
        assert set(document["extensions"]) == {"binary_tensor_data", "model_repository", "parameters"}

    @pytest.mark.parametrize("path", ["/v2/models/late_arrival", "/v2/models/late_arrival/versions/3"])
    def test_model_metadata(self, client: httpx.Client, path: str) -> None:
        document = client.get(path).json()
        assert document["name"] == "late_arrival"
        assert document["versions"] == ["3"]
        for tensor in (*document["inputs"], *document["outputs"]):
            assert isinstance(tensor["name"], str)
            assert tensor["datatype"] in {"BYTES", "FP64", "INT64", "BOOL"}
            assert tensor["shape"] == [-1]
        assert client.get(f"{path}/ready").json() == {"name": "late_arrival", "ready": True}

    @pytest.mark.parametrize("path", [INFER, "/v2/models/late_arrival/versions/3/infer"])
    def test_infer(self, client: httpx.Client, worker: Any, path: str) -> None:
        response = client.post(path, json=request(2, id="r-1"))
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        answer = response.json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("late_arrival", "3", "r-1")
        outputs = {each["name"]: each for each in answer["outputs"]}
        assert list(outputs) == ["prediction_id", "probability", "answer", "as_of"]
        assert [each["datatype"] for each in outputs.values()] == ["BYTES", "FP64", "BOOL", "BYTES"]
        assert all(each["shape"] == [2] and len(each["data"]) == 2 for each in outputs.values())
        assert outputs["answer"]["data"] == [True, True]
        [logged] = find(worker.spool, outputs["prediction_id"]["data"][1])[1].to_pylist()
        assert logged["output"] == outputs["probability"]["data"][1]
        assert logged["requested_by"] == "ann"

    def test_what_metadata_says_is_what_infer_takes(self, client: httpx.Client) -> None:
        metadata = client.get("/v2/models/late_arrival").json()
        values = {"BYTES": "2013-12-01T08:00:00Z", "FP64": 1.5, "INT64": 2, "BOOL": True}
        inputs = [
            {"name": each["name"], "datatype": each["datatype"], "shape": [1], "data": [values[each["datatype"]]]}
            for each in metadata["inputs"]
        ]
        answer = client.post(INFER, json={"inputs": inputs}).json()
        assert [(each["name"], each["datatype"]) for each in answer["outputs"]] == [
            (each["name"], each["datatype"]) for each in metadata["outputs"]
        ]

    def test_as_of_and_the_callers_name(self, client: httpx.Client, worker: Any) -> None:
        content = request(parameters={"as_of": "2013-12-01T09:00:00+01:00"}, outputs=[{"name": "prediction_id"}])
        response = client.post(INFER, json=content, headers={"x-millpond-user": "Zo%C3%AB"})
        answer = response.json()
        assert answer["parameters"] == {"variant": "live", "as_of": "2013-12-01T08:00:00Z"}
        (output,) = answer["outputs"]
        [logged] = find(worker.spool, output["data"][0])[1].to_pylist()
        assert logged["as_of"].isoformat() == "2013-12-01T08:00:00+00:00"
        assert logged["requested_by"] == "Zoë"


class TestBadCallers:
    def test_unknown_model_and_version(self, client: httpx.Client) -> None:
        body = refused(client.post("/v2/models/late_arival/infer", json=request()), 404)
        assert "did you mean 'late_arrival'?" in body["error"]
        refused(client.get("/v2/models/nothing/ready"), 404)
        body = refused(client.post("/v2/models/late_arrival/versions/9/infer", json=request()), 404)
        assert body["hint"] == "versions: 3"

    @pytest.mark.parametrize("content", [b"", b"{", b"\x00\x01", b'{"inputs": NaN}', b'"' * 1000, b"[" * 500_000])
    def test_a_body_that_is_no_request(self, client: httpx.Client, content: bytes) -> None:
        body = refused(client.post(INFER, content=content), 400)
        assert "model 'late_arrival'" in body["where"]

    def test_a_naive_instant(self, client: httpx.Client) -> None:
        content = request()
        naive = {"name": "scheduled_at", "shape": [1], "datatype": "BYTES", "data": ["2013-12-01T08:00:00"]}
        content["inputs"].append(naive)
        body = refused(client.post(INFER, json=content), 400)
        assert "names no time zone" in body["what"]
        assert body["where"] == "model 'late_arrival', input 'scheduled_at'"

    def test_nobody(self, worker: Any) -> None:
        with worker.client() as client:
            del client.headers["x-millpond-user"]
            refused(client.post(INFER, json=request()), 401)
            assert client.get("/v2/health/live").status_code == 200

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", INFER, 405),
            ("POST", "/v2/models/late_arrival", 405),
            ("GET", "/", 404),
            ("GET", "/v2/models", 404),
            ("POST", "/v2/models//infer", 404),
            ("GET", "/v2/models/late_arrival/versions/3/infer/x", 404),
        ],
    )
    def test_other_routes(self, client: httpx.Client, method: str, path: str, status: int) -> None:
        refused(client.request(method, path), status)

    def test_compressed(self, client: httpx.Client) -> None:
        response = client.post(INFER, content=b"x", headers={"content-encoding": "gzip"})
        assert "not gzip" in refused(response, 400)["what"]
        response = client.post(INFER, content=b"x", headers={"content-encoding": "br"})
        assert "'br'" in refused(response, 415)["what"]

    def test_too_many_rows(self, client: httpx.Client) -> None:
        refused(client.post(INFER, json=request(10_001)), 413)
        assert client.post(INFER, json=request(10_000)).status_code == 200

    def test_an_error_inside_says_only_its_id(self, client: httpx.Client, worker: Any) -> None:
        response = client.post("/v2/models/broken/infer", json=request())
        body = refused(response, 500)
        assert "secret" not in response.text
        assert body["id"] in body["error"]
        logged = worker.errors.read_text()
        assert body["id"] in logged
        assert "a secret of the house" in logged

    def test_a_model_that_is_loading(self, client: httpx.Client, model_directory: Path) -> None:
        flag = model_directory / "loading"
        flag.touch()
        try:
            body = refused(client.post("/v2/models/loading/infer", json=request()), 503)
            assert "being opened" in body["error"]
            response = client.get("/v2/models/loading/ready")
            assert (response.status_code, response.json()["ready"]) == (503, False)
            response = client.get("/v2/health/ready")
            assert (response.status_code, response.json()) == (503, {"ready": False, "waiting": ["loading"]})
            assert client.get("/v2/models/late_arrival/ready").status_code == 200
        finally:
            flag.unlink()


class TestLargeBodies:
    @pytest.mark.parametrize("chunked", [False, True])
    def test_100_megabytes_are_refused_and_never_held(self, worker: Any, client: httpx.Client, chunked: bool) -> None:
        assert client.post(INFER, json=request()).status_code == 200
        before, most, stop = worker.resident_bytes(), [0], threading.Event()

        def watch() -> None:
            while not stop.is_set():
                most[0] = max(most[0], worker.resident_bytes())
                time.sleep(0.002)

        def pieces() -> Iterator[bytes]:
            for _ in range(100):
                yield b" " * MEGABYTE

        watcher = threading.Thread(target=watch)
        watcher.start()
        headers = {} if chunked else {"content-length": str(100 * MEGABYTE)}
        response = client.post(INFER, content=pieces(), headers=headers)
        stop.set()
        watcher.join()
        body = refused(response, 413)
        assert "at most 16777216 bytes" in body["what"]
        assert most[0] - before < (40 if chunked else 8) * MEGABYTE
        assert client.post(INFER, json=request()).status_code == 200

    def test_a_body_just_under_the_limit_is_read(self, client: httpx.Client) -> None:
        content = json.dumps(request()).encode()
        padded = content + b" " * (16 * MEGABYTE - len(content))
        assert client.post(INFER, content=padded).status_code == 200
        refused(client.post(INFER, content=padded + b" "), 413)


class TestSlowAndLostCallers:
    HEAD = (
        b"POST /v2/models/late_arrival/infer HTTP/1.1\r\nhost: x\r\nx-millpond-user: ann\r\ncontent-length: 100\r\n\r\n"
    )

    def connect(self, worker: Any) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(worker.socket))
        return connection

    def test_a_body_that_does_not_come(self, worker: Any, client: httpx.Client) -> None:
        with self.connect(worker) as connection:
            started = time.monotonic()
            connection.sendall(self.HEAD + b'{"inputs"')
            answer = b""
            while piece := connection.recv(65536):  # until the server closes
                answer += piece
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 1 seconds" in answer
        assert time.monotonic() - started > 0.9
        assert client.post(INFER, json=request()).status_code == 200

    def test_a_caller_that_goes_away(self, worker: Any, client: httpx.Client) -> None:
        for _ in range(20):
            with self.connect(worker) as connection:
                connection.sendall(self.HEAD + b'{"inputs"')
        assert client.post(INFER, json=request()).status_code == 200
        assert "Traceback" not in worker.errors.read_text().split("error id")[0]

    def test_what_is_no_http(self, worker: Any, client: httpx.Client) -> None:
        with self.connect(worker) as connection:
            connection.sendall(b"\x16\x03\x01 no http\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert client.get("/v2/health/live").status_code == 200


def test_a_slow_model_stands_in_nobodys_way(worker: Any, client: httpx.Client) -> None:
    def ask() -> None:
        with worker.client() as mine:
            assert mine.post("/v2/models/slow/infer", json=request()).status_code == 200

    began = time.monotonic()
    busy = [threading.Thread(target=ask) for _ in range(5)]
    for thread in busy:
        thread.start()
    time.sleep(0.2)
    slowest = 0.0
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/late_arrival", "/metrics", INFER) * 3:
        started = time.monotonic()
        response = client.post(path, json=request()) if path == INFER else client.get(path)
        assert response.status_code == 200
        slowest = max(slowest, time.monotonic() - started)
    for thread in busy:
        thread.join()
    assert slowest < (time.monotonic() - began) / 2


def test_more_callers_than_a_model_can_hold_are_sent_away(worker: Any) -> None:
    statuses: list[int] = []

    def ask() -> None:
        with worker.client() as mine:
            response = mine.post("/v2/models/slow/infer", json=request())
            statuses.append(response.status_code)
            if response.status_code == 429:
                assert "version 3 of model 'slow'" in refused(response, 429)["error"]

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 12
    assert 5 <= statuses.count(200) < 12
    assert set(statuses) == {200, 429}


def test_callers_at_the_same_time_get_their_own_answers(worker: Any) -> None:
    found: dict[float, float] = {}

    def ask(distance: float) -> None:
        content = request()
        content["inputs"][1]["data"] = [[distance]]
        with worker.client() as mine:
            for _ in range(5):
                answer = mine.post(INFER, json=content).json()
                (made,) = answer["outputs"][0]["data"]
                [logged] = find(worker.spool, made)[1].to_pylist()
                assert logged["request__distance"] == distance
                assert found.setdefault(distance, logged["output"]) == answer["outputs"][1]["data"][0]

    threads = [threading.Thread(target=ask, args=(float(each),)) for each in (100, 790, 800, 810, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 5
    assert found[100.0] < 0.5 < found[2000.0]


def test_metrics(worker: Any, client: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), 0.0)

    ok = 'millpond_inference_requests_total{model="late_arrival",version="3",variant="live",code="200"}'
    bad = 'millpond_inference_requests_total{model="late_arrival",version="3",variant="",code="400"}'
    lost = 'millpond_inference_requests_total{model="",version="",variant="",code="404"}'
    rows = 'millpond_inference_rows_total{model="late_arrival",version="3",variant="live"}'
    count = 'millpond_inference_seconds_count{model="late_arrival",version="3",variant="live"}'
    before = {name: value(name) for name in (ok, bad, lost, rows, count)}
    client.post(INFER, json=request(7))
    client.post(INFER, content=b"x")
    client.post("/v2/models/a-new-name-each-time/infer", json=request())
    after = {name: value(name) - before[name] for name in before}
    assert after == {ok: 1, bad: 1, lost: 1, rows: 7, count: 1}
    assert "a-new-name" not in client.get("/metrics").text


class TestTheServer:
    def test_only_the_owner_can_open_the_socket(self, worker: Any) -> None:
        assert stat.S_IMODE(worker.socket.stat().st_mode) == 0o600

    def test_a_second_server_is_refused(self, worker: Any, tmp_path: Path, run: Any) -> None:
        done = run(str(worker.socket), tmp_path / "spool", NO_MODEL, tmp_path / "errors")
        assert done.wait(120) != 0
        assert "a server is answering on this socket already" in (tmp_path / "errors").read_text()
        with worker.client() as client:
            assert client.get("/v2/health/live").status_code == 200

    def test_on_loopback_it_finishes_what_it_began(self, tmp_path: Path, run: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = run(str(tmp_path / "s.sock"), tmp_path / "spool", NO_MODEL, tmp_path / "errors", str(port))
        base, headers = f"http://127.0.0.1:{port}", {"authorization": "Bearer ann"}
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{base}/v2/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        seconds = []
        with httpx.Client(base_url=base) as client:
            for _ in range(20):
                started = time.monotonic()
                client.get("/v2/health/live")
                seconds.append(time.monotonic() - started)
        assert sorted(seconds)[10] < 0.035, "an answer waits for the acknowledgement of its own headers"
        answers: list[int] = []

        def ask() -> None:
            answer = httpx.post(f"{base}/v2/models/slow/infer", json=request(), headers=headers, timeout=60)
            answers.append(answer.status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.15)
        process.send_signal(signal.SIGTERM)
        asking.join()
        process.wait(15)
        assert answers == [200]

    def test_what_cannot_be_logged_is_not_answered(self, tmp_path: Path, run: Any) -> None:
        (tmp_path / "spool").write_text("no directory")
        place = tmp_path / "s.sock"
        run(str(place), tmp_path / "spool", NO_MODEL, tmp_path / "errors")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://worker") as client:
            deadline = time.monotonic() + 120
            while not place.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            response = client.post("/v2/models/slow/infer", json=request(), headers={"x-millpond-user": "ann"})
        body = refused(response, 503)
        assert "the prediction log cannot be written" in body["error"]
        assert response.headers["retry-after"] == "1"

    def test_a_socket_left_by_a_killed_server_is_replaced(self, tmp_path: Path, run: Any) -> None:
        place = tmp_path / "s.sock"
        for _ in range(2):
            process = run(str(place), tmp_path / "spool", NO_MODEL, tmp_path / "errors")
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://worker") as client:
                deadline = time.monotonic() + 120
                status = 0
                while status != 200 and time.monotonic() < deadline:
                    try:
                        status = client.get("/v2/health/live").status_code
                    except httpx.TransportError:
                        time.sleep(0.05)
            assert status == 200, (tmp_path / "errors").read_text()
            process.kill()
            process.wait(10)
            assert place.exists()
