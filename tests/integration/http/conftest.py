from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = Path(__file__).with_name("answers.py")


class Raw:
    """A connection whose bytes the test writes and reads itself."""

    def __init__(self, place: Path | int) -> None:
        if isinstance(place, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(10)
            self.socket.connect(str(place))
        else:
            self.socket = socket.create_connection(("127.0.0.1", place), timeout=10)
        self._seen = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer: its status, its headers, its body."""
        while b"\r\n\r\n" not in self._seen:
            self._more()
        top, _, rest = self._seen.partition(b"\r\n\r\n")
        line, *lines = top.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        size = 0 if head else int(headers.get("content-length", 0))
        self._seen = rest
        while len(self._seen) < size:
            self._more()
        body, self._seen = self._seen[:size], self._seen[size:]
        return int(line.split()[1]), headers, body

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        try:
            while piece := self.socket.recv(1 << 20):
                self._seen += piece
        except ConnectionResetError:
            pass
        seen, self._seen = self._seen, b""
        return seen

    def _more(self) -> None:
        piece = self.socket.recv(1 << 20)
        assert piece, f"closed after {self._seen!r}"
        self._seen += piece


@dataclass
class Server:
    """A worker in a process of its own; `tokens` names those that its port takes."""

    process: subprocess.Popen[str]
    socket: Path
    port: int

    @property
    def tokens(self) -> Path:
        return self.socket.with_name("tokens")

    def lookups(self) -> list[str]:
        return self.socket.with_name("calls").read_text().split()

    def raw(self) -> Raw:
        return Raw(self.socket)

    def raw_port(self) -> Raw:
        return Raw(self.port)

    def client(self, **headers: str) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(
            transport=transport, base_url="http://worker", headers={"x-millpond-user": "ann", **headers}, timeout=20
        )

    def traffic(self) -> dict[str, int]:
        with self.client() as client:
            found: dict[str, int] = client.get("/internal/traffic").json()
        return found

    def resident(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096


Start = Callable[..., Server]


def start_server(folder: Path, *options: str, inherited: int | None = None) -> Server:
    place = folder / "w.sock"
    (folder / "tokens").write_text("ann ben")
    (folder / "calls").touch()
    command = [sys.executable, str(PROGRAM), str(place), *options]
    fds = []
    if inherited is not None:
        command += ["--http", str(inherited)]
        fds = [inherited]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, pass_fds=fds)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (folder / "errors").read_text()
    return Server(process, place, int(line))


@pytest.fixture(name="start")
def _start(tmp_path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def start(*options: str, **more: Any) -> Server:
        started.append(start_server(tmp_path, *options, **more))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate(timeout=10)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A worker that several tests share; it is there and well at the end."""
    found = start_server(tmp_path_factory.mktemp("http"), "--port", "0")
    yield found
    assert found.process.poll() is None
    found.process.terminate()
    assert found.process.wait(15) == 0


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def infer_body(*a: float, **more: Any) -> bytes:
    inputs = [{"name": "a", "shape": [len(a)], "datatype": "FP64", "data": list(a)}]
    return json.dumps({"inputs": inputs, **more}).encode()


def post(model: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: x", "x-millpond-user: ann", *headers]
    if not any(each.lower().startswith(("content-length", "transfer-encoding")) for each in headers):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture(name="post")
def _post() -> Callable[..., bytes]:
    """The bytes of an inference request."""
    return post


@pytest.fixture(name="infer_body")
def _infer_body() -> Callable[..., bytes]:
    """The body of an inference request for rows of `a`."""
    return infer_body


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "did not come true"
            time.sleep(0.02)

    return until
