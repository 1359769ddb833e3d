"""Rows that try a plan: real ones, and what could come instead of each of their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millpond.serving.plans.kernels import CATEGORICAL, OPERATIONS

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.serving.plans.plan import Plan

#: Thresholds tried of one input; each with its neighbours.
THRESHOLDS = 40
#: Real rows in which a column is made null.
NULL_ROWS = 8
#: Rows in which a third of all values are null.
SPARSE_ROWS = 200

_EXTREMES = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-36, -1e-36, 5e-324, 1e30, -1e30, 2.0**53, 2.0**53 + 2)
_HUGE = (1e300, -1e300)  # more than a float32 holds
_INTEGERS = (0, 1, -1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63))
_TEXTS = ("", " ", "\x00", "no such category of any training set", "None", "nan", "ä\U0001f600")

Change = tuple[str, Any]


def arrow_schema(inputs: Mapping[str, str]) -> pa.Schema:
    """The Arrow types of raw inputs."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "float64": pa.float64(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "string": pa.string(),
    }
    return pa.schema([(name, types[kind]) for name, kind in inputs.items()])


def mutations(plan: Plan, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """What is tried, by name: batches of rows like `rows`, each with one value changed, or with many nulls.

    The changes: null; unseen texts and all known ones; both booleans; extreme numbers; NaN; the thresholds of the
    plan's trees (of inputs that reach them unchanged) with the numbers next to them; infinities.
    """
    kinds = plan.inputs
    numbers = [name for name, kind in kinds.items() if kind == "float64"]
    changes: dict[str, list[Change]] = {
        "nulls": [(name, None) for name in kinds for _ in range(NULL_ROWS)],
        "texts": [(name, text) for name, codes in plan.described.codes.items() for text in (*codes.known, *_TEXTS)],
        "booleans": [(name, value) for name, kind in kinds.items() if kind == "bool" for value in (True, False)],
        "integers": [(name, value) for name, kind in kinds.items() if kind == "int64" for value in _INTEGERS],
        "extreme numbers": [(name, value) for name in numbers for value in _EXTREMES],
        "huge numbers": [(name, value) for name in numbers for value in _HUGE],
        "NaN": [(name, float("nan")) for name in numbers],
        "thresholds": list(_thresholds(plan)),
        "infinities": [(name, value) for name in numbers for value in (float("inf"), float("-inf"))],
    }
    for name, each in changes.items():
        if each:
            yield name, _changed(rows, each)
    yield "many nulls", _sparse(rows)


def _thresholds(plan: Plan) -> Iterator[Change]:
    names = list(plan.inputs)
    for index, values in sorted(_by_input(plan).items()):
        kind = plan.inputs[names[index]]
        spread = np.unique(values)[:: max(1, len(np.unique(values)) // THRESHOLDS)]
        for value in spread.tolist():
            if kind == "int64" and abs(value) < 2**62:
                yield from ((names[index], int(np.floor(value)) + step) for step in (0, 1))
            elif kind == "float64":
                yield from ((names[index], each) for each in _around(value))


def _around(value: float) -> list[float]:
    with np.errstate(over="ignore"):
        narrow = np.float32(value)
    near = [np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)]
    near += [np.nextafter(narrow, np.float32(-np.inf)), narrow, np.nextafter(narrow, np.float32(np.inf))]
    return sorted({float(each) for each in near if np.isfinite(each)})


def _by_input(plan: Plan) -> dict[int, npt.NDArray[Any]]:
    nodes = plan.arrays.get("nodes")
    if nodes is None:
        return {}
    nodes = nodes[(nodes["flags"] & CATEGORICAL) == 0]
    columns = np.arange(plan.described.sizes["width"])
    if not plan.described.sizes["prepared_is_raw"]:
        harmless = np.isin(plan.arrays["op_code"], [OPERATIONS.index(each) for each in ("float32", "finite", "number")])
        starts = plan.arrays["column_ops"]
        unchanged = [bool(harmless[starts[at] : starts[at + 1]].all()) for at in columns]
        nodes = nodes[np.array(unchanged)[nodes["feature"]]]
        columns = plan.arrays["column_source"]
    inputs = columns[nodes["feature"]]
    return {int(each): nodes["threshold"][inputs == each] for each in np.unique(inputs)}


def _changed(rows: pa.Table, changes: Sequence[Change]) -> pa.Table:
    """Real rows, one a change, in turn."""
    import pyarrow as pa

    taken = rows.take(np.arange(len(changes)) * 7919 % rows.num_rows)
    for index, name in enumerate(rows.column_names):
        mine = {at: value for at, (column, value) in enumerate(changes) if column == name}
        if mine:
            values = taken[name].to_pylist()
            for at, value in mine.items():
                values[at] = value
            taken = taken.set_column(index, name, pa.array(values, type=rows.schema.field(name).type))
    return taken


def _sparse(rows: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    random = np.random.default_rng(0)
    taken = rows.take(np.arange(SPARSE_ROWS) * 7907 % rows.num_rows)
    for index, name in enumerate(rows.column_names):
        gone = pa.array(random.random(SPARSE_ROWS) < 1 / 3)
        empty = pa.scalar(None, rows.schema.field(name).type)
        taken = taken.set_column(index, name, pc.if_else(gone, empty, taken[name]))
    return taken
