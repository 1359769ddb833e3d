"""Rows as a table keeps them: NaN is null, instants are microseconds in UTC, no value changes on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def clean_batch(batch: pa.RecordBatch, target: pa.Schema, table: str) -> pa.RecordBatch:
    """A batch with the types of `target` (same columns, same order).

    NaN becomes null, also inside lists and structs. Nanoseconds are cut to microseconds, towards the past.

    Raises:
        DataError: A value does not fit its column's type.
    """
    import pyarrow as pa

    arrays = [_clean_column(batch.column(position), field, table) for position, field in enumerate(target)]
    return pa.RecordBatch.from_arrays(arrays, schema=target)


def _clean_column(array: Any, field: pa.Field[Any], table: str) -> Any:
    import pyarrow as pa

    try:
        return _convert(array, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f'Column "{field.name}" holds a value that does not fit the column\'s type {_plain(field.type)}: {error}',
            where=f'table "{table}"',
            hint="mend the value, or cast the column to a wider type",
        ) from error


def _plain(type: pa.DataType) -> str:
    return {"large_string": "string", "timestamp[us, tz=UTC]": "instant"}.get(str(type), str(type))


def _convert(array: Any, type: pa.DataType) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    is_ = pa.types
    if is_.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_.is_floating(array.type):
        nan = pc.is_nan(array)
        if pc.any(nan).as_py():
            array = pc.if_else(nan, pa.scalar(None, array.type), array)
    if is_.is_timestamp(array.type) and array.type.unit == "ns":
        array = pc.floor_temporal(array.cast(pa.timestamp("ns", "UTC")), unit="microsecond")
    if is_.is_struct(type):
        children = [_convert(array.field(child.name), child.type) for child in type]
        return pa.StructArray.from_arrays(children, fields=list(type), mask=pc.is_null(array))
    if (is_.is_list(type) or is_.is_large_list(type)) and _holds_floats(array.type):
        return _convert_list(array, type)
    if is_.is_map(type) and array.type != type:
        return _convert_map(array, type)
    return array if array.type == type else array.cast(type)


def _holds_floats(type: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_nested(type):
        return any(_holds_floats(type.field(position).type) for position in range(type.num_fields))
    return bool(pa.types.is_floating(type))


def _convert_list(array: Any, type: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_field))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    ends = pc.cumulative_sum(lengths).to_pylist()
    offsets = pa.array([0, *ends], pa.int64() if pa.types.is_large_list(type) else pa.int32())
    build: Any = pa.LargeListArray if pa.types.is_large_list(type) else pa.ListArray
    return build.from_arrays(
        offsets, _convert(pc.list_flatten(array), type.value_type), type=type, mask=pc.is_null(array)
    )


def _convert_map(array: Any, type: Any) -> Any:
    """A map by its parts: Arrow aborts the process on some casts from one map type to another."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    keys = _convert(array.keys.slice(first, last - first), type.key_type)
    items = _convert(array.items.slice(first, last - first), type.item_type)
    offsets = pc.subtract(array.offsets, pa.scalar(first, pa.int32()))
    return pa.MapArray.from_arrays(offsets, keys, items, type=type, mask=pc.is_null(array))
