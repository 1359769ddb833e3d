"""Processes killed at every stage of the walk: the next command just works, and what is there is whole."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from millpond.platform import versions
from millpond.platform.platform import open_project
from millpond.platform.receipts import find
from millpond.platform.runtimes import open_runtime

pytestmark = pytest.mark.slow

ROWS = 1500


def kill_after(project: Any, seconds: float, line: str, *command: str) -> bool:
    """Kill a command `seconds` after its stderr shows `line` (at once where that is empty); whether it was in time."""
    process = subprocess.Popen(
        project.command(*command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for told in process.stderr if line else ():
        if line in told:
            break
    time.sleep(seconds)
    # Only the process: whoever starts others has to see to it that they end with it.
    os.kill(process.pid, signal.SIGKILL)
    with process:
        return process.wait(timeout=30) == -signal.SIGKILL


def check_whole(project: Any) -> None:
    """Every snapshot of every table can be read and has the rows that it says; every version loads and is right."""
    platform = open_project(project.folder)
    with platform.engine() as engine:
        for table in platform.lake.tables():
            for snapshot in platform.lake.history(table):
                [[rows]] = engine.rows(f"SELECT count(*) FROM {engine.scan(snapshot)}")
                assert rows == snapshot.rows
                if table != "millpond.check_results":
                    assert rows == ROWS, snapshot
    for model in platform.store.models():
        for version in platform.store.versions(model):
            with open_runtime(platform, versions.load(platform, version)):
                pass
            assert platform.store.report(version).is_file()
            assert platform.store.lineage(version).training_set_snapshot


def test_ingest_killed(shop):
    killed = [kill_after(shop, seconds, "", "ingest") for seconds in (0.3, 0.9, 1.4, 2.0)]
    assert any(killed)
    check_whole(shop)
    assert shop.json("ingest")[0]["rows"] == ROWS
    check_whole(shop)
    assert len(open_project(shop.folder).lake.history("orders")) == 1


STAGES = [
    ("check orders", 0.0),
    ("derive priced", 0.02),
    ("check priced", 0.05),
    ("training set returned", 0.3),
    ("train returned", 0.3),
    ("train returned", 1.5),
    ("register returned", 0.0),
    ("register returned", 0.03),
]


def test_train_killed(shop):
    """Killed at one stage after another, each time going on from what was there; the end is as if nothing had been."""
    shop.run("ingest")
    killed = [kill_after(shop, 0.0, "", "train")]
    killed += [kill_after(shop, seconds, line, "train") for line, seconds in STAGES]
    assert sum(killed) >= 6
    check_whole(shop)
    [trained] = shop.json("train")
    check_whole(shop)
    platform = open_project(shop.folder)
    assert {table: len(platform.lake.history(table)) for table in ("orders", "priced", "training.returned")} == {
        "orders": 1,
        "priced": 1,
        "training.returned": 1,
    }
    [version] = platform.store.versions("returned")
    assert set(version.aliases) == {"champion", "challenger"}
    assert trained["version"] == version.number
    pinned = platform.lake.require("priced").metadata.refs
    assert f"version-returned-{version.number}" in pinned
    promotions = [entry for entry in platform.access.audit.entries() if entry.action == "promote"]
    assert promotions
    assert platform.access.audit.verify().intact
    assert shop.json("predict", "returned", "customer_id=c1", "category=books", "amount=1.5")["version"] == 1


def test_a_version_that_was_not_judged_is_judged_by_the_next_train(walked):
    """As a process leaves it that dies after the version is registered: no alias, nothing pinned."""
    platform = open_project(walked.folder)
    client = platform.store._connection.client
    for alias in ("champion", "challenger"):
        client.delete_registered_model_alias("returned", alias)
    platform.lake.unpin("priced", "version-returned-1")
    [trained] = walked.json("train")
    assert (trained["version"], trained["trained"], trained["promoted"]) == (1, False, True)
    assert [gate["passed"] for gate in trained["gates"]] == [True]
    assert set(platform.store.version("returned", 1).aliases) == {"champion", "challenger"}
    assert "version-returned-1" in platform.lake.require("priced").metadata.refs
    [again] = walked.json("train")
    assert (again["trained"], again["promoted"]) == (False, False)


def test_batch_killed(walked):
    command = ("predict", "returned", "--batch", "orders")
    killed = [kill_after(walked, seconds, "", *command) for seconds in (0.5, 2.0, 3.5)]
    assert any(killed)
    check_whole(walked)
    assert walked.json(*command)["rows"] == ROWS
    check_whole(walked)


class Caller(threading.Thread):
    """Asks for predictions until told to stop, and keeps the id of every answer."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__()
        self.url, self.token = url, token
        self.ids: list[str] = []
        self.statuses: set[int] = set()
        self.stopping = threading.Event()

    def run(self) -> None:
        inputs = [{"name": "customer_id", "shape": [1], "datatype": "BYTES", "data": ["c1"]}]
        headers = {"authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as client:
            while not self.stopping.is_set():
                try:
                    answer = client.post("/v2/models/returned/infer", json={"inputs": inputs})
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                self.statuses.add(answer.status_code)
                if answer.status_code == 200:
                    outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
                    self.ids += outputs["prediction_id"]


def start_up(project: Any) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        project.command("up", "--port", "0", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    announced = ""
    while not announced.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line
        announced += line
    return process, json.loads(announced)["url"]


def children_of(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_server_and_its_worker_killed_while_they_answer(walked):
    """The worker twice, then the control process, then all of a second server at once; no answered id is lost."""
    ids: list[str] = []
    for whole_group in (False, True):
        process, url = start_up(walked)
        caller = Caller(url, (walked.folder / ".millpond" / "token").read_text().strip())
        caller.start()
        try:
            walked.wait_for(lambda: len(caller.ids) >= 5)  # noqa: B023 - called at once
            for _ in range(0 if whole_group else 2):
                before = len(caller.ids)
                for child in children_of(process.pid):
                    os.kill(child, signal.SIGKILL)
                walked.wait_for(lambda: len(caller.ids) >= before + 5)  # noqa: B023 - called at once
            children = children_of(process.pid)
            if whole_group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
            walked.wait_for(lambda: not any(map(alive, children)), seconds=15)  # noqa: B023 - called at once
        finally:
            caller.stopping.set()
            caller.join(timeout=90)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=30)
        assert caller.statuses <= {200, 503}
        ids += caller.ids
    assert len(set(ids)) == len(ids) >= 20
    platform = open_project(walked.folder)
    for prediction_id in ids:
        made, logged = find(platform, prediction_id)
        assert logged
        assert made.request["customer_id"] == "c1"
    for prediction_id in (ids[0], ids[-1]):
        receipt = walked.json("trace", prediction_id)
        assert all(each["recomputed"] for each in receipt["inputs"] if each["table"])
    with walked.up() as client:
        assert client.get("/v2/health/ready").status_code == 200
