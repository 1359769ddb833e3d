"""The lake table of predictions: its schema, and the way there and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millpond.core.time import parse_instant
from millpond.serving.ports import Prediction
from millpond.serving.segments import json_text

if TYPE_CHECKING:
    import pyarrow as pa

#: The table that drained predictions go to.
PREDICTIONS = "millpond.predictions"


def predictions_schema() -> pa.Schema:
    """One row a prediction; `request`, `inputs`, `snapshots` and `events` are JSON objects.

    Instants are UTC microseconds.
    `output` is the probability of yes, or the number; `answer` is null for regression; `latency_ms` is milliseconds.
    """
    import pyarrow as pa

    instant = pa.timestamp("us", "UTC")
    required = [
        ("prediction_id", pa.string()),
        ("model", pa.string()),
        ("version", pa.int64()),
        ("predicted_at", instant),
        ("as_of", instant),
        ("requested_by", pa.string()),
        ("output", pa.float64()),
        ("request", pa.string()),
        ("inputs", pa.string()),
        ("snapshots", pa.string()),
        ("latency_ms", pa.float64()),
    ]
    fields = [pa.field(name, kind, nullable=False) for name, kind in required]
    return pa.schema([*fields[:7], pa.field("answer", pa.bool_()), *fields[7:], pa.field("events", pa.string())])


def to_table(predictions: Sequence[Prediction]) -> pa.Table:
    """The predictions as rows of `predictions_schema()`, in order."""
    import pyarrow as pa

    rows = [
        {
            "prediction_id": each.id,
            "model": each.model,
            "version": each.version,
            "predicted_at": each.predicted_at,
            "as_of": each.as_of,
            "requested_by": each.requested_by,
            "output": each.output,
            "answer": each.answer,
            "request": json_text(each.request),
            "inputs": json_text(each.inputs),
            "snapshots": json_text(each.snapshots),
            "latency_ms": each.latency_ms,
            "events": json_text(each.events),
        }
        for each in predictions
    ]
    return pa.Table.from_pylist(rows, schema=predictions_schema())


def from_row(row: Mapping[str, Any]) -> Prediction:
    """A row of the lake table as a prediction again; instants in `request` and `inputs` stay ISO 8601 text."""
    instants = {
        name: parse_instant(row[name]) if isinstance(row[name], str) else row[name]
        for name in ("predicted_at", "as_of")
    }
    return Prediction(
        id=row["prediction_id"],
        model=row["model"],
        version=row["version"],
        predicted_at=instants["predicted_at"],
        as_of=instants["as_of"],
        requested_by=row["requested_by"],
        output=row["output"],
        answer=row["answer"],
        request=json.loads(row["request"]),
        inputs=json.loads(row["inputs"]),
        snapshots=json.loads(row["snapshots"]),
        latency_ms=row["latency_ms"],
        events=json.loads(row.get("events") or "{}"),
    )
