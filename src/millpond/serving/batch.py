"""Batch prediction: a stream of rows in, the same rows' keys and answers out, in constant memory.

Rows go through `Predictor.score`, the code that answers requests. They are not written to the prediction log one by
one: the table that the answers are written to is their log. It carries, beside each answer, the prediction id, the
version, the instant of the features, the snapshots they were read from and the instant of the answer, from which a
receipt starts as it does from the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from millpond.core.errors import RequestError
from millpond.core.names import did_you_mean
from millpond.serving.ports import ServedModel
from millpond.serving.predictor import Predictor, Scored
from millpond.serving.protocol.metadata import output_tensors

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that are scored at once.
BATCH_ROWS = 10_000


def output_columns(served: ServedModel) -> tuple[str, ...]:
    """Names of the columns that `predict_batches` adds to the keys, in order."""
    return (
        *(tensor["name"] for tensor in output_tensors(served) if tensor["name"] != "as_of"),
        "model",
        "version",
        "as_of",
        "snapshots",
        "predicted_at",
    )


def predict_batches(
    predictor: Predictor,
    rows: pa.RecordBatchReader,
    *,
    keys: Sequence[str],
    as_of: datetime | None = None,
    batch_rows: int = BATCH_ROWS,
) -> pa.RecordBatchReader:
    """Score a stream of rows.

    Args:
        predictor: Answers.
        rows: A stream that holds at least the required request columns and `keys`; other columns are left alone.
        keys: Columns that are copied to the output.
        as_of: The instant of the features of all rows; None takes each row's own, else the instant at which the row
            is scored.
        batch_rows: Rows scored at once; memory grows with it and not with the stream.

    Returns:
        A stream of one row a row of `rows`, in order: `keys`, `prediction_id` (string), `probability` (float64) and
        `answer` (bool) or `prediction` (float64), `model` (string), `version` (int64), `as_of` (timestamp[us, UTC]),
        `snapshots` (string, a JSON object: table -> snapshot id) and `predicted_at` (timestamp[us, UTC]). It reads
        `rows` as it is read; errors of the predictor are raised then, and name the row of the stream from which the
        failing batch begins.

    Raises:
        RequestError: A key is not in `rows`, or has the name of an output column.
    """
    import pyarrow as pa

    served = predictor.served
    added = output_columns(served)
    for key in keys:
        if key not in rows.schema.names:
            hint = did_you_mean(key, rows.schema.names, noun="columns")
            raise RequestError(f"the rows have no key column {key!r}", where=f"model {served.model!r}", hint=hint)
        if key in added:
            hint = f"rename it; the output adds: {', '.join(added)}"
            raise RequestError(f"the key column {key!r} has the name of an output", where=served.model, hint=hint)
    schema = _output_schema(served, rows.schema, keys)
    taken = [column.name for column in served.columns if column.name in rows.schema.names]

    def answers() -> Iterator[pa.RecordBatch]:
        first = 0
        for chunk in _rechunk(rows, batch_rows):
            try:
                scored = predictor.score(chunk.select(taken), as_of)
            except RequestError as error:
                raise RequestError(
                    error.what, where=f"{error.where}, in the rows from {first} on", hint=error.hint
                ) from error
            yield from _answer_table(scored, served, chunk.select(list(keys)), schema).to_batches()
            first += chunk.num_rows

    return pa.RecordBatchReader.from_batches(schema, answers())


def _rechunk(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Tables of at most `size` rows; small batches are gathered, so that each call of the model is worth it."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        offset = 0
        while offset < batch.num_rows:
            piece = batch.slice(offset, size - count)
            held.append(piece)
            count += piece.num_rows
            offset += piece.num_rows
            if count == size:
                yield pa.Table.from_batches(held)
                held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _output_schema(served: ServedModel, rows: pa.Schema, keys: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    types = {
        "prediction_id": pa.string(),
        "probability": pa.float64(),
        "prediction": pa.float64(),
        "answer": pa.bool_(),
        "model": pa.string(),
        "version": pa.int64(),
        "as_of": pa.timestamp("us", "UTC"),
        "snapshots": pa.string(),
        "predicted_at": pa.timestamp("us", "UTC"),
    }
    fields = [pa.field(name, types[name], nullable=False) for name in output_columns(served)]
    return pa.schema([*(rows.field(key) for key in keys), *fields])


def _answer_table(scored: Scored, served: ServedModel, keys: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    count = len(scored.ids)
    values = {
        "prediction_id": list(scored.ids),
        "probability": scored.outputs,
        "prediction": scored.outputs,
        "answer": scored.answers,
        "model": [served.model] * count,
        "version": [served.version] * count,
        "as_of": scored.featurized.as_of,
        "snapshots": [json.dumps(dict(scored.featurized.snapshots))] * count,
        "predicted_at": [scored.scored_at] * count,
    }
    arrays = [pa.array(values[name], schema.field(name).type) for name in output_columns(served)]
    return pa.Table.from_arrays([*keys.columns, *arrays], schema=schema)
