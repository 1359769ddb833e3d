"""The lake tables of predictions: one a model, with a typed column for everything that was logged.

    prediction_id string            request_id string      the caller's identifier of the request
    model string                    version int64
    variant string                  "live", "canary", "shadow", "asked" or "batch"
    shadow_of int64                 version that answered the caller instead
    raw bool                        whether the request carried raw model inputs
    predicted_at, as_of instant     requested_by string
    output float64                  of a trained model; output__NAME for each output of another, unless that is "output"
    answer bool                     null where the task is not classification
    latency_ms float64              snapshots, events string: JSON objects
    synced_at instant               see `serving.ports.Featurized`
    request__NAME                   a column of requests
    input__NAME                     a raw model input

A column that a version does not have, or that is redacted, is null. Where two versions have a column of one name and of
different kinds, the later kind gets a column of its own, such as `input__seats@string`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from millpond.core.fingerprints import fingerprint
from millpond.core.names import is_name

if TYPE_CHECKING:
    import pyarrow as pa

#: What the names of columns of requests, and of raw inputs, begin with.
REQUEST, INPUT = "request__", "input__"
#: The column of a trained model's output, and what those of other outputs begin with.
OUTPUT_COLUMN = "output"

_SCHEMA = "predictions"
_KINDS = {"boolean": "bool", "long": "int64", "double": "float64", "timestamptz": "instant", "string": "string"}
#: The kind of a column of vectors.
VECTOR = "vector"


def table_name(model: str) -> str:
    """The lake table of a model's predictions."""
    if is_name(model):
        return f"{_SCHEMA}.{model}"
    plain = re.sub("[^a-z0-9]+", "_", model.lower()).strip("_")[:40]
    return f"{_SCHEMA}.m_{plain}_{fingerprint(model)[:10]}".replace("__", "_")


def output_column(name: str) -> str:
    """The column of an output."""
    return OUTPUT_COLUMN if name == OUTPUT_COLUMN else f"{OUTPUT_COLUMN}__{name}"


def is_prediction_table(table: str) -> bool:
    """Whether a lake table is one of predictions."""
    return table.startswith(f"{_SCHEMA}.")


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type of a kind of column."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "bool": pa.bool_(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "instant": pa.timestamp("us", "UTC"),
        VECTOR: pa.list_(pa.float64()),
    }
    return types[kind]


def kind_of(iceberg: str) -> str:
    """The kind of a column of the lake, by its Iceberg type."""
    return _KINDS.get(iceberg, VECTOR)


def column_for(columns: Mapping[str, str], name: str, kind: str) -> str:
    """The column that values of a kind go to, or are in: `name`, or one beside it where that holds another kind.

    Args:
        columns: The columns that are there: name -> kind.
        name: Such as "input__seats".
        kind: Of the values.
    """
    taken = {each.lower() for each in columns}
    for each in _names(name, kind):
        if columns.get(each) == kind or each.lower() not in taken:
            return each
    raise AssertionError("names do not end")


def there(columns: Mapping[str, str], name: str, kind: str) -> str | None:
    """The column that holds values of a kind; of floats, where integers were no integers; None where there is none."""
    for each in (kind, "float64"):
        found = column_for(columns, name, each)
        if found in columns:
            return found
    return None


def kinds_of(rows: pa.Table) -> dict[str, str]:
    """The columns of rows: name -> kind."""
    return {field.name: _kind(field.type) for field in rows.schema}


def empty() -> pa.Table:
    """No rows, with the columns that are there of every version."""
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(("prediction_id", "request_id", "model"), "string"),
        "version": "int64",
        "variant": "string",
        "shadow_of": "int64",
        "raw": "bool",
        "predicted_at": "instant",
        "as_of": "instant",
        "requested_by": "string",
        "answer": "bool",
        "latency_ms": "float64",
        "snapshots": "string",
        "events": "string",
        "synced_at": "instant",
    }
    return pa.schema([(name, arrow_type(kind)) for name, kind in kinds.items()]).empty_table()


def _names(name: str, kind: str) -> Iterator[str]:
    yield name
    yield f"{name}@{kind}"
    yield from (f"{name}@{kind}{number}" for number in count(2))


def gathered(parts: Sequence[pa.Table], columns: Mapping[str, str]) -> pa.Table:
    """Rows below each other, with the columns of all of them, under the names that those have in a table.

    Args:
        parts: Rows; at least one table.
        columns: The columns that the table has already: name -> kind.
    """
    import pyarrow as pa

    known = dict(columns)
    named = []
    for part in parts:
        names = []
        for field in part.schema:
            kind = _kind(field.type)
            names.append(column_for(known, field.name, kind))
            known[names[-1]] = kind
        named.append(part.rename_columns(names))
    return named[0] if len(named) == 1 else pa.concat_tables(named, promote_options="default")


def _kind(type: Any) -> str:
    for kind in ("float64", "int64", "string", "bool", "instant"):
        if type == arrow_type(kind):
            return kind
    return VECTOR
