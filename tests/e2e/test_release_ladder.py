"""A release on a running server: bad versions are taken back by themselves, a good one takes over, nobody notices.

The bad versions are trained like the good one, with estimators of the project that fail on purpose.
"""

import threading
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.slow

ESTIMATORS = '''
import time

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OrdinalEncoder


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
                time.sleep(0.2)
            if self.fault == "wrong":
                yes = 1.0 - yes
        return np.column_stack([1.0 - yes, yes])

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] >= 0.5).astype(int)]
'''

RELEASE = """    release=mp.Release(
        steps=(0.3, 0.6, 1.0), every="3s", requests=30,
        rules=[mp.max_errors(0.01), mp.max_latency("p50", ms=100), mp.max_difference(0.2, share=0.05)],
    ),
    gates=[],
"""


def declare(project, fault):
    file = project.folder / "definitions.py"
    text = file.read_text()
    if "planted" not in text:
        text = text.replace("import millpond as mp\n", "import millpond as mp\nfrom planted import Planted\n", 1)
        text = text.replace('    gates=[mp.beats_baseline("log_loss")],\n', RELEASE)
        text = text.replace('    estimator="linear",\n', '    estimator=Planted("none"),\n')
    start = text.index("estimator=Planted(")
    end = text.index(")", start) + 1
    file.write_text(text[:start] + f'estimator=Planted("{fault}")' + text[end:])


class Clients(threading.Thread):
    """Asks for other customers again and again, and keeps which version answered, or what it said instead."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.stopping = client, threading.Event()
        self.answered: Counter = Counter()
        self.refused: Counter = Counter()

    def run(self):
        number = 0
        while not self.stopping.is_set():
            number += 1
            inputs = [
                {"name": "customer_id", "datatype": "BYTES", "shape": [1], "data": [f"c{number % 60}"]},
                {"name": "category", "datatype": "BYTES", "shape": [1], "data": ["books"]},
                {"name": "amount", "datatype": "FP64", "shape": [1], "data": [12.5]},
            ]
            answer = self.client.post("/v2/models/returned/infer", json={"inputs": inputs})
            if answer.status_code == 200:
                self.answered[int(answer.json()["model_version"])] += 1
            else:
                self.refused[answer.text] += 1
            time.sleep(0.005)


def newest(client):
    return client.get("/api/v1/models/returned/releases").json()[0]


@pytest.mark.timeout(600)
def test_versions_take_over_or_are_taken_back(walked):
    (walked.folder / "planted.py").write_text(ESTIMATORS)
    declare(walked, "none")
    walked.run("train")  # another model: it is released against the one that answers, or at once
    walked.run("deploy", "returned", "2", "--now", "--why", "the good version")
    with walked.up() as client:
        clients = Clients(client)
        clients.start()
        for number, fault in enumerate(("raises", "slow", "wrong"), start=3):
            declare(walked, fault)
            walked.run("train", "returned")
            began = time.monotonic()
            walked.wait_for(lambda: not newest(client)["active"], 90)
            found = newest(client)
            assert (found["version"], found["state"]) == (number, "rolled back"), found
            assert time.monotonic() - began < 60
            broken = [each for each in found["findings"] if each["standing"] == "broken"]
            assert broken, found["findings"]
        assert clients.refused == {}, "where a canary fails, the live version answers instead"
        declare(walked, "none")
        walked.run("train", "returned", "--force")
        walked.wait_for(lambda: not newest(client)["active"], 120)
        assert (newest(client)["version"], newest(client)["state"]) == (6, "promoted")
        walked.wait_for(lambda: clients.answered[6] > 20, 20)
        walked.json("deploy", "returned", "--rollback", "--why", "to be sure")
        clients.answered.clear()
        walked.wait_for(lambda: clients.answered[2] > 20, 20)
        assert clients.answered[6] == 0
        assert clients.refused == {}
        clients.stopping.set()
        clients.join(10)
    moves = [(each["action"], each["object"]) for each in walked.json("audit")]
    assert moves[0] == ("rollback", "returned/2")
