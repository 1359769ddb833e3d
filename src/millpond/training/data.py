"""What is trained on: a training set, and what its columns are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millpond.core.errors import TrainingError
from millpond.core.names import did_you_mean
from millpond.training.frame import INPUT_TYPES

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
Instants = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class TrainingData:
    """A training set in memory.

    Attributes:
        rows: The examples, in any order: training sorts them by `at`, then `keys`.
        keys: Columns that identify an example.
        inputs: Model inputs in order: name -> "float64", "int64", "bool" or "string".
        slices: Columns by whose values the evaluation is broken down.
        at: Column with the instant of prediction (time-zone aware), or None.
        label: Column with the label: boolean, two values, or a number. Null labels are left out.
        label_known: Column with the instant at which the label became known, or None: then it is known at `at`.
        null_labels: Examples without a label that were left out before, for the report; rows.
    """

    rows: pa.Table
    keys: Sequence[str]
    inputs: Mapping[str, str]
    slices: Sequence[str] = ()
    at: str | None = None
    label: str = "__label"
    label_known: str | None = None
    null_labels: int = 0


@dataclass(frozen=True)
class Labels:
    """Labels as numbers.

    Attributes:
        values: One a row; NaN where the label is null. For classification 0.0 and 1.0.
        names: Names of the negative and the positive class; empty for regression.
    """

    values: Floats
    names: tuple[str, ...] = ()


def require_usable(data: TrainingData, subject: str) -> None:
    """Refuse a training set whose columns cannot be trained on.

    Raises:
        TrainingError: It has no rows; a column is missing; the label is an input; an input's type is not allowed.
    """
    names = data.rows.column_names
    named = (*data.keys, *data.inputs, *data.slices, data.at, data.label, data.label_known)
    for name in named:
        if name is not None and name not in names:
            raise TrainingError(
                f"the training set has no column {name!r}", where=subject, hint=did_you_mean(name, names)
            )
    if not data.inputs:
        raise TrainingError("there are no model inputs", where=subject, hint="name feature views or columns in inputs")
    if data.label in data.inputs:
        raise TrainingError(f"the label {data.label!r} is among the inputs", where=subject, hint="remove it there")
    for name, kind in data.inputs.items():
        if kind not in INPUT_TYPES:
            raise TrainingError(
                f"input {name!r} is of type {kind}", where=subject, hint=f"inputs are {', '.join(INPUT_TYPES)}"
            )
    if data.rows.num_rows == 0:
        left_out = f" ({data.null_labels} were left out for their null label)" if data.null_labels else ""
        raise TrainingError(
            f"the training set has no rows{left_out}",
            where=subject,
            hint="look at the model's `where`, at its label, and at how many rows the examples table has",
        )


def ordered(data: TrainingData) -> pa.Table:
    """The rows sorted by `at` (null last), then by `keys`: the same for any order in which they arrived."""
    by = ([data.at] if data.at else []) + [key for key in data.keys if key != data.at]
    rows = data.rows.combine_chunks()
    return rows.sort_by([(name, "ascending") for name in by]) if by else rows


def instants(rows: pa.Table, column: str, subject: str) -> tuple[Instants, npt.NDArray[np.bool_]]:
    """A column of instants as microseconds since 1970 in UTC, and where it is null (there the number means nothing).

    Raises:
        TrainingError: The column does not hold time-zone aware timestamps.
    """
    import pyarrow as pa

    values: Any = rows[column]
    if not pa.types.is_timestamp(values.type) or values.type.tz is None:
        raise TrainingError(
            f"column {column!r} holds {values.type}, not instants",
            where=subject,
            hint="a time is a timestamp with a time zone; declare the table's `zone`, or name another column",
        )
    null = values.is_null().to_numpy()
    microseconds = values.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64()).fill_null(0)
    return microseconds.to_numpy(), null


def labels(rows: pa.Table, column: str, task: str, subject: str) -> Labels:
    """The label column as numbers.

    Raises:
        TrainingError: For classification the label has not exactly two values; for regression it is no number, or
            is infinite.
    """
    import pyarrow as pa

    values = rows[column]
    numeric = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
    if task == "classification":
        if pa.types.is_boolean(values.type):
            return Labels(values.cast(pa.float64()).to_numpy(), ("no", "yes"))
        return _two_classes(values, numeric, column, subject)
    if not numeric:
        raise TrainingError(
            f"the label holds {values.type}, and regression needs a number",
            where=f"{subject}, label {column!r}",
            hint="give a numeric label, or use mp.Classification for a yes/no question",
        )
    numbers: Floats = values.cast(pa.float64(), safe=False).to_numpy()
    if infinite := int(np.isinf(numbers).sum()):
        raise TrainingError(
            f"the label is infinite in {infinite} rows",
            where=f"{subject}, label {column!r}",
            hint="leave these examples out with the model's `where`",
        )
    return Labels(numbers)


def _two_classes(values: Any, numeric: bool, column: str, subject: str) -> Labels:
    import pyarrow as pa
    import pyarrow.compute as pc

    if numeric:
        values = values.cast(pa.float64(), safe=False)
        values = pc.if_else(pc.is_nan(values), None, values)
    found: list[Any] = sorted(value for value in pc.unique(values).to_pylist() if value is not None)
    if len(found) != 2:
        shown = ", ".join(repr(value) for value in found[:5]) + (", ..." if len(found) > 5 else "")
        raise TrainingError(
            f"the label has {len(found)} different values" + (f": {shown}" if found else ""),
            where=f"{subject}, label {column!r}",
            hint="classification needs exactly two; write the label as a condition, such as mp.col('delay') >= 30",
        )
    positive = pc.equal(values, pa.scalar(found[1], values.type)).cast(pa.float64())
    return Labels(positive.to_numpy(), tuple(f"{value:g}" if numeric else str(value) for value in found))
