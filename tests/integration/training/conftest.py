"""Examples of known structure: signal decides most, then carrier AA, then rain, and the others nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

import millpond as mp
from millpond.training.data import TrainingData
from millpond.training.train import Trained, train

INPUTS = {
    "sky__signal": "float64",
    "sky__noise": "float64",
    "carrier": "string",
    "dest": "string",
    "rain": "bool",
    "seats": "int64",
}
TABLE = mp.Table("examples", key="id", time="at")
STAMP = pa.timestamp("us", "UTC")


def generate(task: str, rows: int = 3000) -> pa.Table:
    random = np.random.default_rng(7)
    start = np.datetime64("2024-01-01", "us")
    at = start + np.sort(random.integers(0, 365 * 86_400, rows)) * np.timedelta64(1_000_000, "us")
    signal, carrier = random.normal(size=rows), random.choice(["AA", "BB", "CC"], rows)
    rain = random.random(rows) < 0.3
    score = 1.5 * signal + 1.5 * (carrier == "AA") + rain + random.normal(size=rows)
    table = pa.table(
        {
            "id": np.arange(rows),
            "__at": pa.array(at).cast(STAMP),
            "__label_known": pa.array(at + np.timedelta64(1, "D")).cast(STAMP),
            "__label": pa.array(score > 1.5 if task == "classification" else 10 * score + 50),
            "sky__signal": pa.array(signal, mask=random.random(rows) < 0.05),
            "sky__noise": random.normal(size=rows),
            "carrier": pa.array(carrier, mask=random.random(rows) < 0.02),
            "dest": [f"d{number}" for number in random.integers(0, 40, rows)],
            "rain": rain,
            "seats": random.integers(0, 300, rows),
        }
    )
    return table.take(random.permutation(rows))


@pytest.fixture(scope="session")
def examples() -> Callable[..., TrainingData]:
    tables = {task: generate(task) for task in ("classification", "regression")}

    def make(task: str = "classification", **changes: object) -> TrainingData:
        given = {
            "rows": tables[task],
            "keys": ("id",),
            "inputs": INPUTS,
            "slices": ("carrier", "seats"),
            "at": "__at",
            "label_known": "__label_known",
        }
        return TrainingData(**{**given, **changes})

    return make


@pytest.fixture(scope="session")
def declare() -> Callable[..., mp.Model]:
    def make(kind: str = "classification", **changes: object) -> mp.Model:
        kinds = {"classification": mp.Classification, "regression": mp.Regression}
        return mp.Model(
            "late", **{"task": kinds[kind](label="y"), "examples": TABLE, "inputs": list(INPUTS), **changes}
        )

    return make


@pytest.fixture(scope="session")
def classifier(declare, examples) -> Trained:
    model = declare(gates=[mp.at_least("roc_auc", 0.8), mp.beats_baseline("brier")])
    return train(model, examples(null_labels=12))


@pytest.fixture(scope="session")
def regressor(declare, examples) -> Trained:
    return train(declare("regression", gates=[mp.at_most("rmse", 0.1)]), examples("regression"))
