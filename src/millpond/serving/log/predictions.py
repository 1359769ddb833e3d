"""A row of a table of predictions, as a prediction again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from millpond.serving.log.tables import INPUT, OUTPUT_COLUMN, REQUEST, VECTOR, there
from millpond.serving.ports import Prediction, ServedModel


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
    kinds = {each.name: VECTOR if each.width else each.type for each in served.outputs if each.name != OUTPUT_COLUMN}
    outputs = values(f"{OUTPUT_COLUMN}__", kinds)
    plain = row.get(OUTPUT_COLUMN)
    numbers = [each for each in outputs.values() if isinstance(each, (int, float))]
    output = plain if plain is not None else numbers[0] if numbers else float("nan")
    return Prediction(
        id=row["prediction_id"],
        model=row["model"],
        version=row["version"],
        predicted_at=row["predicted_at"],
        as_of=row["as_of"],
        requested_by=row["requested_by"],
        output=float(output),
        answer=row["answer"],
        request=inputs if row["raw"] else values(REQUEST, request),
        inputs=inputs,
        snapshots=json.loads(row["snapshots"]),
        latency_ms=row["latency_ms"],
        events=json.loads(row["events"]),
        synced_at=row["synced_at"],
        outputs=outputs,
    )
