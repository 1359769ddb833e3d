"""The evaluation broken down by the values of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millpond.training.data import Floats
from millpond.training.metrics import metrics

if TYPE_CHECKING:
    import pyarrow as pa

#: Values of a column that are shown, the most frequent first, and how many rows one needs.
MOST_VALUES = 20
FEWEST_ROWS = 30

#: Numbers with more different values than MOST_VALUES are cut into this many parts of about equal size.
BANDS = 5

NULL = "(null)"


@dataclass(frozen=True)
class SliceMetrics:
    """The test part where a column has one value.

    Attributes:
        column: The column.
        value: The value as text, "(null)", or a band of numbers such as "100 to 250".
        rows: Number of test rows.
        label: Their mean label: the share of yes, or the mean number.
        output: Their mean output.
        metrics: As of the whole part, without what is not defined here.
    """

    column: str
    value: str
    rows: int
    label: float
    output: float
    metrics: Mapping[str, float]


def evaluate_slices(
    task: str, rows: pa.Table, columns: Sequence[str], labels: Floats, outputs: Floats, *, threshold: float | None
) -> tuple[SliceMetrics, ...]:
    """Metrics by the values of each column.

    Args:
        task: "classification" or "regression".
        rows: The test rows.
        columns: Which columns of `rows`.
        labels: One a row.
        outputs: One a row.
        threshold: Probability from which the answer is yes; None for regression.

    Returns:
        By column in the given order; within one the most frequent value first, for numbers
        the least first.
    """
    found = []
    for column in columns:
        for value, mask in _values(rows[column]):
            found.append(
                SliceMetrics(
                    column,
                    value,
                    int(mask.sum()),
                    float(labels[mask].mean()),
                    float(outputs[mask].mean()),
                    metrics(task, labels[mask], outputs[mask], threshold),
                )
            )
    return tuple(found)


def _values(column: Any) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if numeric and pc.count_distinct(column, mode="only_valid").as_py() > MOST_VALUES:
        yield from _bands(column.cast(pa.float64(), safe=False).to_numpy())
        return
    values = np.array([NULL if value is None else _text(value) for value in column.to_pylist()], dtype=object)
    names, counts = np.unique(values, return_counts=True)
    ranked = sorted(zip(-counts, names, strict=True))[:MOST_VALUES]
    if numeric:
        ranked.sort(key=lambda each: (each[1] == NULL, each[1] != NULL and float(each[1])))
    for count, name in ranked:
        if -count >= FEWEST_ROWS:
            yield name, values == name


def _bands(values: Floats) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    known = ~np.isnan(values)
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BANDS + 1), method="closest_observation"))
    for number, (low, high) in enumerate(pairwise(edges)):
        mask = known & (values >= low if number == 0 else values > low) & (values <= high)
        if mask.sum() >= FEWEST_ROWS:
            yield (f"{low:.4g} to {high:.4g}" if number == 0 else f"over {low:.4g} to {high:.4g}"), mask
    if (~known).sum() >= FEWEST_ROWS:
        yield NULL, ~known


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
