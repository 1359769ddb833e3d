"""What the training data looks like, an input at a time: for the report, and later for drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

TOP_VALUES = 5


@dataclass(frozen=True)
class InputSummary:
    """One input over the training part.

    Attributes:
        name: The input.
        type: Its declared type.
        nulls: Share of rows that are null or NaN, 0 to 1.
        distinct: Number of different values, null not counted.
        low: Least number; None for strings, and where all are null.
        median: Their median (approximate beyond some thousand rows).
        high: Greatest number.
        top: For strings and booleans: the most frequent values and their share of rows.
    """

    name: str
    type: str
    nulls: float
    distinct: int
    low: float | None = None
    median: float | None = None
    high: float | None = None
    top: tuple[tuple[str, float], ...] = ()


def summarise_inputs(rows: pa.Table, inputs: Mapping[str, str]) -> tuple[InputSummary, ...]:
    """Describe each input, in order. `rows` holds at least one row."""
    return tuple(_summary(name, kind, rows[name], rows.num_rows) for name, kind in inputs.items())


def _summary(name: str, kind: str, column: Any, rows: int) -> InputSummary:
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind in ("string", "bool"):
        values = column.cast(pa.string())
        found: Any = pc.value_counts(values.drop_null())
        counted = [(each["values"], each["counts"]) for each in found.to_pylist()]
        ranked = sorted(counted, key=lambda each: (-each[1], each[0]))
        top = tuple((value, count / rows) for value, count in ranked[:TOP_VALUES])
        return InputSummary(name, kind, values.null_count / rows, len(counted), top=top)
    numbers: Any = column.cast(pa.float64(), safe=False)
    numbers = numbers.filter(pc.is_finite(numbers))
    nulls = float(column.is_null(nan_is_null=True).to_numpy().mean())
    distinct = pc.count_distinct(numbers).as_py()
    if not len(numbers):
        return InputSummary(name, kind, nulls, distinct)
    ends: Any = pc.min_max(numbers).as_py()
    median = pc.approximate_median(numbers).as_py()
    return InputSummary(name, kind, nulls, distinct, ends["min"], median, ends["max"])
