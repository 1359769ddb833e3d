"""The columns of a request as Arrow, and the one place that says whether rows are what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millpond.core.errors import RequestError
from millpond.core.names import did_you_mean
from millpond.serving.ports import RequestColumn, ServedModel

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_type(kind: str) -> Any:
    """The Arrow type of a request column's type; an instant is timestamp[us, UTC]."""
    import pyarrow as pa

    types: dict[str, Any] = {
        "bool": pa.bool_(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "instant": pa.timestamp("us", "UTC"),
    }
    return types[kind]


def request_schema(columns: Sequence[RequestColumn]) -> pa.Schema:
    """The Arrow schema of request rows: all columns in declared order; the required ones are not nullable."""
    import pyarrow as pa

    return pa.schema([pa.field(each.name, arrow_type(each.type), not each.required) for each in columns])


def describe_columns(columns: Sequence[RequestColumn]) -> str:
    """The columns in one line for a hint, required ones first."""
    ordered = sorted(columns, key=lambda each: not each.required)
    return ", ".join(f"{each.name} ({each.type}{'' if each.required else ', optional'})" for each in ordered)


def conform(rows: pa.Table, served: ServedModel) -> pa.Table:
    """`rows` with exactly the columns, order and types of `request_schema(served.columns)`.

    A column that is not required and not there becomes null; NaN becomes null. A value is cast only where that
    changes nothing (a decimal becomes the nearest float).

    Raises:
        RequestError: No rows; a column is unknown, missing, or of a type that does not fit; a required value is
            null; a timestamp names no time zone.
    """
    import pyarrow as pa

    where = f"model {served.model!r}"
    if rows.num_rows == 0:
        raise RequestError("there are no rows to predict", where=where, hint="send at least one row")
    names = [column.name for column in served.columns]
    for name in rows.column_names:
        if name not in names:
            raise RequestError(
                f"the model takes no column {name!r}", where=where, hint=did_you_mean(name, names, noun="columns")
            )
    if len(set(rows.column_names)) != rows.num_columns:
        raise RequestError("a column is there twice", where=where, hint=f"found: {', '.join(rows.column_names)}")
    arrays = [_conform_column(rows, column, served) for column in served.columns]
    return pa.Table.from_arrays(arrays, schema=request_schema(served.columns))


def _conform_column(rows: pa.Table, column: RequestColumn, served: ServedModel) -> pa.ChunkedArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    place = f"model {served.model!r}, column {column.name!r}"
    wanted = arrow_type(column.type)
    if column.name not in rows.column_names:
        if column.required:
            raise RequestError(
                f"the column {column.name!r} is missing",
                where=f"model {served.model!r}",
                hint=f"the model takes: {describe_columns(served.columns)}",
            )
        return pa.chunked_array([pa.nulls(rows.num_rows, wanted)])
    values = rows.column(column.name)
    if pa.types.is_timestamp(values.type) and values.type.tz is None:
        raise RequestError(
            f"the timestamps of {column.name!r} name no time zone",
            where=place,
            hint="make instants of them first, such as timestamp[us, UTC]",
        )
    if values.type != wanted:
        values = _cast(values, column, wanted, place)
    if column.type == "float64":
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, wanted), values)
    if column.required and values.null_count:
        first = pc.index(pc.is_null(values), True).as_py()
        raise RequestError(
            f"{column.name!r} is null in {values.null_count} of {rows.num_rows} rows, first in row {first}",
            where=place,
            hint="the column is required in every row",
        )
    return values


def _cast(values: pa.ChunkedArray[Any], column: RequestColumn, wanted: pa.DataType, place: str) -> pa.ChunkedArray[Any]:
    import pyarrow as pa

    found = values.type
    if pa.types.is_dictionary(found):
        found = found.value_type
    number = pa.types.is_integer(found) or pa.types.is_floating(found)
    text = pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    fits = {
        "bool": pa.types.is_boolean(found),
        "int64": number,
        "float64": number or pa.types.is_decimal(found),
        "string": text,
        "instant": pa.types.is_timestamp(found),
    }[column.type]
    try:
        if fits or pa.types.is_null(found):
            return values.cast(wanted, safe=True)
        reason: Exception | None = None
    except pa.ArrowInvalid as error:
        reason = error
    raise RequestError(
        f"{column.name!r} holds {found}, and the model takes {column.type}" + (f": {reason}" if reason else ""),
        where=place,
        hint=f"send {column.type} values that need no rounding",
    ) from reason
