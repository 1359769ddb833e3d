"""The control process as a whole, as a real process."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

Launch = Callable[..., tuple[Any, dict[str, Any]]]
WaitUntil = Callable[..., None]


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(each)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for each in (task / "children").read_text().split()
    ]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_it_answers_at_once_and_ends_leaving_nothing_behind(
    launch: Launch, tmp_path: Path, wait_until: WaitUntil, how: signal.Signals
) -> None:
    process, said = launch(tmp_path / ".millpond")
    health = httpx.get(said["url"] + "/healthz").json()
    assert (health["status"], health["mlflow"]) == ("ok", "starting")
    headers = {"authorization": f"Bearer {said['token']}"}
    waiting = httpx.get(said["url"] + "/mlflow/api/2.0/x", headers=headers)
    assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "2")
    wait_until(lambda: httpx.get(said["url"] + "/mlflow/api/2.0/x", headers=headers).status_code == 200)
    wait_until(lambda: httpx.get(said["url"] + "/healthz").json()["serving"] == "ready")
    children = children_of(process.pid)
    assert len(children) == 1
    began = time.monotonic()
    process.send_signal(how)
    assert process.wait(15) == 0
    assert time.monotonic() - began < 8
    assert gone(children)
    with pytest.raises(httpx.ConnectError):
        httpx.get(said["url"] + "/healthz")


def test_the_announced_address_signs_in_once(running: Any) -> None:
    with httpx.Client(follow_redirects=True) as browser:
        assert "Overview" in browser.get(running.login_url).text
        assert browser.get(running.url + "/api/v1/whoami").json()["by"] == "session"
    assert httpx.get(running.login_url).status_code == 401


def test_an_end_while_a_request_hangs_is_still_quick(launch: Launch, tmp_path: Path, wait_until: WaitUntil) -> None:
    import threading

    process, said = launch(tmp_path / ".millpond")
    wait_until(lambda: httpx.get(said["url"] + "/healthz").json()["serving"] == "ready")
    children = children_of(process.pid)

    def hang() -> None:
        with suppress(httpx.TransportError):
            httpx.post(said["url"] + "/v2/hang", headers={"authorization": f"Bearer {said['token']}"}, timeout=30)

    hanging = threading.Thread(target=hang)
    hanging.start()
    time.sleep(0.5)
    began = time.monotonic()
    process.terminate()
    assert process.wait(20) == 0
    assert time.monotonic() - began < 10
    assert gone(children)
    hanging.join(10)


def test_a_kill_leaves_no_orphan_and_the_next_start_just_works(
    launch: Launch, tmp_path: Path, wait_until: WaitUntil
) -> None:
    state = tmp_path / ".millpond"
    process, said = launch(state)
    wait_until(lambda: httpx.get(said["url"] + "/healthz").json()["serving"] == "ready")
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    wait_until(lambda: gone(children), 5)
    _, again = launch(state)
    assert again["token"] == said["token"]
    wait_until(lambda: httpx.get(again["url"] + "/healthz").json()["serving"] == "ready")


def test_a_second_start_says_where_the_first_runs(running: Any, launch: Launch) -> None:
    second, refused = launch(running.state)
    assert second.wait(10) == 3
    assert refused["error"] == "Conflict"
    assert running.url in refused["what"]
    assert f"process {running.process.pid}" in refused["what"]
    assert httpx.get(running.url + "/healthz").status_code == 200


def test_a_port_in_use_stops_it_before_anything_starts(launch: Launch, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process, refused = launch(tmp_path / ".millpond", port)
        assert process.wait(10) == 3
    assert refused["error"] == "Conflict"
    assert f"Port {port}" in refused["what"]
    assert not (tmp_path / ".millpond" / "logs" / "inference.log").exists()


def test_what_it_writes_is_its_owners_alone(running: Any) -> None:
    state = running.state
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "token").stat().st_mode) == 0o600
    written = b"".join(file.read_bytes() for file in state.rglob("*") if file.is_file() and file.name != "token")
    assert running.token.encode() not in written
    assert os.fsencode(running.login_url.partition("code=")[2]) not in written
