"""MLflow's server inside a process of ours, behind a prefix, spoken to by MLflow's own client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from millpond.registry.mlflow_store import MLflowStore
from millpond.registry.ports import Candidate

pytestmark = pytest.mark.slow

_SERVER = textwrap.dedent("""
    import sys
    from pathlib import Path

    import uvicorn
    from millpond.registry.mlflow_app import child_environment, mlflow_application, without_prefix

    state = Path(sys.argv[1])
    app = mlflow_application(state / "mlflow.db", state / "artifacts", hosts=["ml.example:*"])
    app = without_prefix(app, "/mlflow")
    assert not [name for name in child_environment() if "MLFLOW_SERVER" in name]
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", lifespan="off")
""")

_CLIENT = textwrap.dedent("""
    import json, sys
    import mlflow
    import mlflow.pyfunc

    mlflow.set_tracking_uri(sys.argv[1])
    client = mlflow.MlflowClient()
    model = mlflow.pyfunc.load_model("models:/late_arrival@champion")
    mlflow.set_experiment("notebook")
    with mlflow.start_run() as run:
        mlflow.log_metric("auc", 0.7)
        mlflow.log_text("hello", "notes/a.txt")
    report = client.download_artifacts(client.get_model_version("late_arrival", "1").run_id, "report.html")
    print(json.dumps({
        "predictions": model.predict(model.input_example).tolist(),
        "artifact": open(client.download_artifacts(run.info.run_id, "notes/a.txt")).read(),
        "artifact_uri": run.info.artifact_uri,
        "report": open(report).read(),
    }))
""")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(shared_state: Path, shared_store: MLflowStore, candidate: Candidate) -> Iterator[str]:
    shared_store.register(candidate)
    shared_store.set_alias("late_arrival", "champion", 1)
    port = free_port()
    with (shared_state / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(shared_state), str(port)], stdout=log, stderr=log
        )
    try:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{base}/mlflow/health").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, (shared_state / "server.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(timeout=20)


def run_client(script: str, *arguments: str, folder: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_real_client_reads_a_version_and_logs_a_run(
    server: str, shared_state: Path, shared_store: MLflowStore, candidate: Candidate, tmp_path: Path
) -> None:
    answer = run_client(_CLIENT, f"{server}/mlflow", folder=tmp_path)
    assert answer["predictions"] == pytest.approx(list(candidate.expected), rel=1e-12)
    assert answer["artifact"] == "hello"
    assert answer["artifact_uri"].startswith("mlflow-artifacts:/")
    assert answer["report"].encode() == candidate.files["report.html"]
    # What the client logged lies in our directory, and nothing of it where the client ran.
    stored = list((shared_state / "artifacts").rglob("notes/a.txt"))
    assert [path.read_text() for path in stored] == ["hello"]
    assert list(tmp_path.iterdir()) == []
    # The store goes on beside the server.
    assert shared_store.register(candidate).number == 2


def test_the_user_interface_and_its_assets_are_found_below_the_prefix(server: str) -> None:
    assert httpx.get(f"{server}/mlflow").headers["location"] == "/mlflow/"
    page = httpx.get(f"{server}/mlflow/")
    assert page.status_code == 200
    assets = [part.split('"')[0] for part in page.text.split('"./')[1:]]
    assert assets
    assert {httpx.get(f"{server}/mlflow/{asset}").status_code for asset in assets} == {200}
    assert httpx.get(f"{server}/elsewhere").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/status",
        "/ajax-api/3.0/mlflow/%61ssistant/status",
        "/ajax-api/3.0/mlflow//assistant",
    ],
)
def test_the_assistant_is_blocked(server: str, path: str) -> None:
    assert httpx.get(f"{server}/mlflow{path}").status_code == 403
    assert httpx.post(f"{server}/mlflow{path}", json={}).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1234", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("ml.example:8443", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_only_hosts_of_the_loopback_are_answered(server: str, host: str, status: int) -> None:
    assert httpx.get(f"{server}/mlflow/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:9", 200), ("https://ml.example:8443", 200), ("https://evil.example", 403), ("null", 403)],
)
def test_only_pages_of_these_hosts_may_write(server: str, origin: str, status: int) -> None:
    search = f"{server}/mlflow/ajax-api/2.0/mlflow/experiments/search"
    assert httpx.post(search, json={"max_results": 1}, headers={"origin": origin}).status_code == status


def test_usage_reports_of_the_page_are_off(server: str) -> None:
    assert httpx.get(f"{server}/mlflow/ajax-api/3.0/mlflow/ui-telemetry").json()["disable_ui_telemetry"] is True


def peak_memory(state: Path) -> int:
    (process,) = [
        path.parent
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(state).encode() in path.read_bytes().split(b"\0") and b"-c" in path.read_bytes().split(b"\0")
    ]
    status = (process / "status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_upload_is_streamed(server: str, shared_state: Path) -> None:
    piece, pieces = os.urandom(1 << 20), 150
    httpx.put(f"{server}/mlflow/api/2.0/mlflow-artifacts/artifacts/0/warm.bin", content=b"x").raise_for_status()
    before = peak_memory(shared_state)
    target = f"{server}/mlflow/api/2.0/mlflow-artifacts/artifacts/0/large.bin"
    httpx.put(target, content=(piece for _ in range(pieces)), timeout=60).raise_for_status()
    assert (shared_state / "artifacts" / "0" / "large.bin").stat().st_size == pieces << 20
    assert peak_memory(shared_state) - before < 40 << 20


def test_nothing_was_said_on_the_way(server: str, shared_state: Path) -> None:
    httpx.get(f"{server}/mlflow/health")
    assert (shared_state / "server.log").read_text() == ""
