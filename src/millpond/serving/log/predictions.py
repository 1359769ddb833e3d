"""A row of a table of predictions, as a prediction again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from millpond.serving.log.tables import INPUT, REQUEST, VECTOR, output_column, there
from millpond.serving.ports import OUTPUT, Prediction, ServedModel, first_number


def outputs_of(row: Mapping[str, Any], columns: Mapping[str, str], served: ServedModel) -> dict[str, Any]:
    """All outputs of a row, by name; arguments as of `to_prediction`."""
    found: dict[str, Any] = {}
    for each in served.outputs:
        column = there(columns, output_column(each.name), VECTOR if each.width else each.type)
        found[each.name] = None if column is None else row[column]
    return found


def to_prediction(row: Mapping[str, Any], columns: Mapping[str, str], served: ServedModel) -> Prediction:
    """A row of the lake table, or of the spool, as a prediction.

    Args:
        row: Column -> value; instants are aware.
        columns: The columns of the table that it comes from: name -> kind.
        served: The version that the row names.
    """

    def values(prefix: str, kinds: Mapping[str, str]) -> dict[str, Any]:
        found = {name: there(columns, prefix + name, kind) for name, kind in kinds.items()}
        return {name: row[column] for name, column in found.items() if column is not None}

    inputs = values(INPUT, served.inputs)
    request = {column.name: column.type for column in served.columns}
    outputs = outputs_of(row, columns, served)
    return Prediction(
        id=row["prediction_id"],
        model=row["model"],
        version=row["version"],
        predicted_at=row["predicted_at"],
        as_of=row["as_of"],
        requested_by=row["requested_by"],
        output=first_number(outputs),
        answer=row["answer"],
        request=inputs if row["raw"] else values(REQUEST, request),
        inputs=inputs,
        snapshots=json.loads(row["snapshots"]),
        latency_ms=row["latency_ms"],
        events=json.loads(row["events"]),
        synced_at=row["synced_at"],
        outputs={} if served.outputs == (OUTPUT,) else outputs,
    )
