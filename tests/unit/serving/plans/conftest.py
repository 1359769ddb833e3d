"""Examples with every kind of input, with nulls, and texts that no training saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from millpond.serving.plans.compiling import compile_plan
from millpond.serving.plans.plan import Plan
from millpond.training.frame import to_frame

INPUTS = {
    "distance": "float64",
    "wind": "float64",
    "delay": "float64",
    "seats": "int64",
    "weekend": "bool",
    "carrier": "string",
    "origin": "string",
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


def make_rows(count: int, seed: int, *, unseen: bool = False) -> pa.Table:
    random = np.random.default_rng(seed)

    def sometimes(values: Sequence[Any], share: float = 0.1) -> list[Any]:
        return [None if random.random() < share else value for value in values]

    carriers = ["AA", "B6", "DL", "UA", "ü"] + (["never seen"] if unseen else [])
    return pa.table(
        {
            "distance": pa.array(sometimes((random.normal(size=count) * 10).round(1).tolist()), pa.float64()),
            "wind": pa.array(sometimes(random.normal(size=count).tolist()), pa.float64()),
            "delay": pa.array(sometimes(random.exponential(size=count).tolist(), 0.4), pa.float64()),
            "seats": pa.array(sometimes(random.integers(-3, 9, count).tolist()), pa.int64()),
            "weekend": pa.array(sometimes((random.random(count) < 0.3).tolist()), pa.bool_()),
            "carrier": pa.array(sometimes(random.choice(carriers, count).tolist()), pa.string()),
            "origin": pa.array(sometimes(random.choice(["EWR", "JFK", "LGA"], count).tolist()), pa.string()),
        }
    )


@dataclass(frozen=True)
class Example:
    """Training rows with targets, and other rows."""

    rows: pa.Table
    other: pa.Table
    frame: Any
    yes: Any
    kind: Any
    number: Any


@pytest.fixture(scope="session")
def example() -> Example:
    rows = make_rows(1000, 0)
    frame = to_frame(rows, INPUTS)
    noise = np.random.default_rng(1).normal(size=len(frame))
    number = (
        frame.distance.fillna(3) / 5
        + frame.wind.fillna(0) * frame.seats.fillna(1)
        + (frame.carrier == "AA") * 2
        + (frame.delay.isna()) * 1.5
        + noise / 4
    ).to_numpy()
    kind = np.digitize(number, np.quantile(number, [0.3, 0.7]))
    return Example(rows, make_rows(1500, 5, unseen=True), frame, (number > 0.5).astype(int), kind, number)


@dataclass(frozen=True)
class Compiled:
    """A fitted estimator, its plan, and its outputs as the platform asks for them."""

    pipeline: Any
    plan: Plan
    outputs: Callable[[pa.Table], Any]


@pytest.fixture(scope="session")
def compiled() -> Callable[[Any, Example, Any, str], Compiled]:
    def make(pipeline: Any, example: Example, target: Any, task: str) -> Compiled:
        pipeline.fit(example.frame, target)

        def outputs(rows: pa.Table) -> Any:
            frame = to_frame(rows, INPUTS)
            if task == "regression":
                return pipeline.predict(frame)
            shares = pipeline.predict_proba(frame)
            return shares[:, 1] if shares.shape[1] == 2 else shares

        return Compiled(pipeline, compile_plan(pipeline, INPUTS, task), outputs)

    return make
