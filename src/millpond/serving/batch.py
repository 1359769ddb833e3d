"""The table that a batch of predictions writes: one row a row that was scored.

The rows are not written to the prediction log one by one: this table is their log. It carries, beside each answer, the
prediction id, the version, the instant of the features, the snapshots they were read from and the instant of the
answer, from which a receipt starts as it does from the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import RequestError
from millpond.serving.ports import ServedModel
from millpond.serving.protocol.signature import PREDICTION_ID, output_specs

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.serving.rows import Column

AS_OF = "as_of"
_ABOUT = ("model", "version", AS_OF, "snapshots", "predicted_at")
_ANSWER = "answer"


def output_columns(served: ServedModel) -> tuple[str, ...]:
    """Names of the columns that a batch adds to the keys, in order."""
    return (PREDICTION_ID, *_answers(served), *_ABOUT)


def model_outputs(served: ServedModel) -> dict[str, str]:
    """Column -> name of the output in `ServedModel.outputs`, in order.

    As outputs are called in answers to requests; and an output with the name of a column that says something about
    the answer is `output_<name>` too.
    """
    return {name: source for name, source in _answers(served).items() if source}


def _answers(served: ServedModel) -> dict[str, str]:
    """Column -> output of the runtime, empty for what is made of one."""
    specs = [spec for spec in output_specs(served) if spec.name not in (PREDICTION_ID, AS_OF)]
    return {f"output_{spec.name}" if spec.name in _ABOUT else spec.name: spec.source for spec in specs}


def output_schema(served: ServedModel, keys: Sequence[pa.Field[Any]]) -> pa.Schema:
    """The columns of the table: `keys`, then `output_columns`.

    `probability` is float64 and `answer` bool, or `prediction` float64; outputs of a registered model have their own
    types, lists of float64 where they are vectors, and may be null. Instants are timestamp[us, UTC]; `snapshots` is a
    JSON object, table -> snapshot id.

    Raises:
        RequestError: A key has the name of an output.
    """
    import pyarrow as pa

    from millpond.serving.columns import arrow_type

    added = output_columns(served)
    for key in keys:
        if key.name in added:
            hint = f"rename it; the output adds: {', '.join(added)}"
            raise RequestError(f"the key column {key.name!r} has the name of an output", where=served.model, hint=hint)
    instant = pa.timestamp("us", "UTC")
    types: dict[str, Any] = {PREDICTION_ID: pa.string(), _ANSWER: pa.bool_()}
    types |= dict(zip(_ABOUT, (pa.string(), pa.int64(), instant, pa.string(), instant), strict=True))
    own = {each.name: each for each in served.outputs}
    for column, source in model_outputs(served).items():
        types[column] = pa.list_(pa.float64()) if own[source].width else arrow_type(own[source].type)
    nullable = set(model_outputs(served)) if served.task == "other" else set()
    return pa.schema([*keys, *(pa.field(name, types[name], nullable=name in nullable) for name in added)])


def answer_table(
    served: ServedModel,
    schema: pa.Schema,
    keys: pa.Table,
    *,
    ids: Sequence[str],
    outputs: Mapping[str, Column],
    as_of: pa.Array[Any],
    snapshots: str,
    predicted_at: datetime,
) -> pa.Table:
    """Answers as rows of the table.

    Args:
        served: The version.
        schema: As `output_schema` gives it.
        keys: The rows' keys.
        ids: A prediction id a row.
        outputs: By name of `ServedModel.outputs`.
        as_of: The instant of each row's features.
        snapshots: As the column has them.
        predicted_at: When the model had answered; UTC.
    """
    import numpy as np
    import pyarrow as pa

    sources, count = model_outputs(served), len(ids)
    made: dict[str, Any] = {PREDICTION_ID: pa.array(ids, pa.string()), AS_OF: as_of}
    made |= {name: _output(outputs[source], schema.field(name).type) for name, source in sources.items()}
    if served.threshold is not None:
        [probability] = outputs.values()
        made[_ANSWER] = pa.array(np.asarray(probability) >= served.threshold)
    same = {"model": served.model, "version": served.version, "snapshots": snapshots, "predicted_at": predicted_at}
    made |= {name: pa.repeat(pa.scalar(value, schema.field(name).type), count) for name, value in same.items()}
    return pa.Table.from_arrays([*keys.columns, *(made[name] for name in output_columns(served))], schema=schema)


def _output(column: Column, kind: pa.DataType) -> Any:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_list(kind):
        values = np.asarray(column, dtype=np.float64)
        rows, width = values.shape
        offsets: Any = pa.array(np.arange(0, (rows + 1) * width, width, dtype=np.int32))
        numbers: Any = pa.array(values.reshape(-1), from_pandas=True)
        return pa.ListArray.from_arrays(offsets, numbers)
    return pa.array(column, kind, from_pandas=True)
