"""Serving processes killed under load: every prediction that a caller was given is in the log, once; others go on."""

import os
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from millpond.platform import logged
from millpond.platform.platform import open_project
from millpond.platform.predictions import flush
from millpond.serving.log.tables import is_prediction_table

pytestmark = pytest.mark.slow

SHOP = {"customer_id": ["c1", "c5"], "category": ["books", "shoes"], "amount": [1.5, 70.0]}
WIDE = np.random.default_rng(3).normal(size=(3, 30))


class Load:
    """Eight callers over HTTP and one over gRPC, who keep the ids that they were given; errors are theirs to bear."""

    def __init__(self, server: Any) -> None:
        self.server, self.stopping = server, threading.Event()
        self.given: list[tuple[float, str]] = []
        self.failed: Counter[str] = Counter()
        self.threads = [threading.Thread(target=self.over_http, args=(number,)) for number in range(8)]
        self.threads.append(threading.Thread(target=self.over_grpc))

    def __enter__(self) -> "Load":
        for each in self.threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for each in self.threads:
            each.join(timeout=60)
            assert not each.is_alive()

    def over_http(self, number: int) -> None:
        wide = {"name": "input", "datatype": "FP64", "shape": [3, 30], "data": WIDE.reshape(-1).tolist()}
        shop = [
            {"name": name, "datatype": "BYTES" if isinstance(each[0], str) else "FP64", "shape": [2], "data": each}
            for name, each in SHOP.items()
        ]
        model, inputs = ("returned", shop) if number % 2 else ("lgb", [wide])
        base = self.server.url if number == 7 else self.server.serving
        while not self.stopping.is_set():
            with httpx.Client(base_url=base, headers=self.server.authorization, timeout=20) as client:
                while not self.stopping.is_set():
                    try:
                        answer = client.post(f"/v2/models/{model}/infer", json={"inputs": inputs})
                    except httpx.TransportError as error:
                        self.fail(type(error).__name__)
                        break
                    if answer.status_code != 200:
                        self.fail(str(answer.status_code))
                        continue
                    told = {each["name"]: each["data"] for each in answer.json()["outputs"]}
                    self.keep(told["prediction_id"])

    def over_grpc(self) -> None:
        given = tritonclient.grpc.InferInput("input", [3, 30], "FP64")
        given.set_data_from_numpy(WIDE)
        with tritonclient.grpc.InferenceServerClient(self.server.grpc) as client:
            while not self.stopping.is_set():
                try:
                    answer = client.infer("lgb", [given], headers=self.server.authorization, client_timeout=20)
                except InferenceServerException as error:
                    self.fail(str(error.status()))
                    continue
                self.keep([each.decode() for each in answer.as_numpy("prediction_id")])

    def keep(self, ids: list[str]) -> None:
        self.given += [(time.monotonic(), each) for each in ids]

    def fail(self, why: str) -> None:
        self.failed[why] += 1
        self.stopping.wait(0.02)

    def since(self, moment: float) -> int:
        return sum(at > moment for at, _ in self.given)


def logged_ids(project: Any) -> Counter[str]:
    """Every prediction of the log, once all of it is in the lake."""
    platform = open_project(project.folder)
    flush(platform)
    found: Counter[str] = Counter()
    with platform.engine() as engine:
        for table in platform.lake.tables():
            if is_prediction_table(table):
                scanned = engine.scan(platform.lake.snapshot(table))
                found.update(each for [each] in engine.rows(f"SELECT prediction_id FROM {scanned}"))
    return found


def check_log(project: Any, load: Load) -> None:
    """All that callers were given is there; nothing is there twice; a prediction can be found by its id."""
    given = Counter(each for _, each in load.given)
    assert given.total() > 100
    assert max(given.values()) == 1
    some = [load.given[0][1], load.given[-1][1]]
    platform = open_project(project.folder)
    assert [getattr(logged.find(platform, each), "id", None) for each in some] == some
    found = logged_ids(project)
    assert max(found.values()) == 1
    assert not set(given) - set(found)
    assert [getattr(logged.find(platform, each), "id", None) for each in some] == some


def runs(process: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def project(lgb_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shop with the two models that serve in the worker itself, and with two workers."""
    project = type(lgb_shop)(tmp_path_factory.mktemp("kills") / "shop")
    shutil.copytree(lgb_shop.folder, project.folder)
    with (project.folder / "millpond.toml").open("a") as file:
        file.write("[profiles.local]\nworkers = 2\n")
    return project


def test_kills_under_load(project: Any) -> None:
    """One worker of two, both workers, the control process, the whole group; each time begun again."""
    with project.serve() as server, Load(server) as load:

        def workers() -> dict[str, int]:
            return {name: each for name, each in server.children().items() if name.startswith("serving")}

        project.wait_for(lambda: load.since(0) > 200)
        killed = workers()
        assert len(killed) == 2
        first = next(iter(killed.values()))
        os.kill(first, signal.SIGKILL)
        moment = time.monotonic()
        project.wait_for(lambda: load.since(moment) > 50, 10)  # by the other one, on the same port
        project.wait_for(lambda: len(workers()) == 2 and first not in workers().values(), 60)
        for each in workers().values():
            os.kill(each, signal.SIGKILL)
        moment = time.monotonic()
        project.wait_for(lambda: load.since(moment) > 50, 60)  # by those that were started again
        moment = time.monotonic()
        time.sleep(1)
        assert load.since(moment) > 20
        # Only the control process: whoever it started ends with it.
        left = server.processes()
        assert len(left) > 3
        server.process.kill()
        server.process.wait(timeout=30)
        project.wait_for(lambda: not any(runs(each) for each in left), 30)
    check_log(project, load)
    with project.serve() as server, Load(server) as again:
        project.wait_for(lambda: again.since(0) > 200)
        for each in server.processes():  # each child leads a group of its own
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        server.process.wait(timeout=30)
    with project.serve() as server, Load(server) as last:
        project.wait_for(lambda: last.since(0) > 200)
    for each in (load, again, last):
        check_log(project, each)
