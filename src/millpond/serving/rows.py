"""Rows as columns, between the wire and a runtime: plain Python for a few, NumPy for many, Arrow only where asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: A list holds values of one type, None for null: bool, int, float, str; an instant is an int, microseconds since
#: 1970 UTC. An array is float64 (NaN is null), int64 or bool.
Column: TypeAlias = "list[Any] | np.ndarray[Any, Any]"


@dataclass(slots=True)
class Rows:
    """Some rows of a request, of raw model inputs, or of outputs. Not changed once made.

    Where all columns are numbers, `matrix` may hold them instead of `given`: float64, C-contiguous, of shape
    (count, columns), NaN for null, in the order of `names`.

    Attributes:
        count: Number of rows.
        names: Names of the columns, in order.
        given: The columns, `count` values each; empty where `matrix` holds them.
        matrix: All columns at once, or None.
    """

    count: int
    names: tuple[str, ...]
    given: tuple[Column, ...] = ()
    matrix: np.ndarray[Any, Any] | None = None

    @classmethod
    def of(cls, columns: Mapping[str, Column]) -> Rows:
        """Rows of at least one column."""
        given = tuple(columns.values())
        return cls(len(given[0]), tuple(columns), given)

    @property
    def columns(self) -> Mapping[str, Column]:
        """The columns by name."""
        if self.matrix is not None:
            return {name: self.matrix[:, index] for index, name in enumerate(self.names)}
        return dict(zip(self.names, self.given, strict=True))

    def column(self, name: str) -> Column | None:
        """One column; None where there is none of this name."""
        if name not in self.names:
            return None
        at = self.names.index(name)
        return self.given[at] if self.matrix is None else self.matrix[:, at]

    def values(self, row: int) -> dict[str, Any]:
        """One row as Python values; a NaN is None."""
        found = {name: _plain(column[row]) for name, column in self.columns.items()}
        return {name: None if value != value else value for name, value in found.items()}  # noqa: PLR0124

    def to_arrow(self, schema: pa.Schema) -> pa.Table:
        """As Arrow, in the columns and types of `schema`; a column that is not there is null in every row."""
        import pyarrow as pa

        arrays = [
            pa.array(self.columns[field.name], type=field.type, from_pandas=True)
            if field.name in self.columns
            else pa.nulls(self.count, field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Rows:
        """Of a table of bool, int64, float64, string and timestamp[us, UTC] columns."""
        import pyarrow as pa

        def column(values: pa.ChunkedArray[Any]) -> Column:
            if pa.types.is_timestamp(values.type):
                values = values.cast(pa.int64())
            elif pa.types.is_floating(values.type):
                found: Column = values.to_numpy()
                return found
            listed: Column = values.to_pylist()
            return listed

        return cls(table.num_rows, tuple(table.column_names), tuple(column(each) for each in table.columns))

    def slice(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop`, without the latter."""
        if self.matrix is not None:
            return Rows(stop - start, self.names, matrix=self.matrix[start:stop])
        return Rows(stop - start, self.names, tuple(column[start:stop] for column in self.given))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows with the same columns, one below the other."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    count, names = sum(each.count for each in parts), parts[0].names
    if all(each.matrix is not None for each in parts):
        return Rows(count, names, matrix=np.concatenate([each.matrix for each in parts]))

    def joined(columns: Sequence[Column]) -> Column:
        if all(isinstance(each, list) for each in columns):
            return list(chain.from_iterable(columns))
        arrays = [each for each in columns if isinstance(each, np.ndarray)]
        if len(arrays) == len(columns) and len({each.dtype for each in arrays}) == 1:
            return np.concatenate(arrays)
        return [_plain(value) for column in columns for value in column]

    tables = [_in_order(each, names) for each in parts]
    return Rows(count, names, tuple(joined(columns) for columns in zip(*tables, strict=True)))


def _in_order(rows: Rows, names: tuple[str, ...]) -> Sequence[Column]:
    if rows.matrix is None and rows.names == names:
        return rows.given
    columns = rows.columns
    return [columns[name] for name in names]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
