"""Bad requests, callers and versions: each is told what is wrong, and whoever else asks is answered meanwhile.

One server, with calls of models bounded to three seconds and 700 MB. Its version of "returned" has a damaged plan,
its log lies on a small disk of its own, and "unruly" does what its input says.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WIDE = [[0.1 * number - 1.4 for number in range(30)]]
SHOP = {"customer_id": ["c1"], "category": ["books"], "amount": [1.5]}
OWN = {"number": [1.5], "word": ["pond"]}
PROFILE = f"[profiles.local]\nmodel_seconds = 3.0\nmodel_memory = {700 << 20}\n"


def unruly() -> Any:
    import mlflow

    class Unruly(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            import os
            import signal
            import time

            for deed in model_input["deed"]:
                if deed == "raise":
                    raise RuntimeError("planted: this version raises")
                if deed == "hang":
                    time.sleep(600)
                if deed == "doze":
                    time.sleep(1)
                if deed == "leak":
                    self.kept = b"x" * (1200 << 20)
                    time.sleep(1)
                if deed == "crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if deed == "exit":
                    os._exit(3)
            return model_input[["deed"]]

    return Unruly()


def damage(file: Path) -> None:
    """Change bytes in the middle."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(each ^ 0xFF for each in content[middle : middle + 64])
    file.write_bytes(content)


@pytest.fixture(scope="module")
def project(inference_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    place = tmp_path_factory.mktemp("mistakes")
    project = type(inference_shop)(place / "shop")
    shutil.copytree(inference_shop.folder, project.folder)
    with (project.folder / "millpond.toml").open("a") as file:
        file.write(PROFILE)
    deeds = pd.DataFrame({"deed": ["none"]})
    mlflow.pyfunc.save_model(
        place / "unruly",
        python_model=unruly(),
        signature=infer_signature(deeds, deeds),
        input_example=deeds,
        pip_requirements=["pandas"],
    )
    project.run("register", str(place / "unruly"), "--name", "unruly")
    project.run("deploy", "unruly", "1")
    project.expected = project.json("predict", "returned", *(f"{name}={each}" for name, [each] in SHOP.items()))[
        "output"
    ]
    plan = version_of(project, "returned")["plan"]
    damage(max((project.folder / ".millpond" / plan).rglob("*.*"), key=lambda each: each.stat().st_size))
    spool = project.folder / ".millpond" / "spool"
    spool.mkdir(exist_ok=True)
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(spool)], check=False, capture_output=True
        ).returncode
    )
    try:
        yield project
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(spool)], check=True)


@pytest.fixture(scope="module")
def server(project: Any) -> Iterator[Any]:
    with project.serve() as server:
        yield server


def version_of(project: Any, model: str) -> dict[str, Any]:
    """What the routing document says of a model's version."""
    document = json.loads((project.folder / ".millpond" / "serving" / "routing.json").read_text())
    [found] = [each for each in document["versions"].values() if each["served"]["model"] == model]
    return found


@pytest.fixture(autouse=True)
def _others_answer(server: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """All the while another model answers, in time, by the same worker."""
    [before] = [each for name, each in server.children().items() if name.startswith("serving")]
    stopping = threading.Event()
    asked: list[tuple[int, float]] = []

    def ask() -> None:
        while not stopping.is_set():
            began = time.monotonic()
            asked.append((server.infer("lgb", {"input": WIDE}).status_code, time.monotonic() - began))
            time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stopping.set()
    thread.join()
    assert asked
    full = "small_disk" in request.fixturenames
    assert {status for status, _ in asked} <= ({200, 503} if full else {200})
    assert max(seconds for _, seconds in asked) < 5
    assert before in server.children().values()
    assert server.client.get("/v2/health/live").json() == {"live": True}


@pytest.fixture
def small_disk(project: Any) -> Path:
    """The disk of the prediction log, on which nothing else is; while it is full, others are refused too."""
    spool: Path = project.folder / ".millpond" / "spool"
    if not os.path.ismount(spool):
        outcome = pytest.fail if os.environ.get("CI") else pytest.skip
        outcome("mounting a small disk needs root")
    return spool


def refused(answer: Any, status: int, *words: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    for word in words:
        assert word in body["error"], body
    assert "Traceback" not in answer.text
    return body


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


NUMBER, WORD = tensor("number", "FP64", [1], [1.5]), tensor("word", "BYTES", [1], ["pond"])
MISTAKES = {
    "missing input": ("own", [NUMBER], ["own", "word"]),
    "extra input": ("own", [NUMBER, WORD, tensor("wrod", "BYTES", [1], ["x"])], ["own", "wrod", "word"]),
    "input twice": ("own", [NUMBER, NUMBER, WORD], ["own", "number", "twice"]),
    "text for a number": ("own", [tensor("number", "BYTES", [1], ["x"]), WORD], ["own", "number"]),
    "number for a text": ("own", [NUMBER, tensor("word", "FP64", [1], [1.5])], ["own", "word", "BYTES"]),
    "no datatype": ("own", [NUMBER, tensor("word", "STRING", [1], ["x"])], ["word", "STRING"]),
    "fewer values than the shape": ("own", [NUMBER, tensor("word", "BYTES", [2], ["x"])], ["word", "2", "1"]),
    "other rows": ("own", [NUMBER, tensor("word", "BYTES", [2], ["x", "y"])], ["own", "2"]),
    "null where needed": ("own", [NUMBER, tensor("word", "BYTES", [1], [None])], ["own", "word"]),
    "too wide": ("lgb", [tensor("input", "FP64", [1, 31], [0.5] * 31)], ["lgb", "input", "31", "30"]),
    "flat": ("lgb", [tensor("input", "FP64", [30], [0.5] * 30)], ["lgb", "input", "30"]),
    "ragged": ("lgb", [tensor("input", "FP64", [2, 30], [[0.5] * 30, [0.5] * 29])], ["input"]),
    "text in the numbers": ("lgb", [tensor("input", "FP64", [1, 30], ["x"] * 30)], ["lgb", "input"]),
    "negative shape": ("own", [NUMBER, tensor("word", "BYTES", [-1], ["x"])], ["word", "-1"]),
    "no inputs": ("own", [], ["inputs"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_inputs(server: Any, mistake: str) -> None:
    model, inputs, words = MISTAKES[mistake]
    for base in (server.serving, server.url):
        answer = server.client.post(f"{base}/v2/models/{model}/infer", json={"inputs": inputs})
        refused(answer, 400, *words)


def test_numbers_that_are_none_and_that_have_no_end(server: Any) -> None:
    """JSON has no word for them; in bytes, one that is none is unknown, and one without end is refused."""
    import numpy as np

    for text in ("NaN", "Infinity", "-Infinity"):
        body = json.dumps({"inputs": [NUMBER, WORD]}).replace("1.5", text)
        answer = server.client.post(f"{server.serving}/v2/models/own/infer", content=body)
        refused(answer, 400, "JSON")
    described = [{**NUMBER, "parameters": {"binary_data_size": 8}}, WORD]
    del described[0]["data"]
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": False}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    for value in (np.inf, -np.inf):
        body = head + np.array([value]).tobytes()
        answer = server.client.post(f"{server.serving}/v2/models/own/infer", content=body, headers=headers)
        refused(answer, 400, "own", "number", "inf", "row 0")
    body = head + np.array([np.nan]).tobytes()
    answer = server.client.post(f"{server.serving}/v2/models/own/infer", content=body, headers=headers)
    assert next(each for each in answer.json()["outputs"] if each["name"] == "double")["data"] == [None]
    assert next(each for each in answer.json()["outputs"] if each["name"] == "shout")["data"] == ["POND!"]


def test_unknown_models_and_versions(server: Any) -> None:
    refused(server.infer("onw", OWN), 404, "onw", "own")
    refused(server.infer("own", OWN, version="9"), 404, "own", "9")
    refused(server.infer("own", OWN, version="latest"), 404, "own", "latest")
    assert server.client.get("/v2/models/onw/ready").status_code == 404
    assert server.client.get("/v2/health/ready").json() == {"ready": True}


def test_bodies_without_end(server: Any) -> None:
    sent = 0

    def gigabyte() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1024):
            sent += 1 << 20
            yield b" " * (1 << 20)

    for base in (server.serving, server.url):
        for headers in ({}, {"content-length": str(1 << 30)}):
            sent = 0
            answer = server.client.post(f"{base}/v2/models/own/infer", content=gigabyte(), headers=headers)
            refused(answer, 413, "16")
            assert base == server.url or sent < 1 << 28


def test_slow_and_vanished_callers(server: Any) -> None:
    host, port = server.serving.removeprefix("http://").split(":")
    head = f"POST /v2/models/own/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.token}\r\n"
    callers = []
    for number in range(60):
        caller = socket.create_connection((host, int(port)))
        caller.sendall((head + "content-length: 300\r\n\r\n" + '{"inputs"' * (number % 3)).encode())
        callers.append(caller)
    body = json.dumps({"inputs": [tensor("deed", "BYTES", [1], ["doze"])]}).encode()
    unruly = head.replace("/own/", "/unruly/") + f"content-length: {len(body)}\r\n\r\n"
    for _ in range(20):  # who is gone before it is asked, is not asked for: else this would take twenty seconds
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(unruly.encode() + body)
    began = time.monotonic()
    assert server.infer("unruly", {"deed": ["none"]}).status_code == 200
    assert time.monotonic() - began < 6
    assert server.infer("own", OWN).status_code == 200
    for caller in callers:
        caller.close()


@pytest.mark.parametrize(
    ("deed", "status", "words"),
    [
        ("raise", 500, ["planted: this version raises"]),
        ("crash", 500, ["SIGSEGV"]),
        ("exit", 500, ["3"]),
        ("hang", 504, ["3 s"]),
        ("leak", 500, ["memory", "MB"]),
    ],
)
def test_versions_that_misbehave(server: Any, project: Any, deed: str, status: int, words: list[str]) -> None:
    assert server.infer("unruly", {"deed": ["none"]}).status_code == 200
    refused(server.infer("unruly", {"deed": [deed]}), status, "version 1 of model 'unruly'", *words)
    said = []

    def ready_again() -> bool:
        """Until it is ready, the server says so of the model and of itself; one that raised is ready all the while."""
        ready = server.client.get("/v2/models/unruly/ready").json()
        said.append(ready["ready"])
        if not ready["ready"]:
            assert "unruly" in ready["name"]
        return bool(ready["ready"])

    project.wait_for(ready_again)
    assert (False in said) == (deed != "raise")
    assert server.infer("unruly", {"deed": ["none"]}).status_code == 200
    assert server.client.get("/v2/health/ready").json() == {"ready": True}


def test_a_damaged_plan_serves_natively_and_says_so(server: Any, project: Any) -> None:
    answer = server.infer("returned", SHOP)
    assert answer.status_code == 200, answer.text
    [output] = [each["data"] for each in answer.json()["outputs"] if each["name"] == "probability"]
    assert output == [project.expected]
    logs = "".join(each.read_text() for each in (project.folder / ".millpond" / "logs").glob("*.log"))
    assert "version 1 of model returned serves natively" in logs


def processes_of(model: str, directory: Path) -> list[int]:
    """The processes that serve a version from this directory."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            command = (each / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(directory).encode() in command:
            found.append(int(each.name))
    return found


def test_a_damaged_artifact(server: Any, project: Any) -> None:
    """Damaged under a running server: its process goes on, and cannot be started again; mended, it can."""
    project.wait_for(lambda: server.client.get("/v2/health/ready").status_code == 200)
    directory = project.folder / ".millpond" / version_of(project, "knn")["directory"]
    sound = (directory / "model.pkl").read_bytes()
    inputs = {"height": [0.5], "width": [1.0], "depth": [-1.0]}
    before = server.infer("knn", inputs).json()["outputs"][1]
    (directory / "model.pkl").write_bytes(b"\x80\x04 damaged")
    assert server.infer("knn", inputs).json()["outputs"][1] == before
    serving = processes_of("knn", directory)
    assert serving
    for each in serving:
        os.kill(each, signal.SIGKILL)

    def told() -> bool:
        answer = server.infer("knn", inputs)
        return answer.status_code == 503 and "does not start" in answer.json()["error"]

    project.wait_for(told)
    refused(server.infer("knn", inputs), 503, "version 1 of model 'knn'", "does not start")
    ready = server.client.get("/v2/models/knn/ready")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    health = server.client.get("/v2/health/ready")
    assert (health.status_code, health.json()) == (503, {"ready": False, "waiting": ["knn"]})
    states = {each["name"]: each["state"] for each in server.client.post("/v2/repository/index").json()}
    assert states == {"knn": "UNAVAILABLE", "lgb": "READY", "own": "READY", "returned": "READY", "unruly": "READY"}
    (directory / "model.pkl").write_bytes(sound)
    project.wait_for(lambda: server.client.get("/v2/health/ready").status_code == 200)
    assert server.infer("knn", inputs).json()["outputs"][1] == before


def test_a_full_disk(server: Any, project: Any, small_disk: Path) -> None:
    """No prediction leaves that is not in the log; when there is space again, they leave by themselves."""
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    refusal: list[Any] = []

    def full() -> bool:
        answer = server.infer("own", {"number": [1.0], "word": ["x" * 20000]})
        refusal[:] = [answer]
        return answer.status_code != 200

    project.wait_for(full)
    refused(refusal[0], 503, "No space left")
    filler.unlink()
    project.wait_for(lambda: server.infer("own", OWN).status_code == 200)
    answer = server.infer("own", OWN)
    [ids] = [each["data"] for each in answer.json()["outputs"] if each["name"] == "prediction_id"]
    assert project.json("trace", ids[0])["id"] == ids[0]
