"""Raw model inputs put together from the columns of a request and from features that were looked up."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import nan
from operator import itemgetter
from typing import Any

import numpy as np

from millpond.features.online.packing import feature_type
from millpond.features.online.ports import OnlineView
from millpond.serving.ports import ServedModel
from millpond.serving.rows import Column, Rows

#: Whole numbers up to here are floats without loss.
_EXACT = 2**53

_empty: Any = np.empty

#: Types of inputs by the stored types that are the same.
_SAME = {"double": "float64", "float": "float64", "int": "int64", "long": "int64", "boolean": "bool"}
#: By type of input: the types whose values, as floats, are what training casts them to.
_FLOATS = {
    "float64": {"float64", "int64", "bool", "decimal"},
    "int64": {"int64", "bool"},
    "bool": {"bool"},
}

#: One row of a view, or of a request: its values in order.
Row = Sequence[Any]


class InputAssembly:
    """Makes the inputs of a version. Used in one thread.

    Where all inputs are numbers the result is a matrix (see `Rows`), unless a whole number is too large for a float;
    else it is columns. Values are cast as training casts them.

    Args:
        served: The version.
        views: Its views, in the order in which they are looked up.
    """

    def __init__(self, served: ServedModel, views: Sequence[OnlineView]) -> None:
        self._names = tuple(served.inputs)
        features = {each.name: each for view in views for each in view.features}
        self._own = tuple(name for name in self._names if name not in features)
        flat = [*features, *self._own]
        self._picked = _picker([flat.index(name) for name in self._names], len(flat))
        stored = {column.name: column.type for column in served.columns}
        stored |= {name: _type(feature_type(each)) for name, each in features.items()}
        self._casts = [
            None if name in self._own else _cast(stored[name], wanted) for name, wanted in served.inputs.items()
        ]
        self._numbers = all(stored[name] in _FLOATS.get(wanted, ()) for name, wanted in served.inputs.items())
        self._wide = [
            index
            for index, (name, wanted) in enumerate(served.inputs.items())
            if wanted == "int64" and not (name in features and features[name].is_count)
        ]
        self._form = struct.Struct(f"{len(self._names)}d")
        self._nulls = False  # whether rows had nulls before: looking first is cheaper than an exception

    def assemble(self, request: Rows, found: Sequence[Sequence[Row]]) -> Rows:
        """The inputs of some rows, in the order of `ServedModel.inputs`.

        Args:
            request: The request's rows.
            found: Of each view, in order: the values of its features, a row each.
        """
        rows: Sequence[Row] = found[0] if len(found) == 1 and not self._own else list(self._flat(request, found))
        if self._picked is not None:
            rows = [self._picked(row) for row in rows]
        matrix = self._matrix(rows) if self._numbers else None
        if matrix is not None:
            return Rows(request.count, self._names, (), matrix)
        return Rows(request.count, self._names, tuple(self._columns(rows)))

    def _flat(self, request: Rows, found: Sequence[Sequence[Row]]) -> Iterator[Row]:
        """Rows of all features, view by view, and of what the request itself has of the inputs."""
        own = [_values(request.column(name), request.count) for name in self._own]
        parts = [*found, zip(*own, strict=True)] if own else found
        return (tuple(chain.from_iterable(row)) for row in zip(*parts, strict=True))

    def _matrix(self, rows: Sequence[Row]) -> Any:
        """Rows of numbers as float64; None where a whole number does not go into one."""
        if self._wide and any(not self._fits(row) for row in rows):
            return None
        form = self._form
        matrix = _empty((len(rows), len(self._names)))
        for index, row in enumerate(rows):
            at = index * form.size
            try:
                form.pack_into(matrix, at, *(_without_nulls(row) if self._nulls and None in row else row))
            except struct.error:
                self._nulls = True
                form.pack_into(matrix, at, *_without_nulls(row))
        return matrix

    def _fits(self, row: Row) -> bool:
        return all(row[index] is None or -_EXACT <= row[index] <= _EXACT for index in self._wide)

    def _columns(self, rows: Sequence[Row]) -> Iterator[Column]:
        for column, cast in zip(zip(*rows, strict=True), self._casts, strict=True):
            if cast is None:
                yield list(column)
            else:
                yield [None if value is None else cast(value) for value in column]


def _values(column: Column | None, count: int) -> Sequence[Any]:
    if column is None:
        return [None] * count
    return column.tolist() if isinstance(column, np.ndarray) else column


def _without_nulls(row: Row) -> Row:
    return [nan if value is None else value for value in row]


def _picker(places: Sequence[int], width: int) -> Callable[[Row], Row] | None:
    """Takes the values at some places of a row; None where those are all, in order."""
    if list(places) == list(range(width)):
        return None
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))


def _type(stored: str) -> str:
    """A stored type by the name that inputs have for it, or "decimal"; others as they are."""
    return _SAME.get(stored, stored.partition("(")[0])


def _cast(stored: str, wanted: str) -> Callable[[Any], Any] | None:
    """How a feature becomes a value of the input's type, as training casts; None where it is one already."""
    if stored == wanted:
        return None
    return {"float64": float, "int64": int, "bool": bool}.get(wanted, str)
