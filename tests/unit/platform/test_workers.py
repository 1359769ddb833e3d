"""Asking a worker that is not there yet, or not any more."""

from __future__ import annotations

import http.server
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millpond.core.errors import Unavailable
from millpond.platform.workers import ask_worker


class Answers(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        if self.path == "/silent":
            return
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def worker(socket: Path) -> Iterator[socketserver.UnixStreamServer]:
    with socketserver.UnixStreamServer(str(socket), Answers) as server:
        server.asked = 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_question_waits_for_a_worker_that_starts_again(tmp_path: Path) -> None:
    socket, over = tmp_path / "w", threading.Event()

    def later() -> None:
        time.sleep(0.3)
        with worker(socket):
            over.wait(10)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert ask_worker([socket], "POST", "/x", content=b"1", timeout=5).text == "ok"
    finally:
        over.set()
        thread.join()


def test_a_worker_that_is_there_is_asked_before_one_is_waited_for(tmp_path: Path) -> None:
    with worker(tmp_path / "b"):
        for _ in range(5):
            sockets = [tmp_path / "a", tmp_path / "b"]
            assert ask_worker(sockets, "POST", "/x", timeout=5, patience=0).text == "ok"


def test_a_question_that_has_reached_a_worker_is_not_put_again(tmp_path: Path) -> None:
    with worker(tmp_path / "w") as server:
        with pytest.raises(Unavailable, match="does not answer"):
            ask_worker([tmp_path / "w"], "POST", "/silent", timeout=5)
        assert server.asked == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("sockets", [[], ["none"]])
def test_waiting_ends(tmp_path: Path, sockets: list[str]) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        ask_worker([tmp_path / each for each in sockets], "POST", "/x", timeout=5, patience=0.2)
