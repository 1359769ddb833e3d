from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LightGBM pipeline saved by MLflow; late when the flight is long."""
    import lightgbm
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    frame = pd.DataFrame({"distance": random.normal(800, 300, 500), "seats": random.normal(150, 20, 500)})
    model = make_pipeline(
        StandardScaler().set_output(transform="pandas"), lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1)
    )
    model.fit(frame, frame["distance"] > 800)
    directory = tmp_path_factory.mktemp("model") / "late_arrival"
    mlflow.sklearn.save_model(
        model, str(directory), serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
    )
    return directory


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    socket: Path
    spool: Path
    errors: Path

    def client(self, **options: Any) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        headers = {"x-millpond-user": "ann"}
        return httpx.Client(transport=transport, base_url="http://worker", headers=headers, timeout=20, **options)

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


def start_worker(place: str, spool: Path, model: Path, errors: Path, *port: str) -> subprocess.Popen[bytes]:
    with errors.open("wb") as file:
        return subprocess.Popen([sys.executable, str(WORKER), place, str(spool), str(model), *port], stderr=file)


@pytest.fixture(scope="session")
def worker(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A serving worker in a process of its own, on a Unix socket."""
    place = tmp_path_factory.mktemp("worker")
    socket, errors = place / "serving.sock", place / "errors.log"
    process = start_worker(str(socket), place / "spool", model_directory, errors)
    found = Worker(process, socket, place / "spool", errors)
    try:
        wait_until_ready(found)
        yield found
    finally:
        process.terminate()
        process.wait(20)


def wait_until_ready(worker: Worker) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and worker.process.poll() is None:
        try:
            with worker.client() as client:
                if client.get("/v2/health/ready").status_code == 200:
                    return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(worker.errors.read_text())


@pytest.fixture
def run() -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(start_worker(*arguments))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait(10)
