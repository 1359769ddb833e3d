from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the client asks for another HTTP library than ours
    from starlette.testclient import TestClient

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from faces_example import ExamplePlatform  # noqa: E402

from millpond.access.local import local_admin  # noqa: E402
from millpond.access.store import AccessStore  # noqa: E402
from millpond.server.app import Parts, Services, create_app, parts  # noqa: E402


@dataclass(frozen=True)
class Faces:
    """The application in this process, on the example platform; no worker runs."""

    app: Starlette
    services: Services
    platform: ExamplePlatform
    parts: Parts
    token: str

    @property
    def access(self) -> AccessStore:
        return self.services.access

    def client(self, **headers: str) -> TestClient:
        """A client that sends no credential."""
        base = "http://127.0.0.1:8200"
        client = TestClient(self.app, base_url=base, raise_server_exceptions=False, follow_redirects=False)
        client.headers.update({name.replace("_", "-"): text for name, text in headers.items()})
        return client

    def program(self) -> TestClient:
        """A client with the administrator's token."""
        return self.client(authorization=f"Bearer {self.token}")

    def browser(self) -> TestClient:
        """A client with a session cookie, that says what a browser says on our own pages."""
        client = self.client(accept="text/html", sec_fetch_site="same-origin", origin="http://127.0.0.1:8200")
        client.cookies.set(self.services.cookie, self.access.open_session("admin"))
        return client


@pytest.fixture
def faces(tmp_path: Path) -> Iterator[Faces]:
    admin = local_admin(tmp_path)
    platform = ExamplePlatform(tmp_path)
    access = AccessStore.open(tmp_path / "platform.db")
    services = Services(access, platform, platform, (tmp_path / "worker.sock",), "1.2.3")
    running = parts(services)
    yield Faces(create_app(services, running), services, platform, running, admin.token)
    access.close()


@dataclass(frozen=True)
class Running:
    """The platform in a process of its own."""

    process: subprocess.Popen[str]
    state: Path
    url: str
    login_url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


Start = Callable[..., Any]


def launch(state: Path, port: int = 0) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start the platform; its process, and what it said first."""
    command = [sys.executable, str(HERE / "run_faces_example.py"), str(state), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate(timeout=10)[1])
    return process, json.loads(line)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    import httpx

    state = tmp_path_factory.mktemp("running") / ".millpond"
    process, said = launch(state)
    platform = Running(process, state, said["url"], said["login_url"], said["token"])
    transport = httpx.HTTPTransport(retries=3)
    with httpx.Client(transport=transport, base_url=said["url"], timeout=10) as client:
        wait_until(lambda: client.get("/healthz").json()["serving"] == "ready")
        wait_until(lambda: client.get("/healthz").json()["mlflow"] == "ready")
    yield platform
    process.terminate()
    process.communicate(timeout=20)


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {seconds} s")
        time.sleep(0.05)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


@pytest.fixture(name="launch")
def _launch() -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]]:
    """`launch`, with the processes ended at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(state: Path, port: int = 0) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        process, said = launch(state, port)
        started.append(process)
        return process, said

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)
