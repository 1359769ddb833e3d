"""Releases on a running server: bad versions are taken back by themselves, a good one takes over, nobody notices.

The bad versions are trained like the good one, with estimators of the project that fail on purpose. Then everything is
killed in the middle of a release, which goes on where it was.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow

ESTIMATORS = '''
import time

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Planted(ClassifierMixin, BaseEstimator):
    """Learns as any other does; when it serves it is wrong, slow or raises, as `fault` says.

    It behaves for as many rows as registering and judging it take at once, and for whole tables: a request has one row.
    """

    def __init__(self, fault="none"):
        self.fault = fault

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.share_ = float(np.mean(y))
        return self

    def predict_proba(self, X):
        yes = np.full(len(X), self.share_)
        if len(X) == 1:
            if self.fault == "raises":
                raise RuntimeError("planted: this version raises")
            if self.fault == "slow":
                time.sleep(0.15)
            if self.fault == "wrong":
                yes = 1.0 - yes
        return np.column_stack([1.0 - yes, yes])

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] >= 0.5).astype(int)]
'''

#: Trains versions 2 to 6 in one process: that is what costs least.
TRAIN = """
import sys
from pathlib import Path

from millpond.platform import release
from millpond.platform.platform import open_project
from millpond.platform.train import train

folder = Path(sys.argv[1])
file = folder / "definitions.py"
text = file.read_text()
for fault in ("none", "raises", "slow", "wrong", "none"):
    file.write_text(text.replace('Planted("none")', f'Planted("{fault}")'))
    train(open_project(folder), "returned", force=True)
release.promote(open_project(folder), "returned", 2, why="the good version")
"""

WATCHED = """release=mp.Release(
        steps=(0.5, 0.8, 1.0), every="2s", requests=30,
        rules=[mp.max_errors(0.01), mp.max_latency("p50", ms=100), mp.max_difference(0.2, share=0.05)],
    ),"""

BY_HAND = "release=mp.Release(steps=(0.5, 0.8), every=None, requests=1, rules=[mp.max_errors(0.01)]),"


@pytest.fixture(scope="module")
def planted(trained_shop, tmp_path_factory):
    """A shop whose version 2 is good and answers, and of which 3 raises, 4 is slow, 5 is wrong and 6 is good."""
    folder = tmp_path_factory.mktemp("planted") / "shop"
    shutil.copytree(trained_shop.folder, folder)
    (folder / "planted.py").write_text(ESTIMATORS)
    file = folder / "definitions.py"
    text = file.read_text().replace("mp\n", "mp\nfrom planted import Planted\n", 1)
    text = text.replace('    gates=[mp.beats_baseline("log_loss")],\n', "    gates=[],\n")
    file.write_text(text.replace('estimator="linear",', 'estimator=Planted("none"),'))
    subprocess.run([sys.executable, "-c", TRAIN, str(folder)], check=True, timeout=400)
    return folder


@pytest.fixture
def project(planted, walked):
    """The planted shop, of the test's own."""
    shutil.rmtree(walked.folder)
    shutil.copytree(planted, walked.folder)
    return walked


def declare(project, release):
    file = project.folder / "definitions.py"
    file.write_text(file.read_text().replace("    gates=[],\n", f"    gates=[],\n    {release}\n"))


class Clients(threading.Thread):
    """Asks for other customers again and again, and keeps which version answered, or what it said instead."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.stopping = client, threading.Event()
        self.answered: Counter = Counter()
        self.refused: Counter = Counter()
        self.cut = 0

    def run(self):
        number = 0
        while not self.stopping.is_set():
            number += 1
            inputs = [
                {"name": "customer_id", "datatype": "BYTES", "shape": [1], "data": [f"c{number % 60}"]},
                {"name": "category", "datatype": "BYTES", "shape": [1], "data": ["books"]},
                {"name": "amount", "datatype": "FP64", "shape": [1], "data": [12.5]},
            ]
            try:
                answer = self.client.post("/v2/models/returned/infer", json={"inputs": inputs})
            except httpx.TransportError:
                self.cut += 1
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                self.answered[int(answer.json()["model_version"])] += 1
            else:
                self.refused[answer.status_code, answer.text] += 1
            time.sleep(0.002)


@contextmanager
def asking(client):
    clients = Clients(client)
    clients.start()
    try:
        yield clients
    finally:
        clients.stopping.set()
        clients.join(70)


def newest(client):
    return client.get("/api/v1/models/returned/releases").json()[0]


def begin(client, version):
    wanted = {"version": version, "why": "try it"}
    answer = client.post("/api/v1/models/returned/releases", json=wanted)
    assert answer.is_success, answer.text


@pytest.mark.timeout(300, func_only=True)
def test_versions_take_over_or_are_taken_back(project):
    declare(project, WATCHED)
    with project.up() as client, asking(client) as clients:
        project.wait_for(lambda: clients.answered[2] > 5, 30)
        for version in (3, 4, 5):
            begin(client, version)
            began = time.monotonic()
            project.wait_for(lambda: not newest(client)["active"], 60)
            found = newest(client)
            assert (found["version"], found["state"]) == (version, "rolled back"), found
            assert time.monotonic() - began < 60
            assert [each for each in found["findings"] if each["standing"] == "broken"], found["findings"]
        assert clients.refused == {}, "where a canary fails, the live version answers instead"
        begin(client, 6)
        project.wait_for(lambda: not newest(client)["active"], 120)
        assert newest(client)["state"] == "promoted"
        project.wait_for(lambda: clients.answered[6] > 20, 20)
        project.json("deploy", "returned", "--rollback", "--why", "to be sure")
        clients.answered.clear()
        project.wait_for(lambda: clients.answered[2] > 20, 20)
        assert clients.answered[6] == 0
        assert (clients.refused, clients.cut) == ({}, 0)
    moves = [(each["action"], each["object"]) for each in project.json("audit")]
    assert moves[0] == ("rollback", "returned/2")


def requests_of(found):
    return {each["variant"]: each["requests"] for each in found["variants"]}


def process_of(project, module):
    """The process of the project that runs a module; None where there is none."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode().split("\0")
        except OSError:
            continue
        if module in words and str(project.folder) in words:
            return int(each.parent.name)
    return None


@pytest.mark.timeout(500, func_only=True)
def test_a_release_goes_on_after_its_keeper_a_worker_and_the_server_were_killed(project):
    declare(project, BY_HAND)

    def goes_on(client, before):
        """The release is where it was, and counts on from what it had counted."""
        counted = requests_of(before)
        enough = {name: number + 5 for name, number in counted.items()}
        project.wait_for(lambda: all(requests_of(newest(client)).get(n, 0) >= m for n, m in enough.items()), 150)
        after = newest(client)
        for name in ("id", "version", "state", "step", "share", "step_started_at", "active"):
            assert after[name] == before[name], name
        return after

    def counted(client):
        return all(requests_of(newest(client)).get(name, 0) >= 10 for name in ("live", "canary"))

    with project.up() as client, asking(client) as clients:
        begin(client, 1)
        project.wait_for(lambda: counted(client), 60)
        for module in ("millpond.server.release_keeper", "millpond.server.worker"):
            before, killed = newest(client), process_of(project, module)
            os.kill(killed, signal.SIGKILL)
            goes_on(client, before)
            assert process_of(project, module) not in (None, killed)
            if module.endswith("keeper"):
                assert (clients.refused, clients.cut) == ({}, 0)
        assert {status for status, _ in clients.refused} <= {503}
        assert client.post("/api/v1/models/returned/releases/advance", json={"why": "on"}).is_success
        project.wait_for(lambda: counted(client), 60)
        before = newest(client)
        os.kill(process_of(project, "up"), signal.SIGKILL)
        project.wait_for(lambda: process_of(project, "millpond.server.worker") is None, 15)
    with project.up() as client, asking(client):
        after = goes_on(client, before)
        assert (after["step"], after["share"]) == (2, 0.8)
        assert client.post("/api/v1/models/returned/releases/advance", json={"why": "on"}).is_success
        project.wait_for(lambda: newest(client)["state"] == "promoted", 30)
    project.run("audit", "--verify")
    assert [each["action"] for each in project.json("audit")][:3] == ["promote", "advance", "release"]
