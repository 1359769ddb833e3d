"""Features computed from the request's own columns: one code for training, batch scoring and requests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DefinitionError
from millpond.definitions.features import RequestFeatures

if TYPE_CHECKING:
    import pyarrow as pa

#: So many rows are computed one by one as well, to see whether each row stands alone.
_COMPARED_ROWS = 64
_TOLERANCE = 1e-9


def apply_request_features(functions: Sequence[RequestFeatures], rows: pa.Table, *, verify: bool = True) -> pa.Table:
    """Compute request features for rows of a request, or of examples.

    Args:
        functions: The declared functions; each sees a `narwhals.DataFrame` of all columns of `rows`.
        rows: The request's columns; int64, float64, bool, string, and timestamp("us", "UTC").
        verify: Compare up to 64 rows with the same rows computed one by one. Training does so before a model
            exists; serving the model then need not.

    Returns:
        Only the new columns, `{name}__{column}`, as many rows as `rows`, in its order. Types are int64, float64,
        bool and string; NaN is null.

    Raises:
        DefinitionError: A function failed, returned something else than a frame with as many rows, returned a type
            that no model takes, or is not row-wise: the value of a row depends on other rows.
    """
    import pyarrow as pa

    if verify and rows.num_rows > 0:
        check_row_wise(functions, rows)
    columns: dict[str, Any] = {}
    for function in functions:
        columns.update(_apply(function, rows))
    return pa.table(columns) if columns else rows.select([])


def required_columns(functions: Sequence[RequestFeatures], schema: pa.Schema) -> tuple[str, ...]:
    """The columns without which the functions fail, or return other columns; in the order of `schema`.

    The functions are run on an empty frame, with each column left out in turn.

    Raises:
        DefinitionError: A function fails on an empty frame with all columns.
    """
    empty = schema.empty_table()
    complete = apply_request_features(functions, empty).schema

    def needed(column: str) -> bool:
        try:
            return bool(apply_request_features(functions, empty.drop_columns([column])).schema != complete)
        except DefinitionError:
            return True

    return tuple(column for column in schema.names if needed(column)) if functions else ()


def check_row_wise(functions: Sequence[RequestFeatures], rows: pa.Table) -> None:
    """Compare up to 64 rows, evenly spread, with the same rows computed one by one.

    Floats may differ by a relative 1e-9: a processor may compute a lane of many otherwise than a single number.

    Raises:
        DefinitionError: A value differs, so the function is not row-wise; or as `apply_request_features`.
    """
    step = max(1, rows.num_rows // _COMPARED_ROWS)
    chosen = rows.take(list(range(0, rows.num_rows, step))[:_COMPARED_ROWS])
    for function in functions:
        together = {name: column.to_pylist() for name, column in _apply(function, chosen).items()}
        for number in range(chosen.num_rows):
            alone = _apply(function, chosen.slice(number, 1))
            for name, values in together.items():
                one = alone[name][0].as_py() if name in alone else None
                if not _same(values[number], one):
                    raise DefinitionError(
                        f"{function.subject} is not row-wise: {name} of one row is {values[number]!r} "
                        f"among {chosen.num_rows} rows and {one!r} alone",
                        where=str(function.declared_at),
                        hint="a request may hold a single row: compute each row from its own columns only, "
                        "without aggregates, shifts or ranks over rows",
                    )


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right or math.isclose(left, right, rel_tol=_TOLERANCE)
    return bool(left == right)


def _apply(function: RequestFeatures, rows: pa.Table) -> dict[str, Any]:
    import narwhals as nw

    try:
        result = function.function(nw.from_native(rows, eager_only=True))
    except Exception as error:  # whatever the user's code raises, it is theirs to mend
        raise DefinitionError(
            f"{function.subject} failed: {error}",
            where=str(function.declared_at),
            hint=f"it was given the columns {', '.join(rows.column_names)}",
        ) from error
    if not isinstance(result, nw.DataFrame):
        raise DefinitionError(
            f"{function.subject} returned {type(result).__name__}",
            where=str(function.declared_at),
            hint="return a frame: rows.select(...)",
        )
    table = result.to_arrow()
    if table.num_rows != rows.num_rows:
        raise DefinitionError(
            f"{function.subject} returned {table.num_rows} rows for {rows.num_rows}",
            where=str(function.declared_at),
            hint="return one row for each row given, in the same order",
        )
    return dict(_columns(function, table))


def _columns(function: RequestFeatures, table: pa.Table) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(table.column_names, table.columns, strict=True):
        full, type_ = f"{function.name}__{name}", column.type
        if pa.types.is_boolean(type_):
            yield full, column
        elif pa.types.is_integer(type_):
            yield full, column.cast(pa.int64())
        elif pa.types.is_floating(type_) or pa.types.is_decimal(type_) or pa.types.is_null(type_):
            number = column.cast(pa.float64())
            yield full, pc.if_else(pc.is_nan(number), pa.scalar(None, pa.float64()), number)
        elif pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_dictionary(type_):
            yield full, column.cast(pa.string())
        else:
            raise DefinitionError(
                f"{function.subject} returns column {name!r} of type {type_}, which no model takes",
                where=str(function.declared_at),
                hint="return numbers, booleans or strings, such as mp.col(...).dt.hour() of an instant",
            )
