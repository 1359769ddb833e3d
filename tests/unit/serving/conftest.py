from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millpond.serving.log.ids import RowIds
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import Answer, Featurized, LogRecord, Prediction, RequestColumn, ServedModel
from millpond.serving.predictor import Predictor
from millpond.serving.rows import Rows

AT = datetime(2013, 12, 1, 8, tzinfo=UTC)

COLUMNS = (
    RequestColumn("origin", "string", True, "key"),
    RequestColumn("scheduled_at", "instant", True, "request"),
    RequestColumn("distance", "float64", False, "input"),
    RequestColumn("seats", "int64", False, "input"),
    RequestColumn("weekend", "bool", False, "input"),
)


def make_served(task: str = "classification", *, at: str | None = "scheduled_at", version: int = 3) -> ServedModel:
    return ServedModel(
        model="late_arrival",
        version=version,
        task=task,
        threshold=0.5 if task == "classification" else None,
        columns=COLUMNS,
        at=at,
        inputs={"distance": "float64", "seats": "int64"},
    )


def make_prediction(number: int = 0, **changes: object) -> Prediction:
    values = {
        "id": f"p_{number:08d}",
        "model": "late_arrival",
        "version": 3,
        "predicted_at": AT,
        "as_of": AT,
        "requested_by": "ann",
        "output": number / 7,
        "answer": number % 2 == 0,
        "request": {"origin": "JFK", "scheduled_at": AT, "distance": 187.5},
        "inputs": {"distance": 187.5, "seats": None},
        "snapshots": {"flights": 8_123_456_789_012_345_678},
        "latency_ms": 1.25,
    }
    return Prediction(**{**values, **changes})  # type: ignore[arg-type]


INSTANT = int(AT.timestamp()) * 1_000_000


def make_record(number: int = 0, rows: int = 1, *, served: ServedModel | None = None, **changes: Any) -> LogRecord:
    """The answers to a request, with ids that begin with p_ and the number."""
    served = served or make_served()
    answer = Answer(
        served=served,
        variant="live",
        ids=RowIds(f"p_{number:08d}", rows),
        outputs={"output": [(number + row) / 7 for row in range(rows)]},
        answers=[number % 2 == 0] * rows,
        as_of=[INSTANT] * rows,
    )
    values = {
        "answer": answer,
        "request": Rows.of({"origin": ["JFK"] * rows, "scheduled_at": [INSTANT] * rows, "distance": [187.5] * rows}),
        "raw": False,
        "inputs": Rows.of({"distance": [187.5] * rows, "seats": [None] * rows}),
        "predicted_at": INSTANT + number,
        "requested_by": "ann",
        "latency_us": 1250,
        "snapshots": {"flights": 8_123_456_789_012_345_678},
    }
    return LogRecord(**{**values, **changes})  # type: ignore[arg-type]


class FromRequest:
    """A featurizer for models whose inputs are all columns of the request."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served

    def featurize(self, rows: pa.Table, as_of: datetime | None) -> Featurized:
        instants = [as_of or at for at in rows.column("scheduled_at").to_pylist()]
        return Featurized(rows.select(list(self._served.inputs)), tuple(instants), {"flights": 42})


class Share:
    """A runtime whose probability is the distance as a share of 1,000 miles."""

    def predict(self, inputs: pa.Table) -> dict[str, Any]:
        return {"output": [(value or 0.0) / 1000 for value in inputs.column("distance").to_pylist()]}


@pytest.fixture
def served() -> ServedModel:
    return make_served()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def predictor(served: ServedModel, spool: Path) -> Predictor:
    return Predictor(served, Share(), FromRequest(served), PredictionLog(spool))


@pytest.fixture
def rows() -> pa.Table:
    return pa.table(
        {
            "origin": ["JFK", "EWR"],
            "scheduled_at": pa.array([AT, AT], pa.timestamp("us", "UTC")),
            "distance": [187.5, 700.0],
        }
    )


@pytest.fixture(name="make_served")
def _make_served() -> Any:
    return make_served


@pytest.fixture(name="make_prediction")
def _make_prediction() -> Any:
    return make_prediction


@pytest.fixture(name="make_record")
def _make_record() -> Any:
    return make_record


@pytest.fixture(name="make_predictor")
def _make_predictor(spool: Path) -> Any:
    def make(served: ServedModel, runtime: Any = None, featurizer: Any = None, log: Any = None) -> Predictor:
        return Predictor(served, runtime or Share(), featurizer or FromRequest(served), log or PredictionLog(spool))

    return make
